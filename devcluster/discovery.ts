// What the API server serves, told in the aggregated form (one answer for all groups), which every kubectl since 1.26 asks for.
import type { Resource } from '../kube/resources.ts';
import { type Kind, kinds } from './kinds.ts';

const contentType = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';

const kindOf = ({ group, version, kind }: Resource) => ({ group, version, kind });

const described = ({ resource, shortNames, categories, verbs, subresources }: Kind) => ({
  resource: resource.plural,
  responseKind: kindOf(resource),
  scope: resource.namespaced ? 'Namespaced' : 'Cluster',
  singularResource: resource.kind.toLowerCase(),
  verbs,
  shortNames,
  categories,
  subresources: Object.entries(subresources).map(([subresource, below]) => ({
    subresource,
    responseKind: kindOf(below.resource),
    verbs: below.verbs,
  })),
});

/** Undefined where the path is none of discovery's. */
export function discover(path: string): { body: string; contentType: string } | undefined {
  if (path !== '/api' && path !== '/apis') return undefined;
  const served = kinds.filter(({ resource }) => (resource.group === '') === (path === '/api'));
  const items = [...Map.groupBy(served, ({ resource }) => resource.group)].map(([name, members]) => ({
    metadata: { name, creationTimestamp: null },
    versions: [{ version: 'v1', freshness: 'Current', resources: members.map(described) }],
  }));
  const list = { kind: 'APIGroupDiscoveryList', apiVersion: 'apidiscovery.k8s.io/v2', metadata: {}, items };
  return { body: JSON.stringify(list), contentType };
}
