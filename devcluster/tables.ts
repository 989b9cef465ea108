// What `kubectl get` prints: a Table whose columns are, for each kind, those kubectl's users know.
import type { CoreEvent, EndpointSlice, Node, Service } from '../kube/types/core.ts';
import type { ContainerStatus, Pod } from '../kube/types/pod.ts';
import { apiVersionOf, at, collectionNameOf, type Kind } from './kinds.ts';
import { selectorText } from './names.ts';
import type { Obj } from './store.ts';
import type { Deployment } from './workload.ts';

// For each kind its columns: `Header=path?what is printed where it is absent`, or `Header=cell()`; those with a star are for -o wide.
const layouts = `
pods: Name; Ready=podReady(); Status=podStatus(); Restarts=podRestarts(); Age; IP*=status.podIP; Node*=spec.nodeName;
  Nominated Node*=status.nominatedNodeName; Readiness Gates*=podGates()
nodes: Name; Status=nodeStatus(); Roles=nodeRoles(); Age; Version=status.nodeInfo.kubeletVersion?; Internal-IP*=internalIp();
  External-IP*=externalIp(); OS-Image*=status.nodeInfo.osImage?<unknown>; Kernel-Version*=status.nodeInfo.kernelVersion?<unknown>;
  Container-Runtime*=status.nodeInfo.containerRuntimeVersion?<unknown>
services: Name; Type=spec.type; Cluster-IP=spec.clusterIP; External-IP=serviceIp(); Port(s)=servicePorts(); Age; Selector*=serviceSelector()
deployments.apps: Name; Ready=deploymentReady(); Up-to-date=status.updatedReplicas?0; Available=status.availableReplicas?0; Age;
  Containers*=containerNames(); Images*=containerImages(); Selector*=selector()
replicasets.apps: Name; Desired=spec.replicas?0; Current=status.replicas?0; Ready=status.readyReplicas?0; Age;
  Containers*=containerNames(); Images*=containerImages(); Selector*=selector()
namespaces: Name; Status=status.phase; Age
configmaps: Name; Data=dataCount(); Age
secrets: Name; Type=type; Data=dataCount(); Age
events: Last Seen=lastSeen(); Type=type?; Reason=reason?; Object=involved(); Subobject*=involvedObject.fieldPath?; Source*=eventSource();
  Message=message?; First Seen*=firstSeen(); Count*=count?1; Name*=metadata.name
endpointslices.discovery.k8s.io: Name; AddressType=addressType; Ports=slicePorts(); Endpoints=sliceEndpoints(); Age
leases.coordination.k8s.io: Name; Holder=spec.holderIdentity?; Age
persistentvolumes: Name; Capacity=spec.capacity.storage?; Status=status.phase?; Claim=spec.claimRef.name?; Age
persistentvolumeclaims: Name; Status=status.phase?; Volume=spec.volumeName?; Capacity=status.capacity.storage?; Age
rolebindings.rbac.authorization.k8s.io: Name; Role=roleRef.name; Age
clusterrolebindings.rbac.authorization.k8s.io: Name; Role=roleRef.name; Age
`;

type Cell = string | number;
type Compute = (object: never, nowMs: number) => Cell;

const listed = (items: readonly string[], absent = '<none>'): string => items.join(',') || absent;
const upToThree = (items: readonly string[]): string =>
  items.length > 3 ? `${items.slice(0, 3).join(',')} + ${items.length - 3} more...` : listed(items, '<unset>');
const address = ({ status }: Node, type: string): string =>
  status?.addresses?.find((one) => one.type === type)?.address ?? '<none>';
const templateContainers = ({ spec }: Deployment) => spec.template.spec.containers;
const holds = (pod: Pod, type: string): boolean =>
  pod.status?.conditions?.some((one) => one.type === type && one.status === 'True') ?? false;

