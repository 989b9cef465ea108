// Binds pods that no node has to the node that fits and has the fewest.
import { isConflict, isNotFound } from '../../kube/errors.ts';
import { createEventRecorder } from '../../kube/event-recorder.ts';
import { podTarget } from '../../kube/events.ts';
import { resources } from '../../kube/resources.ts';
import { isExtendedResource, shortages } from '../../kube/scheduling/fit.ts';
import { hostPortsFree } from '../../kube/scheduling/host-ports.ts';
import { fitsNodeAffinity } from '../../kube/scheduling/node-affinity.ts';
import { podRequests } from '../../kube/scheduling/pod-resources.ts';
import { tolerates } from '../../kube/scheduling/taints.ts';
import { keyOf } from '../../kube/store.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { timestamp } from '../names.ts';
import { isFinished } from './replicasets.ts';
import { unless, type World } from './world.ts';

const waits = (pod: Pod): boolean =>
  !pod.spec.nodeName &&
  !pod.metadata.deletionTimestamp &&
  !isFinished(pod) &&
  (pod.spec.schedulerName ?? 'default-scheduler') === 'default-scheduler' &&
  !pod.spec.schedulingGates?.length;

/** Why the pod does not fit beside those that are there; undefined where it does. */
function misfit(pod: Pod, node: Node, there: readonly Pod[]): string | undefined {
  const { spec, status = {} } = node;
  if (!status.conditions?.some((one) => one.type === 'Ready' && one.status === 'True')) return 'node(s) were not ready';
  if (spec.unschedulable) return 'node(s) were unschedulable';
  const { tolerations = [] } = pod.spec;
  const taint = spec.taints
    ?.filter(({ effect }) => effect !== 'PreferNoSchedule')
    .find((one) => !tolerations.some((toleration) => tolerates(toleration, one)));
  if (taint) return `node(s) had untolerated taint(s) {${taint.key}: ${taint.value ?? ''}}`;
  if (!fitsNodeAffinity(pod, node)) return "node(s) didn't match Pod's node affinity/selector";
  if (!hostPortsFree(pod, there)) return "node(s) didn't have free ports for the requested pod ports";
  const allocatable = { pods: '110', ...status.allocatable };
  const unknown = Object.keys(podRequests(pod)).find((name) => isExtendedResource(name) && !(name in allocatable));
  const short = unknown ?? shortages(pod, there, allocatable)[0]?.resource;
  return short && (short === 'pods' ? 'Too many pods' : `Insufficient ${short}`);
}

export function createScheduler(world: World) {
  const { client, clock, nodes, pods } = world;
  const events = createEventRecorder(world, { component: 'default-scheduler', host: '' });
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
    const { uid = '', name, namespace } = pod?.metadata ?? {};
    if (!pod || !waits(pod) || assumed.has(uid)) return;
    const { node, why } = choose(pod);
    if (!node) return unschedulable(pod, why, signal);
    assumed.set(uid, { pod, node });
    const target = { apiVersion: 'v1', kind: 'Node', name: node };
    const binding = { apiVersion: 'v1', kind: 'Binding', metadata: { name, namespace, uid }, target };
    try {
      await client.create(resources.pods, binding as never, { subresource: 'binding', signal });
      events.record(podTarget(pod), 'Normal', 'Scheduled', `Successfully assigned ${namespace}/${name} to ${node}`);
    } catch (error) {
      assumed.delete(uid);
      unless((one) => isNotFound(one) || isConflict(one))(error);
    }
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
    events.record(podTarget(pod), 'Warning', 'FailedScheduling', message);
  }

  return {
    async stop() {
      await controller.stop();
      await events.stop();
    },
  };
}
