// Binds pods that no node has to the node that fits and has the fewest.
import { isConflict, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { timestamp } from '../names.ts';
import { misfit } from './fit.ts';
import { type Controller, createController } from './loop.ts';
import { isFinished } from './replicasets.ts';
import { recordEvent } from './record.ts';
import type { ControllerDeps, World } from './world.ts';

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
    for (const pod of world.pods.store.list())
      if (waits(pod)) controller.queue.wake(`${pod.metadata.namespace}/${pod.metadata.name}`);
  };
  world.pods.onChange(({ key, before, after }) => {
    if (after && waits(after)) controller.queue.wake(key);
    const uid = (after ?? before)?.metadata.uid;
    if (uid && (!after || after.spec.nodeName)) assumed.delete(uid);
    const freed = before?.spec.nodeName && (!after || (isFinished(after) && !isFinished(before)));
    if (freed) wakeWaiting();
  });
  world.nodes.onChange(({ before, after }) => {
    // Heartbeats change nothing for a pod that waits.
    const says = (node: Node | undefined): string =>
      JSON.stringify([
        node?.spec,
        node?.metadata.labels,
        node?.status?.allocatable,
        node?.status?.conditions?.map(({ type, status }) => [type, status]),
      ]);
    if (says(before) !== says(after)) wakeWaiting();
  });
  world.claims.onChange(wakeWaiting);

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const pod = world.pods.store.get(key);
    if (!pod?.metadata.uid || !waits(pod) || assumed.has(pod.metadata.uid)) return;
    const { node, why } = choose(pod);
    if (!node) return unschedulable(pod, why, signal);
    const { uid, name, namespace } = pod.metadata;
    assumed.set(uid, { pod, node });
    try {
      const binding = {
        apiVersion: 'v1',
        kind: 'Binding',
        metadata: { name, namespace, uid },
        target: { apiVersion: 'v1', kind: 'Node', name: node },
      };
      await client.create(resources.pods, binding as never, { subresource: 'binding', signal });
    } catch (error) {
      assumed.delete(uid);
      if (isNotFound(error) || isConflict(error)) return;
      throw error;
    }
    recordEvent(
      deps,
      pod,
      'Normal',
      'Scheduled',
      `Successfully assigned ${namespace}/${name} to ${node}`,
      'default-scheduler',
      signal,
    );
  }

  function choose(pod: Pod): { node?: string; why: string } {
    const unbound = unboundClaim(pod);
    if (unbound) return { why: unbound };
    const on = new Map<string, Pod[]>();
    const count = (node: string, one: Pod): void => void on.set(node, [...(on.get(node) ?? []), one]);
    for (const one of world.pods.store.list()) if (one.spec.nodeName && !isFinished(one)) count(one.spec.nodeName, one);
    for (const { pod: one, node } of assumed.values()) count(node, one);
    const nodes = world.nodes.store.list();
    const reasons = new Map<string, number>();
    const fitting: Node[] = [];
    for (const node of nodes) {
      const reason = misfit(pod, node, on.get(node.metadata.name) ?? []);
      if (reason) reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
      else fitting.push(node);
    }
    const load = (node: Node): number => on.get(node.metadata.name)?.length ?? 0;
    const [best] = fitting.sort((a, b) => load(a) - load(b) || a.metadata.name.localeCompare(b.metadata.name));
    if (best) return { node: best.metadata.name, why: '' };
    if (nodes.length === 0) return { why: 'no nodes available to schedule pods' };
    const told = [...reasons].map(([reason, times]) => `${times} ${reason}`).join(', ');
    return { why: `0/${nodes.length} nodes are available: ${told}.` };
  }

  function unboundClaim(pod: Pod): string | undefined {
    for (const { persistentVolumeClaim, name, ephemeral } of pod.spec.volumes ?? []) {
      const claimName = persistentVolumeClaim?.claimName ?? (ephemeral ? `${pod.metadata.name}-${name}` : undefined);
      if (!claimName) continue;
      const claim = world.claims.store.get(`${pod.metadata.namespace}/${claimName}`);
      if (!claim) return `persistentvolumeclaim "${claimName}" not found`;
      if (!claim.spec.volumeName) return 'pod has unbound immediate PersistentVolumeClaims';
    }
    return undefined;
  }

  async function unschedulable(pod: Pod, message: string, signal: AbortSignal): Promise<void> {
    const was = pod.status?.conditions?.find(({ type }) => type === 'PodScheduled');
    if (was?.status === 'False' && was.message === message) return;
    const lastTransitionTime = was?.status === 'False' ? was.lastTransitionTime : timestamp(clock.now());
    const condition = {
      type: 'PodScheduled',
      status: 'False',
      reason: 'Unschedulable',
      message,
      lastProbeTime: null,
      lastTransitionTime,
    };
    await client.patch(
      resources.pods,
      pod.metadata,
      { metadata: { uid: pod.metadata.uid }, status: { conditions: [condition] } },
      { type: 'strategic', subresource: 'status', signal },
    );
    recordEvent(deps, pod, 'Warning', 'FailedScheduling', message, 'default-scheduler', signal);
  }

  return controller;
}