const cells: Readonly<Record<string, Compute>> = {
  podReady,
  podStatus,
  podRestarts,
  podGates(pod: Pod) {
    const wanted = pod.spec.readinessGates ?? [];
    const met = wanted.filter(({ conditionType }) => holds(pod, conditionType));
    return wanted.length === 0 ? '<none>' : `${met.length}/${wanted.length}`;
  },
  nodeStatus({ spec, status }: Node) {
    const ready = status?.conditions?.find(({ type }) => type === 'Ready')?.status;
    const word = ready === undefined ? 'Unknown' : ready === 'True' ? 'Ready' : 'NotReady';
    return spec.unschedulable ? `${word},SchedulingDisabled` : word;
  },
  nodeRoles: ({ metadata }: Node) =>
    listed(
      Object.keys(metadata.labels ?? {})
        .flatMap((key) => (key.startsWith('node-role.kubernetes.io/') ? [key.slice(24)] : []))
        .sort(),
    ),
  internalIp: (node: Node) => address(node, 'InternalIP'),
  externalIp: (node: Node) => address(node, 'ExternalIP'),
  serviceIp({ spec, status }: Service) {
    if (spec.type === 'ExternalName') return spec.externalName ?? '';
    const given = (status?.loadBalancer?.ingress ?? []).map(({ ip, hostname }) => ip ?? hostname ?? '');
    return listed([...given, ...(spec.externalIPs ?? [])], spec.type === 'LoadBalancer' ? '<pending>' : '<none>');
  },
  servicePorts: ({ spec }: Service) =>
    listed(
      (spec.ports ?? []).map(
        ({ port, nodePort, protocol }) => `${port}${nodePort ? `:${nodePort}` : ''}/${protocol ?? 'TCP'}`,
      ),
    ),
  serviceSelector: ({ spec }: Service) => selectorText({ matchLabels: spec.selector ?? {} }) || '<none>',
  selector: ({ spec }: Deployment) => selectorText(spec.selector) || '<none>',
  deploymentReady: ({ spec, status }: Deployment) => `${status?.readyReplicas ?? 0}/${spec.replicas ?? 0}`,
  containerNames: (object: Deployment) => listed(templateContainers(object).map(({ name }) => name)),
  containerImages: (object: Deployment) => listed(templateContainers(object).map(({ image }) => image ?? '')),
  dataCount: ({ data = {}, binaryData = {} }: { data?: object; binaryData?: object }) =>
    Object.keys(data).length + Object.keys(binaryData).length,
  lastSeen: (event: CoreEvent, now) =>
    since(event.lastTimestamp ?? event.firstTimestamp ?? event.eventTime ?? event.metadata.creationTimestamp, now),
  firstSeen: (event: CoreEvent, now) => since(event.firstTimestamp ?? event.metadata.creationTimestamp, now),
  involved: ({ involvedObject: { kind = '', name = '' } }: CoreEvent) => `${kind.toLowerCase()}/${name}`,
  eventSource: ({ source, reportingComponent }: CoreEvent) =>
    [source?.component || reportingComponent, source?.host].filter(Boolean).join(', '),
  slicePorts: ({ ports }: EndpointSlice) => upToThree((ports ?? []).map(({ name, port }) => String(port ?? name))),
  sliceEndpoints: ({ endpoints }: EndpointSlice) => upToThree((endpoints ?? []).flatMap(({ addresses }) => addresses)),
};

const isSidecar = (pod: Pod, name: string): boolean =>
  pod.spec.initContainers?.some((one) => one.name === name && one.restartPolicy === 'Always') ?? false;

const endWord = ({ state }: ContainerStatus): string => {
  const { reason, signal, exitCode } = state!.terminated!;
  return reason || (signal ? `Signal:${signal}` : `ExitCode:${exitCode}`);
};

function initWord(pod: Pod): string | undefined {
  for (const [index, status] of (pod.status?.initContainerStatuses ?? []).entries()) {
    const { waiting, terminated } = status.state ?? {};
    if (terminated?.exitCode === 0 || (isSidecar(pod, status.name) && status.started)) continue;
    if (terminated) return `Init:${endWord(status)}`;
    if (waiting?.reason && waiting.reason !== 'PodInitializing') return `Init:${waiting.reason}`;
    return `Init:${index}/${pod.spec.initContainers?.length ?? 0}`;
  }
  return undefined;
}

function podStatus(pod: Pod): string {
  const { status, metadata } = pod;
  if (metadata.deletionTimestamp && !['Succeeded', 'Failed'].includes(status?.phase ?? '')) return 'Terminating';
  const init = initWord(pod);
  if (init) return init;
  let word: string = status?.reason || status?.phase || 'Unknown';
  if (status?.conditions?.some(({ reason }) => reason === 'SchedulingGated')) word = 'SchedulingGated';
  let running = false;
  for (const container of (status?.containerStatuses ?? []).toReversed()) {
    const { waiting, terminated } = container.state ?? {};
    if (waiting?.reason) word = waiting.reason;
    else if (terminated) word = endWord(container);
    else if (container.ready) running = true;
  }
  if (word !== 'Completed' || !running) return word;
  return holds(pod, 'Ready') ? 'Running' : 'NotReady';
}

