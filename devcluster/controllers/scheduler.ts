// Binds pods that no node has to the node that fits and has the fewest.
import { isConflict, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import { keyOf } from '../../kube/store.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { randomSuffix, timestamp } from '../names.ts';
import { misfit } from './fit.ts';
import { isFinished } from './replicasets.ts';
import type { World } from './world.ts';

const waits = (pod: Pod): boolean =>
  !pod.spec.nodeName &&
  !pod.metadata.deletionTimestamp &&
  !isFinished(pod) &&
  (pod.spec.schedulerName ?? 'default-scheduler') === 'default-scheduler' &&
  !pod.spec.schedulingGates?.length;

export function createScheduler(world: World) {
  const { client, clock, nodes, pods } = world;
  const controller = world.controller('scheduler', reconcile);
  // Bound by us, and not yet seen so in the cache: they count all the same.
  const assumed = new Map<string, { readonly pod: Pod; readonly node: string }>();

  const wakeWaiting = (): void => {
    for (const pod of pods.list()) if (waits(pod)) controller.wake(keyOf(pod));
  };
  pods.onChange(({ key, before, after }) => {
    if (after && waits(after)) controller.wake(key);
    if (!after || after.spec.nodeName) assumed.delete((after ?? before)?.metadata.uid ?? '');
    if (before?.spec.nodeName && (!after || (isFinished(after) && !isFinished(before)))) wakeWaiting();
  });
  nodes.onChange(({ before, after }) => {
    // Heartbeats change nothing for a pod that waits.
    const says = ({ spec, metadata, status }: Partial<Node> = {}): string =>
      JSON.stringify([spec, metadata?.labels, status?.allocatable, status?.conditions?.map((one) => one.status)]);
    if (says(before) !== says(after)) wakeWaiting();
  });

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const pod = pods.get(key);
    if (!pod || !waits(pod) || assumed.has(pod.metadata.uid!)) return;
    const { node, why } = choose(pod);
    if (!node) return unschedulable(pod, why, signal);
    const { uid, name, namespace } = pod.metadata;
    assumed.set(uid!, { pod, node });
    const target = { apiVersion: 'v1', kind: 'Node', name: node };
    const binding = { apiVersion: 'v1', kind: 'Binding', metadata: { name, namespace, uid }, target };
    try {
      await client.create(resources.pods, binding as never, { subresource: 'binding', signal });
    } catch (error) {
      assumed.delete(uid!);
      if (isNotFound(error) || isConflict(error)) return;
      throw error;
    }
    recordEvent(world, pod, 'Normal', 'Scheduled', `Successfully assigned ${namespace}/${name} to ${node}`);
  }

  function choose(pod: Pod): { node?: string; why: string } {
    const bound = pods.list().filter((one) => one.spec.nodeName && !isFinished(one));
    const placed = [...bound.map((one) => ({ pod: one, node: one.spec.nodeName! })), ...assumed.values()];
    const on = Map.groupBy(placed, ({ node }) => node);
    const choices = nodes.list().map((node) => {
      const there = (on.get(node.metadata.name) ?? []).map((one) => one.pod);
      return { name: node.metadata.name, load: there.length, reason: misfit(pod, node, there) };
    });
    const fitting = choices.filter(({ reason }) => reason === undefined);
    const [best] = fitting.sort((a, b) => a.load - b.load || a.name.localeCompare(b.name));
    if (best) return { node: best.name, why: '' };
    if (choices.length === 0) return { why: 'no nodes available to schedule pods' };
    const told = [...Map.groupBy(choices, ({ reason }) => reason)].map(([reason, list]) => `${list.length} ${reason}`);
    return { why: `0/${choices.length} nodes are available: ${told.join(', ')}.` };
  }

  async function unschedulable(pod: Pod, message: string, signal: AbortSignal): Promise<void> {
    const was = pod.status?.conditions?.find(({ type }) => type === 'PodScheduled');
    if (was?.status === 'False' && was.message === message) return;
    const lastTransitionTime = was?.status === 'False' ? was.lastTransitionTime : timestamp(clock.now());
    const words = { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message };
    const status = { conditions: [{ ...words, lastProbeTime: null, lastTransitionTime }] };
    const patch = { metadata: { uid: pod.metadata.uid }, status };
    await client.patch(resources.pods, pod.metadata, patch, { type: 'strategic', subresource: 'status', signal });
    recordEvent(world, pod, 'Warning', 'FailedScheduling', message);
  }

  return controller;
}

/** One Event of the scheduler about a pod; what cannot be written is not missed. */
function recordEvent(deps: World, pod: Pod, type: 'Normal' | 'Warning', reason: string, message: string): void {
  const { name, namespace = 'default', uid = '', resourceVersion = '' } = pod.metadata;
  const time = timestamp(deps.clock.now());
  const component = 'default-scheduler';
  const event = {
    metadata: { name: `${name}.${randomSuffix(10)}`, namespace },
    involvedObject: { apiVersion: 'v1', kind: 'Pod', name, namespace, uid, resourceVersion },
    type,
    reason,
    message,
    count: 1,
    firstTimestamp: time,
    lastTimestamp: time,
    source: { component },
    reportingComponent: component,
    reportingInstance: '',
  };
  deps.client
    .create(resources.events, event)
    .catch((error: unknown) => deps.log.debug('an event could not be written', { reason, error }));
}
