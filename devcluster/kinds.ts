// The kinds this control plane serves, as data: everything generic about a kind is said here and nowhere else.
import { define, type Resource } from '../kube/resources.ts';
import type { KubeObject } from '../kube/types/meta.ts';

/** An object as it is kept: without apiVersion and kind, which its collection knows. */
export interface Obj extends KubeObject {
  [field: string]: unknown;
}

export interface Subresource {
  /** With the kind of what it takes or answers. */
  readonly resource: Resource;
  readonly verbs: readonly string[];
}

export interface Kind {
  readonly resource: Resource;
  readonly shortNames: readonly string[];
  readonly categories: readonly string[];
  /** Has a status subresource: writes of the main resource leave status alone, and those of /status everything else. */
  readonly hasStatus: boolean;
  /** metadata.generation counts changes of what is neither metadata nor status. */
  readonly counts: boolean;
  readonly subresources: Readonly<Record<string, Subresource>>;
  /** Only POST, and nothing is kept: reviews. */
  readonly virtual: boolean;
  readonly verbs: readonly string[];
  /** Fields a field selector may name beside metadata.name and metadata.namespace. */
  readonly fields: readonly string[];
}

// apiVersion, plural, Kind, N(amespaced) or C(luster); then what holds of it: `status`, `counts`, `all` (the category), `virtual`, a short name.
const table = `
v1 namespaces Namespace C status ns
v1 nodes Node C status no
v1 pods Pod N status counts all po
v1 services Service N status all svc
v1 endpoints Endpoints N ep
v1 configmaps ConfigMap N cm
v1 secrets Secret N
v1 serviceaccounts ServiceAccount N sa
v1 events Event N ev
v1 persistentvolumes PersistentVolume C status pv
v1 persistentvolumeclaims PersistentVolumeClaim N status pvc
apps/v1 deployments Deployment N status counts all deploy
apps/v1 replicasets ReplicaSet N status counts all rs
discovery.k8s.io/v1 endpointslices EndpointSlice N counts
coordination.k8s.io/v1 leases Lease N
node.k8s.io/v1 runtimeclasses RuntimeClass C
storage.k8s.io/v1 csidrivers CSIDriver C
storage.k8s.io/v1 csinodes CSINode C
storage.k8s.io/v1 volumeattachments VolumeAttachment C status
authentication.k8s.io/v1 tokenreviews TokenReview C virtual
authorization.k8s.io/v1 subjectaccessreviews SubjectAccessReview C virtual
`;

// What is below objects: plural, name, verbs, and the apiVersion and kind of what it takes or answers.
const below = `
pods attach create,get v1 PodAttachOptions
pods binding create v1 Binding
pods ephemeralcontainers get,patch,update v1 Pod
pods exec create,get v1 PodExecOptions
pods log get v1 Pod
pods portforward create,get v1 PodPortForwardOptions
serviceaccounts token create authentication.k8s.io/v1 TokenRequest
deployments scale get,patch,update autoscaling/v1 Scale
replicasets scale get,patch,update autoscaling/v1 Scale
`;

const fields: Readonly<Record<string, string>> = {
  pods: 'spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName status.phase status.podIP',
  events:
    'involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason reportingComponent source type',
  nodes: 'spec.unschedulable',
  namespaces: 'status.phase',
  secrets: 'type',
  services: 'spec.clusterIP spec.type',
};

const words = (text: string): string[] => text.split(/[ ,]/).filter(Boolean);
const rows = (text: string): string[][] =>
  text
    .trim()
    .split('\n')
    .map((line) => line.split(' '));

const traits = ['status', 'counts', 'all', 'virtual'];
const everyVerb = ['create', 'delete', 'get', 'list', 'patch', 'update', 'watch'];

export const kinds: readonly Kind[] = rows(table).map(([apiVersion = '', plural = '', kind = '', scope, ...more]) => {
  const resource = define(apiVersion, plural, kind, scope === 'N' ? 'Namespaced' : 'Cluster');
  const subresources = rows(below)
    .filter(([of]) => of === plural)
    .map(([, name = '', verbs = '', version = '', sub = '']): [string, Subresource] => [
      name,
      { resource: define(version, plural, sub, 'Namespaced'), verbs: words(verbs) },
    ]);
  if (more.includes('status')) subresources.push(['status', { resource, verbs: ['get', 'patch', 'update'] }]);
  const virtual = more.includes('virtual');
  return {
    resource,
    shortNames: more.filter((word) => !traits.includes(word)),
    categories: more.filter((word) => word === 'all'),
    hasStatus: more.includes('status'),
    counts: more.includes('counts'),
    subresources: Object.fromEntries(subresources),
    virtual,
    verbs: virtual ? ['create'] : everyVerb,
    fields: words(fields[plural] ?? ''),
  };
});

/** Of what is served: plurals are unique here. */
export const kindByName = (plural: string): Kind => kinds.find(({ resource }) => resource.plural === plural)!;

/** Reads a nested field, undefined where any part is absent. */
export function at(object: unknown, path: string): unknown {
  let value = object;
  for (const part of path.split('.')) value = (value as Record<string, unknown> | null | undefined)?.[part];
  return value;
}
