// The columns of `kubectl get pods`, with the words of its STATUS.
import type { ContainerStatus, Pod } from '../kube/types/pod.ts';
import { type Column, col, since, text } from './columns.ts';
import type { Obj } from './store.ts';

const asPod = (object: Obj): Pod => object as unknown as Pod;

const isSidecar = (pod: Pod, name: string): boolean =>
  pod.spec.initContainers?.some((one) => one.name === name && one.restartPolicy === 'Always') ?? false;

const endWord = ({ state }: ContainerStatus): string => {
  const ended = state!.terminated!;
  if (ended.reason) return ended.reason;
  return ended.signal ? `Signal:${ended.signal}` : `ExitCode:${ended.exitCode}`;
};

function initWord(pod: Pod): string | undefined {
  const all = pod.spec.initContainers ?? [];
  for (const [index, status] of (pod.status?.initContainerStatuses ?? []).entries()) {
    const { state } = status;
    if (state?.terminated?.exitCode === 0) continue;
    if (isSidecar(pod, status.name) && status.started) continue;
    if (state?.terminated) return `Init:${endWord(status)}`;
    const waiting = state?.waiting?.reason;
    if (waiting && waiting !== 'PodInitializing') return `Init:${waiting}`;
    return `Init:${index}/${all.length}`;
  }
  return undefined;
}

export function podStatus(pod: Pod): string {
  const { status, metadata } = pod;
  let word: string = status?.reason || status?.phase || 'Unknown';
  const gated = status?.conditions?.some((one) => one.type === 'PodScheduled' && one.reason === 'SchedulingGated');
  if (gated) word = 'SchedulingGated';
  const init = initWord(pod);
  if (init) word = init;
  else {
    let running = false;
    for (const container of (status?.containerStatuses ?? []).toReversed()) {
      const { waiting, terminated } = container.state ?? {};
      if (waiting?.reason) word = waiting.reason;
      else if (terminated) word = endWord(container);
      else if (container.ready && container.state?.running) running = true;
    }
    if (word === 'Completed' && running) {
      const ready = status?.conditions?.some((one) => one.type === 'Ready' && one.status === 'True');
      word = ready ? 'Running' : 'NotReady';
    }
  }
  if (metadata.deletionTimestamp && status?.reason === 'NodeLost') return 'Unknown';
  if (metadata.deletionTimestamp && status?.phase !== 'Succeeded' && status?.phase !== 'Failed') return 'Terminating';
  return word;
}

function counted(pod: Pod): ContainerStatus[] {
  const sidecars = (pod.status?.initContainerStatuses ?? []).filter(({ name }) => isSidecar(pod, name));
  return [...sidecars, ...(pod.status?.containerStatuses ?? [])];
}

function ready(pod: Pod): string {
  const sidecars = (pod.spec.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy === 'Always').length;
  const up = counted(pod).filter((status) => status.ready && (status.state?.running || status.started));
  return `${up.length}/${pod.spec.containers.length + sidecars}`;
}

function restarts(pod: Pod, nowMs: number): string {
  const all = initWord(pod) ? (pod.status?.initContainerStatuses ?? []) : counted(pod);
  const total = all.reduce((sum, status) => sum + status.restartCount, 0);
  const last = all
    .map((status) => status.lastState?.terminated?.finishedAt ?? '')
    .sort()
    .at(-1);
  return total > 0 && last ? `${total} (${since(last, nowMs)} ago)` : String(total);
}

function gates(pod: Pod): string {
  const wanted = pod.spec.readinessGates ?? [];
  if (wanted.length === 0) return '<none>';
  const met = wanted.filter(({ conditionType }) =>
    pod.status?.conditions?.some((one) => one.type === conditionType && one.status === 'True'),
  );
  return `${met.length}/${wanted.length}`;
}

export const podColumns: readonly Column[] = [
  col('Name', (object) => object.metadata.name),
  col('Ready', (object) => ready(asPod(object))),
  col('Status', (object) => podStatus(asPod(object))),
  col('Restarts', (object, now) => restarts(asPod(object), now)),
  col('Age', (object, now) => since(object.metadata.creationTimestamp, now)),
  col('IP', (object) => asPod(object).status?.podIPs?.[0]?.ip ?? asPod(object).status?.podIP ?? '<none>', true),
  text('Node', 'spec.nodeName', '<none>', true),
  text('Nominated Node', 'status.nominatedNodeName', '<none>', true),
  col('Readiness Gates', (object) => gates(asPod(object)), true),
];