const counted = (pod: Pod): ContainerStatus[] => [
  ...(pod.status?.initContainerStatuses ?? []).filter(({ name }) => isSidecar(pod, name)),
  ...(pod.status?.containerStatuses ?? []),
];

function podReady(pod: Pod): string {
  const sidecars = (pod.spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always').length;
  return `${counted(pod).filter(({ ready }) => ready).length}/${pod.spec.containers.length + sidecars}`;
}

function podRestarts(pod: Pod, nowMs: number): string {
  const all = initWord(pod) ? (pod.status?.initContainerStatuses ?? []) : counted(pod);
  const total = all.reduce((sum, status) => sum + status.restartCount, 0);
  const ends = all.map((status) => status.lastState?.terminated?.finishedAt ?? '').sort();
  return total > 0 && ends.at(-1) ? `${total} (${since(ends.at(-1), nowMs)} ago)` : String(total);
}

const since = (time: string | null | undefined, nowMs: number): string =>
  time ? humanDuration(Math.max(0, nowMs - Date.parse(time))) : '<unknown>';

/** Two units at most, as kubectl writes durations. */
function humanDuration(ms: number): string {
  const seconds = Math.floor(ms / 1000);
  const [minutes, hours, days] = [60, 3600, 86_400].map((unit) => Math.floor(seconds / unit)) as [
    number,
    number,
    number,
  ];
  const two = (big: string, small: number, unit: string): string => (small ? `${big}${small}${unit}` : big);
  if (seconds < 120) return `${seconds}s`;
  if (minutes < 10) return two(`${minutes}m`, seconds % 60, 's');
  if (minutes < 180) return `${minutes}m`;
  if (hours < 8) return two(`${hours}h`, minutes % 60, 'm');
  if (hours < 48) return `${hours}h`;
  return hours < 192 ? two(`${days}d`, hours % 24, 'h') : `${days}d`;
}

interface Column {
  readonly name: string;
  readonly wide: boolean;
  readonly value: (object: Obj, nowMs: number) => Cell;
}

function columnOf(text: string): Column {
  const [header = '', source = ''] = text.trim().split('=');
  const name = header.replace('*', '');
  const value = (object: Obj, nowMs: number): Cell => {
    if (header === 'Name') return object.metadata.name;
    if (header === 'Age') return since(object.metadata.creationTimestamp, nowMs);
    if (source.endsWith('()')) return cells[source.slice(0, -2)]!(object as never, nowMs);
    const [path = '', absent = '<none>'] = source.split('?');
    return String(at(object, path) ?? '') || absent;
  };
  return { name, wide: header.endsWith('*'), value };
}

const columns = new Map(
  layouts
    .trim()
    .split(/\n(?=\S)/)
    .map((line) => {
      const [kind = '', ...rest] = line.split(': ');
      return [kind, rest.join(': ').split(';').map(columnOf)];
    }),
);
const plainColumns = ['Name', 'Age'].map(columnOf);

export type IncludeObject = 'Metadata' | 'Object' | 'None';

/** `head` says whether the column's names are sent too: in a watch only with the first row. */
export function tableOf(
  kind: Kind,
  objects: readonly Obj[],
  metadata: { resourceVersion?: string; continue?: string; remainingItemCount?: number },
  options: { readonly include: IncludeObject; readonly nowMs: number; readonly head: boolean },
): unknown {
  const shown = columns.get(collectionNameOf(kind)) ?? plainColumns;
  const { resourceVersion, continue: next, remainingItemCount } = metadata;
  const objectOf = (object: Obj): object | undefined => {
    if (options.include === 'None') return undefined;
    if (options.include === 'Object')
      return { apiVersion: apiVersionOf(kind.resource), kind: kind.resource.kind, ...object };
    return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata: object.metadata };
  };
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: { resourceVersion, continue: next, remainingItemCount },
    columnDefinitions: options.head
      ? shown.map(({ name, wide }) => ({
          name,
          type: 'string',
          format: name === 'Name' ? 'name' : '',
          description: '',
          priority: wide ? 1 : 0,
        }))
      : null,
    rows: objects.map((object) => ({
      cells: shown.map(({ value }) => value(object, options.nowMs)),
      object: objectOf(object),
    })),
  };
}
