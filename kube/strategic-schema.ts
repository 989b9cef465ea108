// Which lists of the core types a strategic merge patch merges, and by what key. Source: the patchStrategy and patchMergeKey tags of
// k8s.io/api's types.go, 1.36. A list that is not named here is atomic: a patch replaces it.

/** What a strategic merge patch knows of one field. */
export interface PatchSchema {
  readonly fields?: Readonly<Record<string, PatchSchema>>;
  /** Items that are objects merge by this key; `set`: primitive items, each once. Absent: the list is atomic. */
  readonly mergeBy?: string;
  /** What the items (or the object) hold beneath. */
  readonly items?: PatchSchema;
}

export const primitiveSet = 'set';

const by = (key: string, items: PatchSchema = {}): PatchSchema => ({ mergeBy: key, items });
const set: PatchSchema = { mergeBy: primitiveSet };
const conditions = by('type');

const metadata: PatchSchema = { fields: { ownerReferences: by('uid'), finalizers: set } };

const container: PatchSchema = {
  fields: {
    ports: by('containerPort'),
    env: by('name'),
    volumeMounts: by('mountPath'),
    volumeDevices: by('devicePath'),
  },
};

const podSpec: PatchSchema = {
  fields: {
    volumes: by('name'),
    initContainers: by('name', container),
    containers: by('name', container),
    ephemeralContainers: by('name', container),
    imagePullSecrets: by('name'),
    hostAliases: by('ip'),
    topologySpreadConstraints: by('topologyKey'),
    schedulingGates: by('name'),
    resourceClaims: by('name'),
  },
};

const podTemplate: PatchSchema = { fields: { metadata, spec: podSpec } };
const withTemplate: PatchSchema = { fields: { template: podTemplate } };
const onlyConditions: PatchSchema = { fields: { conditions } };

const object = (spec?: PatchSchema, status?: PatchSchema, more: Readonly<Record<string, PatchSchema>> = {}) => ({
  fields: { metadata, ...(spec ? { spec } : {}), ...(status ? { status } : {}), ...more },
});

const kinds: Readonly<Record<string, PatchSchema>> = {
  Pod: object(podSpec, {
    fields: { conditions, hostIPs: by('ip'), podIPs: by('ip'), resourceClaimStatuses: by('name') },
  }),
  Node: object({ fields: { podCIDRs: set } }, { fields: { conditions, addresses: by('type') } }),
  Namespace: object(undefined, onlyConditions),
  Service: object({ fields: { ports: by('port') } }, onlyConditions),
  // imagePullSecrets of a ServiceAccount is atomic, unlike a Pod's.
  ServiceAccount: object(undefined, undefined, { secrets: by('name') }),
  PersistentVolumeClaim: object(undefined, onlyConditions),
  ReplicationController: object(withTemplate, onlyConditions),
  PodTemplate: object(undefined, undefined, { template: podTemplate }),
  Deployment: object(withTemplate, onlyConditions),
  ReplicaSet: object(withTemplate, onlyConditions),
  DaemonSet: object(withTemplate, onlyConditions),
  StatefulSet: object(withTemplate, onlyConditions),
  Job: object(withTemplate, onlyConditions),
  CronJob: object({ fields: { jobTemplate: { fields: { metadata, spec: withTemplate } } } }),
  CSINode: object({ fields: { drivers: by('name') } }),
  ServiceCIDR: object(undefined, onlyConditions),
};

/** The schema of a kind; for one that is not named, that of an object with metadata alone. */
export const patchSchemaOf = (kind: string): PatchSchema => kinds[kind] ?? object();
