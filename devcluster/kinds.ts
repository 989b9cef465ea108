// The kinds this control plane serves, as data: everything generic about a kind is said here and nowhere else.
import { resources, type Resource } from '../kube/resources.ts';
import type { Obj } from './store.ts';

export interface Kind {
  readonly resource: Resource;
  readonly singular: string;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  /** Has a status subresource: writes of the main resource leave status alone, and those of /status everything else. */
  readonly hasStatus: boolean;
  /** metadata.generation counts changes of what is neither metadata nor status. */
  readonly counts: boolean;
  /** Subresources beside status, with the kind of what they take or answer. */
  readonly subresources: Readonly<
    Record<string, { kind: string; group?: string; version?: string; verbs: readonly string[] }>
  >;
  /** Only POST, and nothing is kept: reviews. */
  readonly virtual: boolean;
  /** Fields a field selector may name beside metadata.name and metadata.namespace. */
  readonly fields: readonly string[];
}

interface Traits {
  short?: string[];
  all?: boolean;
  status?: boolean;
  counts?: boolean;
  virtual?: boolean;
  fields?: string[];
  subresources?: Kind['subresources'];
}

const define = (apiVersion: string, plural: string, kind: string, namespaced: boolean): Resource => {
  const [version = '', group = ''] = apiVersion.split('/').reverse();
  return { group, version, plural, kind, namespaced };
};

const kindOf = (resource: Resource, traits: Traits = {}): Kind => ({
  resource,
  singular: resource.kind.toLowerCase(),
  shortNames: traits.short ?? [],
  categories: traits.all ? ['all'] : [],
  hasStatus: traits.status ?? false,
  counts: traits.counts ?? false,
  subresources: traits.subresources ?? {},
  virtual: traits.virtual ?? false,
  fields: traits.fields ?? [],
});

const scale = { scale: { kind: 'Scale', group: 'autoscaling', version: 'v1', verbs: ['get', 'patch', 'update'] } };
const stream = (kind: string) => ({ kind, verbs: ['create', 'get'] });
const edit = (kind: string) => ({ kind, verbs: ['get', 'patch', 'update'] });

const podTraits: Traits = {
  short: ['po'],
  all: true,
  status: true,
  counts: true,
  fields: [
    'spec.nodeName',
    'spec.restartPolicy',
    'spec.schedulerName',
    'spec.serviceAccountName',
    'spec.hostNetwork',
    'status.phase',
    'status.podIP',
    'status.nominatedNodeName',
  ],
  subresources: {
    attach: stream('PodAttachOptions'),
    binding: { kind: 'Binding', verbs: ['create'] },
    ephemeralcontainers: edit('Pod'),
    eviction: { kind: 'Eviction', group: 'policy', version: 'v1', verbs: ['create'] },
    exec: stream('PodExecOptions'),
    log: { kind: 'Pod', verbs: ['get'] },
    portforward: stream('PodPortForwardOptions'),
    resize: edit('Pod'),
  },
};

const eventFields = [
  'involvedObject.kind',
  'involvedObject.namespace',
  'involvedObject.name',
  'involvedObject.uid',
  'involvedObject.apiVersion',
  'involvedObject.resourceVersion',
  'involvedObject.fieldPath',
  'reason',
  'reportingComponent',
  'source',
  'type',
];

export const deployments = define('apps/v1', 'deployments', 'Deployment', true);
export const replicaSets = define('apps/v1', 'replicasets', 'ReplicaSet', true);
export const priorityClasses = define('scheduling.k8s.io/v1', 'priorityclasses', 'PriorityClass', false);
export const storageClasses = define('storage.k8s.io/v1', 'storageclasses', 'StorageClass', false);
export const roles = define('rbac.authorization.k8s.io/v1', 'roles', 'Role', true);
export const clusterRoles = define('rbac.authorization.k8s.io/v1', 'clusterroles', 'ClusterRole', false);
export const roleBindings = define('rbac.authorization.k8s.io/v1', 'rolebindings', 'RoleBinding', true);
export const clusterRoleBindings = define(
  'rbac.authorization.k8s.io/v1',
  'clusterrolebindings',
  'ClusterRoleBinding',
  false,
);
export const eventsV1 = define('events.k8s.io/v1', 'events', 'Event', true);
const review = (plural: string, kind: string, namespaced = false): Kind =>
  kindOf(define('authorization.k8s.io/v1', plural, kind, namespaced), { virtual: true });

