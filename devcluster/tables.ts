// What `kubectl get` prints: a Table whose columns are, for each kind, those kubectl's users know.
import type { CoreEvent, EndpointSlice, Node, Service } from '../kube/types/core.ts';
import type { LabelSelector } from '../kube/types/meta.ts';
import { requirementText } from './selector-text.ts';
import { collectionNameOf, type Kind } from './kinds.ts';
import { at } from './kinds.ts';
import { ageColumn, col, type Column, humanDuration, nameColumn, since, text, textAt } from './columns.ts';
import { podColumns } from './table-pods.ts';
import type { Deployment, PodTemplate, ReplicaSet } from './default-workload.ts';
import type { Obj } from './store.ts';

const count =
  (path: string) =>
  (object: Obj): number =>
    Object.keys((at(object, path) as object | undefined) ?? {}).length;
const joined =
  (path: string) =>
  (object: Obj): string =>
    ((at(object, path) as string[] | undefined) ?? []).join(',');

const accessModes = (modes: readonly string[] | undefined): string =>
  (modes ?? [])
    .map(
      (mode) =>
        ({ ReadWriteOnce: 'RWO', ReadOnlyMany: 'ROX', ReadWriteMany: 'RWX', ReadWriteOncePod: 'RWOP' })[mode] ?? mode,
    )
    .join(',');

const selectorText = (selector: LabelSelector | undefined): string => requirementText(selector) || '<none>';

const templateColumns: Column[] = [
  col(
    'Containers',
    (object) =>
      containersOf(object)
        .map(({ name }) => name)
        .join(','),
    true,
  ),
  col(
    'Images',
    (object) =>
      containersOf(object)
        .map(({ image }) => image ?? '')
        .join(','),
    true,
  ),
  col('Selector', (object) => selectorText(at(object, 'spec.selector') as LabelSelector), true),
];
const containersOf = (object: Obj) => (at(object, 'spec.template') as PodTemplate).spec.containers;

function nodeStatus(node: Node): string {
  const ready = node.status?.conditions?.find(({ type }) => type === 'Ready');
  const words = [ready ? (ready.status === 'True' ? 'Ready' : 'NotReady') : 'Unknown'];
  if (node.spec.unschedulable) words.push('SchedulingDisabled');
  return words.join(',');
}

function nodeRoles(node: Node): string {
  const labels = Object.entries(node.metadata.labels ?? {});
  const roles = labels.flatMap(([key, value]) =>
    key.startsWith('node-role.kubernetes.io/') ? [key.slice(24)] : key === 'kubernetes.io/role' && value ? [value] : [],
  );
  return roles.sort().join(',') || '<none>';
}

const nodeAddress =
  (type: string) =>
  (object: Obj): string =>
    (object as unknown as Node).status?.addresses?.find((one) => one.type === type)?.address ?? '<none>';

function servicePorts(service: Service): string {
  const ports = (service.spec.ports ?? []).map(
    (port) => `${port.port}${port.nodePort ? `:${port.nodePort}` : ''}/${port.protocol ?? 'TCP'}`,
  );
  return ports.join(',') || '<none>';
}

function externalIp({ spec, status }: Service): string {
  if (spec.type === 'ExternalName') return spec.externalName ?? '';
  const given = (status?.loadBalancer?.ingress ?? []).map(({ ip, hostname }) => ip ?? hostname ?? '');
  const all = [...given, ...(spec.externalIPs ?? [])].join(',');
  return all || (spec.type === 'LoadBalancer' ? '<pending>' : '<none>');
}

const upTo = (items: readonly string[], most: number): string =>
  items.length > most ? `${items.slice(0, most).join(',')} + ${items.length - most} more...` : items.join(',');

const slicePorts = (slice: EndpointSlice): string =>
  slice.ports?.length
    ? upTo(
        slice.ports.map(({ name, port }) => (port ? String(port) : (name ?? '*'))),
        3,
      )
    : '<unset>';
const sliceEndpoints = (slice: EndpointSlice): string =>
  slice.endpoints?.length
    ? upTo(
        slice.endpoints.flatMap(({ addresses }) => addresses),
        3,
      )
    : '<unset>';

const eventTime = (event: CoreEvent): string | null | undefined =>
  event.lastTimestamp ?? event.firstTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp;

const involved = (event: CoreEvent & { regarding?: CoreEvent['involvedObject'] }) =>
  event.involvedObject ?? event.regarding ?? {};

