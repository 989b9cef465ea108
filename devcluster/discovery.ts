// What the API server serves, told in the aggregated form (one answer for all groups), which every kubectl since 1.26 asks for.
import { type Kind, kinds, verbsOf } from './kinds.ts';

const contentType = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';

const described = (kind: Kind) => {
  const { group, version, plural, kind: name, namespaced } = kind.resource;
  const { shortNames, categories } = kind;
  return {
    resource: plural,
    responseKind: { group, version, kind: name },
    scope: namespaced ? 'Namespaced' : 'Cluster',
    singularResource: name.toLowerCase(),
    verbs: verbsOf(kind),
    ...(shortNames.length > 0 ? { shortNames } : {}),
    ...(categories.length > 0 ? { categories } : {}),
    subresources: Object.entries(kind.subresources).map(([subresource, { verbs, ...responseKind }]) => ({
      subresource,
      responseKind,
      verbs,
    })),
  };
};

/** Undefined where the path is none of discovery's. */
export function discover(path: string): { body: string; contentType: string } | undefined {
  if (path !== '/api' && path !== '/apis') return undefined;
  const groups = Map.groupBy(
    kinds.filter(({ resource }) => (resource.group === '') === (path === '/api')),
    ({ resource }) => resource.group,
  );
  const items = [...groups].map(([name, members]) => ({
    metadata: { name, creationTimestamp: null },
    versions: [{ version: 'v1', freshness: 'Current', resources: members.map(described) }],
  }));
  const list = { kind: 'APIGroupDiscoveryList', apiVersion: 'apidiscovery.k8s.io/v2', metadata: {}, items };
  return { body: JSON.stringify(list), contentType };
}