export const kinds: readonly Kind[] = [
  kindOf(resources.namespaces, { short: ['ns'], status: true, fields: ['status.phase'] }),
  kindOf(resources.nodes, { short: ['no'], status: true, fields: ['spec.unschedulable'] }),
  kindOf(resources.pods, podTraits),
  kindOf(resources.services, {
    short: ['svc'],
    all: true,
    status: true,
    fields: ['spec.clusterIP', 'spec.type'],
  }),
  kindOf(define('v1', 'endpoints', 'Endpoints', true), { short: ['ep'] }),
  kindOf(resources.configMaps, { short: ['cm'] }),
  kindOf(resources.secrets, { fields: ['type'] }),
  kindOf(resources.serviceAccounts, {
    short: ['sa'],
    subresources: {
      token: { kind: 'TokenRequest', group: 'authentication.k8s.io', version: 'v1', verbs: ['create'] },
    },
  }),
  kindOf(resources.events, { short: ['ev'], fields: eventFields }),
  kindOf(resources.persistentVolumes, { short: ['pv'], status: true }),
  kindOf(resources.persistentVolumeClaims, { short: ['pvc'], status: true }),
  kindOf(eventsV1, { short: ['ev'], fields: eventFields }),
  kindOf(deployments, { short: ['deploy'], all: true, status: true, counts: true, subresources: scale }),
  kindOf(replicaSets, {
    short: ['rs'],
    all: true,
    status: true,
    counts: true,
    fields: ['status.replicas'],
    subresources: scale,
  }),
  kindOf(resources.endpointSlices, { counts: true }),
  kindOf(resources.leases),
  kindOf(resources.runtimeClasses),
  kindOf(resources.csiDrivers),
  kindOf(resources.csiNodes),
  kindOf(storageClasses, { short: ['sc'] }),
  kindOf(resources.volumeAttachments, { status: true }),
  kindOf(priorityClasses, { short: ['pc'] }),
  kindOf(resources.certificateSigningRequests, {
    short: ['csr'],
    status: true,
    fields: ['spec.signerName'],
    subresources: { approval: edit('CertificateSigningRequest') },
  }),
  kindOf(resources.serviceCidrs, { status: true }),
  kindOf(roles),
  kindOf(clusterRoles),
  kindOf(roleBindings),
  kindOf(clusterRoleBindings),
  kindOf(resources.tokenReviews, { virtual: true }),
  kindOf(define('authentication.k8s.io/v1', 'selfsubjectreviews', 'SelfSubjectReview', false), { virtual: true }),
  review('subjectaccessreviews', 'SubjectAccessReview'),
  review('selfsubjectaccessreviews', 'SelfSubjectAccessReview'),
  review('selfsubjectrulesreviews', 'SelfSubjectRulesReview'),
  review('localsubjectaccessreviews', 'LocalSubjectAccessReview', true),
];

export const apiVersionOf = (resource: Resource): string =>
  resource.group ? `${resource.group}/${resource.version}` : resource.version;

export const findKind = (group: string, version: string, plural: string): Kind | undefined =>
  kinds.find(({ resource }) => resource.group === group && resource.version === version && resource.plural === plural);

/** The verbs discovery and authorization know for a kind. */
export const verbsOf = (kind: Kind): readonly string[] =>
  kind.virtual ? ['create'] : ['create', 'delete', 'deletecollection', 'get', 'list', 'patch', 'update', 'watch'];

/** Both Event APIs are views of one collection. */
export const collectionNameOf = ({ resource }: Kind): string =>
  resource.kind === 'Event' ? 'events' : resource.group ? `${resource.plural}.${resource.group}` : resource.plural;

/** What no descriptor says: reads a nested field, undefined where any part is absent. */
export function at(object: unknown, path: string): unknown {
  let value = object;
  for (const part of path.split('.')) value = (value as Record<string, unknown> | null | undefined)?.[part];
  return value;
}

export const kindByName = (plural: string, group = ''): Kind =>
  kinds.find(({ resource }) => resource.plural === plural && resource.group === group)!;

export type { Obj };
