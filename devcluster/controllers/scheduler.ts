// Binds pods that no node has to the node that fits and has the fewest.
import { isConflict, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import { keyOf } from '../../kube/store.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { timestamp } from '../names.ts';
import { misfit } from './fit.ts';
import { isFinished } from './replicasets.ts';
import { type Controller, type ControllerDeps, createController, recordEvent, type World } from './world.ts';

const waits = (pod: Pod): boolean =>
  !pod.spec.nodeName &&
  !pod.metadata.deletionTimestamp &&
  !isFinished(pod) &&
  (pod.spec.schedulerName ?? 'default-scheduler') === 'default-scheduler' &&
  !pod.spec.schedulingGates?.length;

export function createScheduler(deps: ControllerDeps, world: World): Controller {
  const { client, clock } = deps;
  const controller = createController(deps, 'scheduler', reconcile);
  // Bound by us, and not yet seen so in the cache: they count all the same.
  const assumed = new Map<string, { readonly pod: Pod; readonly node: string }>();

  const wakeWaiting = (): void => {
    for (const pod of world.pods.store.list()) if (waits(pod)) controller.wake(keyOf(pod));
  };
  world.pods.onChange(({ key, before, after }) => {
    if (after && waits(after)) controller.wake(key);
    if (!after || after.spec.nodeName) assumed.delete((after ?? before)?.metadata.uid ?? '');
    if (before?.spec.nodeName && (!after || (isFinished(after) && !isFinished(before)))) wakeWaiting();
  });
  world.nodes.onChange(({ before, after }) => {
    // Heartbeats change nothing for a pod that waits.
    const says = ({ spec, metadata, status }: Partial<Node> = {}): string =>
      JSON.stringify([spec, metadata?.labels, status?.allocatable, status?.conditions?.map((one) => one.status)]);
    if (says(before) !== says(after)) wakeWaiting();
  });

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const pod = world.pods.store.get(key);
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
    recordEvent(deps, pod, 'Normal', 'Scheduled', `Successfully assigned ${namespace}/${name} to ${node}`);
  }

  function choose(pod: Pod): { node?: string; why: string } {
    const bound = world.pods.store.list().filter((one) => one.spec.nodeName && !isFinished(one));
    const all = [...bound.map((one) => ({ pod: one, node: one.spec.nodeName! })), ...assumed.values()];
    const on = Map.groupBy(all, ({ node }) => node);
    const nodes = world.nodes.store.list().map((node) => {
      const there = (on.get(node.metadata.name) ?? []).map((one) => one.pod);
      return { name: node.metadata.name, load: there.length, reason: misfit(pod, node, there) };
    });
    const fitting = nodes.filter(({ reason }) => reason === undefined);
    const [best] = fitting.sort((a, b) => a.load - b.load || a.name.localeCompare(b.name));
    if (best) return { node: best.name, why: '' };
    if (nodes.length === 0) return { why: 'no nodes available to schedule pods' };
    const told = [...Map.groupBy(nodes, ({ reason }) => reason)].map(([reason, list]) => `${list.length} ${reason}`);
    return { why: `0/${nodes.length} nodes are available: ${told.join(', ')}.` };
  }

  async function unschedulable(pod: Pod, message: string, signal: AbortSignal): Promise<void> {
    const was = pod.status?.conditions?.find(({ type }) => type === 'PodScheduled');
    if (was?.status === 'False' && was.message === message) return;
    const lastTransitionTime = was?.status === 'False' ? was.lastTransitionTime : timestamp(clock.now());
    const words = { type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message };
    const status = { conditions: [{ ...words, lastProbeTime: null, lastTransitionTime }] };
    const patch = { metadata: { uid: pod.metadata.uid }, status };
    await client.patch(resources.pods, pod.metadata, patch, { type: 'strategic', subresource: 'status', signal });
    recordEvent(deps, pod, 'Warning', 'FailedScheduling', message);
  }

  return controller;
}
