// What `kubectl get` prints: a Table whose columns are, for each kind, those kubectl's users know.
import { apiVersionOf } from '../kube/api-path.ts';
import { isSidecar } from '../kube/scheduling/pod-resources.ts';
import type { CoreEvent, EndpointSlice, Node, Service } from '../kube/types/core.ts';
import type { ContainerStatus, Pod } from '../kube/types/pod.ts';
import { at, type Kind, type Obj } from './kinds.ts';
import { selectorText } from './names.ts';
import type { Deployment } from './workload.ts';

// For each kind its columns: `Header=path?what is printed where it is absent`, or `Header=cell()`; those with a star are for -o wide.
const layouts = `
pods: Name; Ready=podReady(); Status=podStatus(); Restarts=podRestarts(); Age; IP*=status.podIP; Node*=spec.nodeName;
  Nominated Node*=status.nominatedNodeName; Readiness Gates*=podGates()
nodes: Name; Status=nodeStatus(); Roles=nodeRoles(); Age; Version=status.nodeInfo.kubeletVersion; Internal-IP*=internalIp();
  OS-Image*=status.nodeInfo.osImage; Kernel-Version*=status.nodeInfo.kernelVersion;
  Container-Runtime*=status.nodeInfo.containerRuntimeVersion
services: Name; Type=spec.type; Cluster-IP=spec.clusterIP; External-IP=serviceIp(); Port(s)=servicePorts(); Age; Selector*=serviceSelector()
deployments: Name; Ready=deploymentReady(); Up-to-date=status.updatedReplicas?0; Available=status.availableReplicas?0; Age;
  Containers*=containerNames(); Images*=containerImages(); Selector*=selector()
replicasets: Name; Desired=spec.replicas?0; Current=status.replicas?0; Ready=status.readyReplicas?0; Age;
  Containers*=containerNames(); Images*=containerImages(); Selector*=selector()
namespaces: Name; Status=status.phase; Age
configmaps: Name; Data=dataCount(); Age
secrets: Name; Type=type; Data=dataCount(); Age
events: Last Seen=lastSeen(); Type=type; Reason=reason; Object=involved(); Source*=source.component; Message=message; Count*=count?1
endpointslices: Name; AddressType=addressType; Ports=slicePorts(); Endpoints=sliceEndpoints(); Age
leases: Name; Holder=spec.holderIdentity; Age
`;

type Cell = string | number;
type Compute = (object: never, nowMs: number) => Cell;

const listed = (items: readonly string[], absent = '<none>'): string => items.join(',') || absent;
const templateContainers = ({ spec }: Deployment) => spec.template.spec.containers;
const holds = ({ status }: Pod | Node, type: string): boolean =>
  status?.conditions?.some((one) => one.type === type && one.status === 'True') ?? false;

const cells: Readonly<Record<string, Compute>> = {
  podReady: (pod: Pod) => `${counted(pod).filter(({ ready }) => ready).length}/${running(pod).length}`,
  podStatus,
  podRestarts(pod: Pod, nowMs) {
    const all = initWord(pod) ? (pod.status?.initContainerStatuses ?? []) : counted(pod);
    const total = all.reduce((sum, status) => sum + status.restartCount, 0);
    const last = all
      .map((status) => status.lastState?.terminated?.finishedAt ?? '')
      .sort()
      .at(-1);
    return total > 0 && last ? `${total} (${since(last, nowMs)} ago)` : String(total);
  },
  podGates: ({ spec }: Pod) => listed((spec.readinessGates ?? []).map(({ conditionType }) => conditionType)),
  nodeStatus: (node: Node) =>
    `${holds(node, 'Ready') ? 'Ready' : 'NotReady'}${node.spec.unschedulable ? ',SchedulingDisabled' : ''}`,
  nodeRoles: ({ metadata }: Node) =>
    listed(
      Object.keys(metadata.labels ?? {}).flatMap((key) => /^node-role\.kubernetes\.io\/(.*)/.exec(key)?.[1] ?? []),
    ),
  internalIp: ({ status }: Node) => status?.addresses?.find(({ type }) => type === 'InternalIP')?.address ?? '<none>',
  serviceIp({ spec, status }: Service) {
    if (spec.type === 'ExternalName') return spec.externalName ?? '';
    const given = (status?.loadBalancer?.ingress ?? []).map(({ ip, hostname }) => ip ?? hostname ?? '');
    return listed([...given, ...(spec.externalIPs ?? [])], spec.type === 'LoadBalancer' ? '<pending>' : '<none>');
  },
  servicePorts({ spec }: Service) {
    const ports = spec.ports ?? [];
    return listed(ports.map(({ port, nodePort, protocol }) => `${port}${nodePort ? `:${nodePort}` : ''}/${protocol}`));
  },
  serviceSelector: ({ spec }: Service) => selectorText({ matchLabels: spec.selector ?? {} }) || '<none>',
  selector: ({ spec }: Deployment) => selectorText(spec.selector) || '<none>',
  deploymentReady: ({ spec, status }: Deployment) => `${status?.readyReplicas ?? 0}/${spec.replicas ?? 0}`,
  containerNames: (object: Deployment) => listed(templateContainers(object).map(({ name }) => name)),
  containerImages: (object: Deployment) => listed(templateContainers(object).map(({ image }) => image ?? '')),
  dataCount: ({ data = {}, binaryData = {} }: { data?: object; binaryData?: object }) =>
    Object.keys(data).length + Object.keys(binaryData).length,
  lastSeen: (event: CoreEvent, now) => since(event.lastTimestamp ?? event.metadata.creationTimestamp, now),
  involved: ({ involvedObject: { kind = '', name = '' } }: CoreEvent) => `${kind.toLowerCase()}/${name}`,
  slicePorts: ({ ports }: EndpointSlice) => listed((ports ?? []).map(({ name, port }) => String(port ?? name))),
  sliceEndpoints: ({ endpoints }: EndpointSlice) => listed((endpoints ?? []).flatMap(({ addresses }) => addresses)),
};

