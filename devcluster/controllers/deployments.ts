// Rolls out a Deployment: one ReplicaSet for each template, the newest grows while the others shrink. A set that ran empty goes: there is
// no history to go back to.
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { isNotFound } from '../../kube/errors.ts';
import type { Condition } from '../../kube/types/meta.ts';
import { safeText, timestamp } from '../names.ts';
import { plain } from '../strategies.ts';
import type { Deployment, PodTemplate, ReplicaSet } from '../workload.ts';
import { limitsOf, planRollout } from './rollout.ts';
import { unless, type World } from './world.ts';

const hashKey = 'pod-template-hash';

/** What is compared: all but the hash among the labels. */
function contentOf({ metadata = {}, spec }: PodTemplate): unknown {
  const { [hashKey]: _, ...labels } = metadata.labels ?? {};
  return plain({ labels, annotations: metadata.annotations ?? {}, spec });
}

export function createDeploymentController(world: World) {
  const { client, clock, deployments, replicaSets } = world;
  const controller = world.controller('Deployment', reconcile);
  deployments.onChange(({ key }) => controller.wake(key));
  replicaSets.wakeOwners('Deployment', controller);

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const deployment = deployments.get(key);
    if (!deployment || deployment.metadata.deletionTimestamp) return;
    const content = contentOf(deployment.spec.template);
    const sets = replicaSets.ownedBy(deployment);
    const current = sets.find(({ spec }) => isDeepStrictEqual(contentOf(spec.template), content));
    const old = sets.filter((set) => set !== current);
    // What is made or resized comes back as a change, which is looked at anew.
    if (!current) return makeSet(deployment, content, old.length > 0, signal);
    const plan = planRollout(deployment, current, old);
    for (const { metadata } of sets) {
      const { name, resourceVersion } = metadata;
      const replicas = plan.get(name);
      const patch = { metadata: { resourceVersion }, spec: { replicas } };
      if (replicas !== undefined) await client.patch(replicaSets.resource, metadata, patch, { type: 'merge', signal });
    }
    await writeStatus(deployment, current, sets, signal);
    for (const { metadata, spec, status } of old)
      if (!spec.replicas && !status?.replicas && !status?.terminatingReplicas)
        await client.delete(replicaSets.resource, metadata, { signal }).catch(unless(isNotFound));
  }

  async function makeSet(deployment: Deployment, content: unknown, later: boolean, signal: AbortSignal): Promise<void> {
    const { name, namespace = '' } = deployment.metadata;
    const { template, selector, replicas = 1 } = deployment.spec;
    const hash = safeText(createHash('sha256').update(JSON.stringify(content)).digest().subarray(0, 10));
    const labels = { ...template.metadata?.labels, [hashKey]: hash };
    const ownerReferences = [deployments.ownerReference(deployment)];
    const set: ReplicaSet = {
      metadata: { name: `${name}-${hash}`, namespace, labels, ownerReferences },
      spec: {
        // The first set starts full; a later one grows as the plan lets it.
        replicas: later ? 0 : replicas,
        selector: { ...selector, matchLabels: { ...selector.matchLabels, [hashKey]: hash } },
        template: { ...template, metadata: { ...template.metadata, labels } },
      },
    };
    await client.create(replicaSets.resource, set, { signal });
  }

  async function writeStatus(
    deployment: Deployment,
    current: ReplicaSet,
    sets: readonly ReplicaSet[],
    signal: AbortSignal,
  ): Promise<void> {
    const sum = (count: (set: ReplicaSet) => number | undefined): number =>
      sets.reduce((all, set) => all + (count(set) ?? 0), 0);
    const wanted = sum((set) => set.spec.replicas);
    const availableReplicas = sum((set) => set.status?.availableReplicas);
    const status = {
      replicas: sum((set) => set.status?.replicas),
      updatedReplicas: current.status?.replicas ?? 0,
      readyReplicas: sum((set) => set.status?.readyReplicas),
      availableReplicas,
      unavailableReplicas: Math.max(0, Math.max(deployment.spec.replicas ?? 1, wanted) - availableReplicas),
      terminatingReplicas: sum((set) => set.status?.terminatingReplicas),
      observedGeneration: deployment.metadata.generation ?? 0,
      conditions: [conditionOf(deployment, availableReplicas, timestamp(clock.now()))],
    };
    if (isDeepStrictEqual(plain(status), deployment.status)) return;
    const patch = { metadata: { uid: deployment.metadata.uid }, status };
    const options = { type: 'merge', subresource: 'status', signal } as const;
    await client.patch(deployments.resource, deployment.metadata, patch, options);
  }

  return controller;
}

/** Available or not. Of a rollout's progress the counts tell enough: it is never out of time here. */
function conditionOf({ spec, status }: Deployment, availableReplicas: number, time: string): Condition {
  const holds = availableReplicas >= (spec.replicas ?? 1) - limitsOf({ spec }).unavailable;
  const word = holds ? 'True' : 'False';
  const was = status?.conditions?.find(({ type }) => type === 'Available');
  if (was?.status === word) return was;
  const reason = holds ? 'MinimumReplicasAvailable' : 'MinimumReplicasUnavailable';
  const message = `Deployment ${holds ? 'has' : 'does not have'} minimum availability.`;
  return { type: 'Available', status: word, reason, message, lastTransitionTime: time };
}