const eventColumns: Column[] = [
  col('Last Seen', (object, now) => {
    const event = object as unknown as CoreEvent;
    return since(eventTime(event), now);
  }),
  text('Type', 'type', ''),
  text('Reason', 'reason', ''),
  col('Object', (object) => {
    const { kind = '', name = '' } = involved(object as unknown as CoreEvent);
    return `${kind.toLowerCase()}/${name}`;
  }),
  col('Subobject', (object) => involved(object as unknown as CoreEvent).fieldPath ?? '', true),
  col(
    'Source',
    (object) => {
      const { source, reportingComponent } = object as unknown as CoreEvent;
      return [source?.component || reportingComponent, source?.host].filter(Boolean).join(', ');
    },
    true,
  ),
  col('Message', (object) => (textAt(object, 'message') || textAt(object, 'note')).trim()),
  col(
    'First Seen',
    (object, now) => since((object as unknown as CoreEvent).firstTimestamp ?? object.metadata.creationTimestamp, now),
    true,
  ),
  col('Count', (object) => Number(at(object, 'count') ?? 1), true),
  { ...nameColumn, wide: true },
];

function csrCondition(object: Obj): string {
  const { conditions = [], certificate } = (object.status ?? {}) as {
    conditions?: { type: string }[];
    certificate?: string;
  };
  const types = conditions.map(({ type }) => type);
  const state = types.includes('Denied') ? 'Denied' : types.includes('Approved') ? 'Approved' : 'Pending';
  return [state, ...(types.includes('Failed') ? ['Failed'] : []), ...(certificate ? ['Issued'] : [])].join(',');
}

const claimOf = (object: Obj): string => {
  const claim = at(object, 'spec.claimRef') as { namespace?: string; name?: string } | undefined;
  return claim ? `${claim.namespace}/${claim.name}` : '';
};

const role = col('Role', (object) => `${textAt(object, 'roleRef.kind')}/${textAt(object, 'roleRef.name')}`);
const created = col('Created At', (object) => object.metadata.creationTimestamp ?? '');
const bool = (name: string, path: string): Column => col(name, (object) => String(at(object, path) ?? false));