const sidecars = ({ spec }: Pod) => (spec.initContainers ?? []).filter(isSidecar);
const running = (pod: Pod) => [...sidecars(pod), ...pod.spec.containers];
const counted = (pod: Pod): ContainerStatus[] => [
  ...(pod.status?.initContainerStatuses ?? []).filter(({ name }) => sidecars(pod).some((one) => one.name === name)),
  ...(pod.status?.containerStatuses ?? []),
];

const endWord = ({ state }: ContainerStatus): string => {
  const { reason, signal, exitCode } = state!.terminated!;
  return reason || (signal ? `Signal:${signal}` : `ExitCode:${exitCode}`);
};

function initWord(pod: Pod): string | undefined {
  for (const [index, status] of (pod.status?.initContainerStatuses ?? []).entries()) {
    const { waiting, terminated } = status.state ?? {};
    if (terminated?.exitCode === 0 || (status.started && sidecars(pod).some(({ name }) => name === status.name)))
      continue;
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
  for (const container of (status?.containerStatuses ?? []).toReversed()) {
    const { waiting, terminated } = container.state ?? {};
    if (waiting?.reason) word = waiting.reason;
    else if (terminated) word = endWord(container);
  }
  if (word !== 'Completed' || !status?.containerStatuses?.some(({ ready }) => ready)) return word;
  return holds(pod, 'Ready') ? 'Running' : 'NotReady';
}

function since(time: string | null | undefined, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((nowMs - Date.parse(time ?? '')) / 1000));
  if (Number.isNaN(seconds)) return '<unknown>';
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 3 * 3600) return `${Math.floor(seconds / 60)}m`;
  return seconds < 2 * 86_400 ? `${Math.floor(seconds / 3600)}h` : `${Math.floor(seconds / 86_400)}d`;
}

function columnOf(text: string) {
  const [header = '', source = ''] = text.trim().split('=');
  const name = header.replace('*', '');
  const [path = '', absent = '<none>'] = source.split('?');
  const value = (object: Obj, nowMs: number): Cell => {
    if (header === 'Name') return object.metadata.name;
    if (header === 'Age') return since(object.metadata.creationTimestamp, nowMs);
    if (source.endsWith('()')) return cells[source.slice(0, -2)]!(object as never, nowMs);
    return String(at(object, path) ?? '') || absent;
  };
  const format = name === 'Name' ? 'name' : '';
  const definition = { name, type: 'string', format, description: '', priority: header.endsWith('*') ? 1 : 0 };
  return { definition, value };
}

const columns = new Map(
  layouts
    .trim()
    .split(/\n(?=\S)/)
    .map((line) => {
      const [plural = '', ...rest] = line.split(': ');
      return [plural, rest.join(': ').split(';').map(columnOf)];
    }),
);
const plainColumns = ['Name', 'Age'].map(columnOf);

export type IncludeObject = 'Metadata' | 'Object';

/** `head` says whether the columns' names are sent too: in a watch only with the first row. */
export function tableOf(
  { resource }: Kind,
  objects: readonly Obj[],
  resourceVersion: string,
  { table, nowMs, head }: { readonly table: IncludeObject | undefined; readonly nowMs: number; readonly head: boolean },
): unknown {
  const shown = columns.get(resource.plural) ?? plainColumns;
  const own = { apiVersion: apiVersionOf(resource), kind: resource.kind };
  const partial = { apiVersion: 'meta.k8s.io/v1', kind: 'PartialObjectMetadata' };
  const objectOf = (object: Obj): object =>
    table === 'Object' ? { ...own, ...object } : { ...partial, metadata: object.metadata };
  return {
    kind: 'Table',
    apiVersion: 'meta.k8s.io/v1',
    metadata: { resourceVersion },
    columnDefinitions: head ? shown.map(({ definition }) => definition) : null,
    rows: objects.map((object) => ({
      cells: shown.map(({ value }) => value(object, nowMs)),
      object: objectOf(object),
    })),
  };
}
