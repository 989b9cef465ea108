// What the API server serves, told in both forms: the aggregated one (one answer for all groups) and the old one (an answer for each).
import { apiVersionOf, type Kind, kinds, verbsOf } from './kinds.ts';

const groupsInOrder = [...new Set(kinds.map(({ resource }) => resource.group))].filter((group) => group !== '');

const versionsOf = (group: string): string[] => [
  ...new Set(kinds.filter(({ resource }) => resource.group === group).map(({ resource }) => resource.version)),
];
const kindsOf = (group: string, version: string): Kind[] =>
  kinds.filter(({ resource }) => resource.group === group && resource.version === version);

const aggregatedType = 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList';

const wantsAggregated = (accept: string | undefined): boolean =>
  (accept ?? '')
    .split(',')
    .some(
      (part) =>
        part.includes('apidiscovery.k8s.io') &&
        part.includes('v=v2') &&
        !part.includes('v2beta1') &&
        part.trim().startsWith('application/json'),
    );

interface Discovered {
  readonly body: string;
  readonly contentType: string;
}

const plain = (value: unknown): Discovered => ({ body: JSON.stringify(value), contentType: 'application/json' });

/** Undefined where the path is none of discovery's. */
export function discover(path: string, accept: string | undefined, serverAddress: string): Discovered | undefined {
  const parts = path.split('/').filter((part) => part !== '');
  if (path === '/api' || path === '/apis') {
    const groups = path === '/api' ? [''] : groupsInOrder;
    if (wantsAggregated(accept))
      return {
        body: JSON.stringify({
          kind: 'APIGroupDiscoveryList',
          apiVersion: 'apidiscovery.k8s.io/v2',
          metadata: {},
          items: groups.map(aggregated),
        }),
        contentType: aggregatedType,
      };
    if (path === '/api')
      return plain({
        kind: 'APIVersions',
        versions: ['v1'],
        serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress }],
      });
    return plain({ kind: 'APIGroupList', apiVersion: 'v1', groups: groups.map(groupOf) });
  }
  if (parts[0] === 'apis' && parts.length === 2 && groupsInOrder.includes(parts[1]!))
    return plain({ kind: 'APIGroup', apiVersion: 'v1', ...groupOf(parts[1]!) });
  const [group, version] =
    parts[0] === 'api' && parts.length === 2
      ? ['', parts[1]!]
      : parts[0] === 'apis' && parts.length === 3
        ? [parts[1]!, parts[2]!]
        : [];
  if (group === undefined || version === undefined || kindsOf(group, version).length === 0) return undefined;
  return plain({
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: group ? `${group}/${version}` : version,
    resources: kindsOf(group, version).flatMap(resourceEntries),
  });
}

const groupOf = (group: string) => {
  const versions = versionsOf(group).map((version) => ({ groupVersion: `${group}/${version}`, version }));
  return { name: group, versions, preferredVersion: versions[0] };
};

const aggregated = (group: string) => ({
  metadata: { ...(group ? { name: group } : {}), creationTimestamp: null },
  versions: versionsOf(group).map((version) => ({
    version,
    freshness: 'Current',
    resources: kindsOf(group, version).map((kind) => ({
      resource: kind.resource.plural,
      responseKind: { group, version, kind: kind.resource.kind },
      scope: kind.resource.namespaced ? 'Namespaced' : 'Cluster',
      singularResource: kind.singular,
      verbs: verbsOf(kind),
      ...(kind.shortNames.length > 0 ? { shortNames: kind.shortNames } : {}),
      ...(kind.categories.length > 0 ? { categories: kind.categories } : {}),
      ...subresourcesOf(kind),
    })),
  })),
});

interface Sub {
  readonly name: string;
  readonly kind: string;
  readonly group: string;
  readonly version: string;
  readonly verbs: readonly string[];
}

function subs(kind: Kind): Sub[] {
  const { group, version } = kind.resource;
  const own = Object.entries(kind.subresources).map(([name, sub]) => ({
    name,
    kind: sub.kind,
    group: sub.group ?? group,
    version: sub.version ?? version,
    verbs: sub.verbs,
  }));
  const status = { name: 'status', kind: kind.resource.kind, group, version, verbs: ['get', 'patch', 'update'] };
  return kind.hasStatus ? [...own, status] : own;
}

const subresourcesOf = (kind: Kind) => {
  const list = subs(kind).map((sub) => ({
    subresource: sub.name,
    responseKind: { group: sub.group, version: sub.version, kind: sub.kind },
    verbs: sub.verbs,
  }));
  return list.length > 0 ? { subresources: list } : {};
};

const resourceEntries = (kind: Kind) => [
  {
    name: kind.resource.plural,
    singularName: kind.singular,
    namespaced: kind.resource.namespaced,
    kind: kind.resource.kind,
    verbs: verbsOf(kind),
    ...(kind.shortNames.length > 0 ? { shortNames: kind.shortNames } : {}),
    ...(kind.categories.length > 0 ? { categories: kind.categories } : {}),
  },
  ...subs(kind).map((sub) => ({
    name: `${kind.resource.plural}/${sub.name}`,
    singularName: '',
    namespaced: kind.resource.namespaced,
    group: sub.group,
    version: sub.version,
    kind: sub.kind,
    verbs: sub.verbs,
  })),
];

export const knownGroupVersions = (): { group: string; version: string; apiVersion: string; kinds: Kind[] }[] =>
  [...new Set(kinds.map(({ resource }) => apiVersionOf(resource)))].map((apiVersion) => {
    const [version = '', group = ''] = apiVersion.split('/').reverse();
    return { group, version, apiVersion, kinds: kindsOf(group, version) };
  });