const columns: Readonly<Record<string, readonly Column[]>> = {
  pods: podColumns,
  events: eventColumns,
  nodes: [
    nameColumn,
    col('Status', (object) => nodeStatus(object as unknown as Node)),
    col('Roles', (object) => nodeRoles(object as unknown as Node)),
    ageColumn,
    text('Version', 'status.nodeInfo.kubeletVersion', ''),
    col('Internal-IP', nodeAddress('InternalIP'), true),
    col('External-IP', nodeAddress('ExternalIP'), true),
    text('OS-Image', 'status.nodeInfo.osImage', '<unknown>', true),
    text('Kernel-Version', 'status.nodeInfo.kernelVersion', '<unknown>', true),
    text('Container-Runtime', 'status.nodeInfo.containerRuntimeVersion', '<unknown>', true),
  ],
  services: [
    nameColumn,
    text('Type', 'spec.type'),
    text('Cluster-IP', 'spec.clusterIP'),
    col('External-IP', (object) => externalIp(object as unknown as Service)),
    col('Port(s)', (object) => servicePorts(object as unknown as Service)),
    ageColumn,
    col(
      'Selector',
      (object) => selectorText({ matchLabels: (object as unknown as Service).spec.selector ?? {} }),
      true,
    ),
  ],
  'deployments.apps': [
    nameColumn,
    col('Ready', (object) => {
      const { spec, status } = object as unknown as Deployment;
      return `${status?.readyReplicas ?? 0}/${spec.replicas ?? 0}`;
    }),
    col('Up-to-date', (object) => (object as unknown as Deployment).status?.updatedReplicas ?? 0),
    col('Available', (object) => (object as unknown as Deployment).status?.availableReplicas ?? 0),
    ageColumn,
    ...templateColumns,
  ],
  'replicasets.apps': [
    nameColumn,
    col('Desired', (object) => (object as unknown as ReplicaSet).spec.replicas ?? 0),
    col('Current', (object) => (object as unknown as ReplicaSet).status?.replicas ?? 0),
    col('Ready', (object) => (object as unknown as ReplicaSet).status?.readyReplicas ?? 0),
    ageColumn,
    ...templateColumns,
  ],
  namespaces: [nameColumn, text('Status', 'status.phase'), ageColumn],
  configmaps: [nameColumn, col('Data', (object) => count('data')(object) + count('binaryData')(object)), ageColumn],
  secrets: [nameColumn, text('Type', 'type'), col('Data', count('data')), ageColumn],
  'endpointslices.discovery.k8s.io': [
    nameColumn,
    text('AddressType', 'addressType'),
    col('Ports', (object) => slicePorts(object as unknown as EndpointSlice)),
    col('Endpoints', (object) => sliceEndpoints(object as unknown as EndpointSlice)),
    ageColumn,
  ],
  'leases.coordination.k8s.io': [nameColumn, text('Holder', 'spec.holderIdentity', ''), ageColumn],
  persistentvolumes: [
    nameColumn,
    text('Capacity', 'spec.capacity.storage', ''),
    col('Access Modes', (object) => accessModes(at(object, 'spec.accessModes') as string[])),
    text('Reclaim Policy', 'spec.persistentVolumeReclaimPolicy', ''),
    text('Status', 'status.phase', ''),
    col('Claim', claimOf),
    text('StorageClass', 'spec.storageClassName', ''),
    text('VolumeAttributesClass', 'spec.volumeAttributesClassName', '<unset>'),
    text('Reason', 'status.reason', ''),
    ageColumn,
    text('VolumeMode', 'spec.volumeMode', '<unset>', true),
  ],
  persistentvolumeclaims: [
    nameColumn,
    text('Status', 'status.phase', ''),
    text('Volume', 'spec.volumeName', ''),
    text('Capacity', 'status.capacity.storage', ''),
    col('Access Modes', (object) => accessModes(at(object, 'status.accessModes') as string[])),
    text('StorageClass', 'spec.storageClassName', ''),
    text('VolumeAttributesClass', 'spec.volumeAttributesClassName', '<unset>'),
    ageColumn,
    text('VolumeMode', 'spec.volumeMode', '<unset>', true),
  ],
  'storageclasses.storage.k8s.io': [
    nameColumn,
    text('Provisioner', 'provisioner'),
    text('ReclaimPolicy', 'reclaimPolicy'),
    text('VolumeBindingMode', 'volumeBindingMode'),
    bool('AllowVolumeExpansion', 'allowVolumeExpansion'),
    ageColumn,
  ],
  'volumeattachments.storage.k8s.io': [
    nameColumn,
    text('Attacher', 'spec.attacher'),
    text('PV', 'spec.source.persistentVolumeName', ''),
    text('Node', 'spec.nodeName'),
    bool('Attached', 'status.attached'),
    ageColumn,
  ],
  'csidrivers.storage.k8s.io': [
    nameColumn,
    bool('AttachRequired', 'spec.attachRequired'),
    bool('PodInfoOnMount', 'spec.podInfoOnMount'),
    bool('StorageCapacity', 'spec.storageCapacity'),
    col(
      'TokenRequests',
      (object) =>
        ((at(object, 'spec.tokenRequests') as { audience: string }[]) ?? [])
          .map(({ audience }) => audience)
          .join(',') || '<unset>',
    ),
    bool('RequiresRepublish', 'spec.requiresRepublish'),
    col('Modes', joined('spec.volumeLifecycleModes')),
    ageColumn,
  ],
  'csinodes.storage.k8s.io': [
    nameColumn,
    col('Drivers', (object) => ((at(object, 'spec.drivers') as unknown[]) ?? []).length),
    ageColumn,
  ],
  'runtimeclasses.node.k8s.io': [nameColumn, text('Handler', 'handler'), ageColumn],
  'priorityclasses.scheduling.k8s.io': [
    nameColumn,
    text('Value', 'value'),
    bool('Global-Default', 'globalDefault'),
    ageColumn,
    text('PreemptionPolicy', 'preemptionPolicy'),
  ],
  'certificatesigningrequests.certificates.k8s.io': [
    nameColumn,
    ageColumn,
    text('SignerName', 'spec.signerName'),
    text('Requestor', 'spec.username'),
    col('RequestedDuration', (object) => {
      const seconds = at(object, 'spec.expirationSeconds');
      return seconds ? humanDuration(Number(seconds) * 1000) : '<none>';
    }),
    col('Condition', csrCondition),
  ],
  'servicecidrs.networking.k8s.io': [nameColumn, col('CIDRs', joined('spec.cidrs')), ageColumn],
  'roles.rbac.authorization.k8s.io': [nameColumn, created],
  'clusterroles.rbac.authorization.k8s.io': [nameColumn, created],
  'rolebindings.rbac.authorization.k8s.io': [nameColumn, role, ageColumn],
  'clusterrolebindings.rbac.authorization.k8s.io': [nameColumn, role, ageColumn],
};

export function tableOf(
  kind: Kind,
  objects: readonly Obj[],
  metadata: object,
  includeObject: 'Metadata' | 'Object' | 'None',
  nowMs: number,
  withColumns: boolean,
): unknown {
  const shown = columns[collectionNameOf(kind)] ?? [nameColumn, ageColumn];
  const meta = metadata as { resourceVersion?: string; continue?: string; remainingItemCount?: number };
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: {
      ...(meta.resourceVersion ? { resourceVersion: meta.resourceVersion } : {}),
      ...(meta.continue ? { continue: meta.continue, remainingItemCount: meta.remainingItemCount } : {}),
    },
    columnDefinitions: withColumns
      ? shown.map((column) => ({
          name: column.name,
          type: 'string',
          format: column.name === 'Name' ? 'name' : '',
          description: '',
          priority: column.wide ? 1 : 0,
        }))
      : null,
    rows: objects.map((object) => ({
      cells: shown.map((column) => column.value(object, nowMs)),
      ...(includeObject === 'None'
        ? {}
        : includeObject === 'Object'
          ? {
              object: {
                apiVersion: kind.resource.group
                  ? `${kind.resource.group}/${kind.resource.version}`
                  : kind.resource.version,
                kind: kind.resource.kind,
                ...object,
              },
            }
          : { object: { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: object.metadata } }),
    })),
  };
}
