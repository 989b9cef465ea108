// Rolls out a Deployment: one ReplicaSet for each template, the newest grows while the others shrink.
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { isNotFound } from '../../kube/errors.ts';
import { safeText, timestamp } from '../names.ts';
import { plain } from '../strategies.ts';
import type { Deployment, DeploymentCondition, PodTemplate, ReplicaSet } from '../workload.ts';
import { limitsOf, planRollout } from './rollout.ts';
import { unless, type World } from './world.ts';

const revisionKey = 'deployment.kubernetes.io/revision';
const hashKey = 'pod-template-hash';

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const fields = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(fields.map(([key, field]) => [key, sorted(field)]));
}

/** The same for the same template, whatever the order of its fields and the hash among its labels. */
function templateHash({ metadata = {}, spec }: PodTemplate): string {
  const { [hashKey]: _, ...labels } = metadata.labels ?? {};
  const text = JSON.stringify(sorted(plain({ labels, annotations: metadata.annotations ?? {}, spec })));
  return safeText(createHash('sha256').update(text).digest().subarray(0, 10));
}

const revisionOf = ({ metadata }: Deployment | ReplicaSet): number => Number(metadata.annotations?.[revisionKey] ?? 0);

const byAge = ({ metadata: a }: ReplicaSet, { metadata: b }: ReplicaSet): number =>
  (a.creationTimestamp ?? '').localeCompare(b.creationTimestamp ?? '') || a.name.localeCompare(b.name);

export function createDeploymentController(world: World) {
  const { client, clock, deployments, replicaSets } = world;
  const controller = world.controller('Deployment', reconcile);
  deployments.onChange(({ key }) => controller.wake(key));
  replicaSets.wakeOwners('Deployment', controller);
  const setsOf = (deployment: Deployment): ReplicaSet[] => replicaSets.ownedBy(deployment).toSorted(byAge);

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const deployment = deployments.get(key);
    if (!deployment || deployment.metadata.deletionTimestamp) return;
    const hash = templateHash(deployment.spec.template);
    const sets = setsOf(deployment);
    const found = sets.find((set) => templateHash(set.spec.template) === hash);
    if (deployment.spec.paused) return writeStatus(deployment, found, signal);
    const old = sets.filter((set) => set !== found);
    const revision = Math.max(0, ...old.map(revisionOf)) + 1;
    const current = found ?? (await makeSet(deployment, old, hash, revision, signal));
    await mark(deployment, current, Math.max(revision, revisionOf(current)), signal);
    const plan = planRollout(deployment, current, old);
    for (const set of [current, ...old]) {
      const replicas = plan.get(set.metadata.name);
      if (replicas !== undefined) await resize(deployment, set, replicas, signal);
    }
    await writeStatus(deployment, current, signal);
    await prune(deployment, old, signal);
  }

  async function makeSet(
    deployment: Deployment,
    old: readonly ReplicaSet[],
    hash: string,
    revision: number,
    signal: AbortSignal,
  ): Promise<ReplicaSet> {
    const { metadata, spec } = deployment;
    const { template, selector, minReadySeconds = 0, replicas = 1 } = spec;
    const labels = { ...template.metadata?.labels, [hashKey]: hash };
    // The first set starts full; a later one grows as the plan lets it.
    const later = old.some((set) => set.spec.replicas) || spec.strategy?.type === 'Recreate';
    const set: ReplicaSet = {
      metadata: {
        name: `${metadata.name}-${hash}`,
        namespace: metadata.namespace!,
        labels,
        annotations: { ...scaleAnnotations(deployment), [revisionKey]: String(revision) },
        ownerReferences: [deployments.ownerReference(deployment)],
      },
      spec: {
        replicas: later ? 0 : replicas,
        minReadySeconds,
        selector: { ...selector, matchLabels: { ...selector.matchLabels, [hashKey]: hash } },
        template: { ...template, metadata: { ...template.metadata, labels } },
      },
    };
    const made = await client.create(replicaSets.resource, set, { signal });
    await replicaSets.seen(made, signal);
    return made;
  }

  async function mark(
    deployment: Deployment,
    current: ReplicaSet,
    revision: number,
    signal: AbortSignal,
  ): Promise<void> {
    const patch = { metadata: { annotations: { [revisionKey]: String(revision) } } };
    if (revisionOf(current) !== revision)
      await client.patch(replicaSets.resource, current.metadata, patch, { type: 'merge', signal });
    if (revisionOf(deployment) !== revision)
      await client.patch(deployments.resource, deployment.metadata, patch, { type: 'merge', signal });
  }

  async function resize(deployment: Deployment, set: ReplicaSet, replicas: number, signal: AbortSignal): Promise<void> {
    const patch = { metadata: { annotations: scaleAnnotations(deployment) }, spec: { replicas } };
    await client.patch(replicaSets.resource, set.metadata, patch, { type: 'merge', signal });
    await replicaSets.seen(set, signal, set.metadata.resourceVersion);
  }

  async function prune(deployment: Deployment, old: readonly ReplicaSet[], signal: AbortSignal): Promise<void> {
    const empty = old.filter((set) => !set.metadata.deletionTimestamp && !set.spec.replicas && !set.status?.replicas);
    const surplus = Math.max(0, empty.length - (deployment.spec.revisionHistoryLimit ?? 10));
    for (const { metadata } of empty.toSorted((a, b) => revisionOf(a) - revisionOf(b)).slice(0, surplus))
      await client.delete(replicaSets.resource, metadata, { signal }).catch(unless(isNotFound));
  }

  async function writeStatus(
    deployment: Deployment,
    current: ReplicaSet | undefined,
    signal: AbortSignal,
  ): Promise<void> {
    const sets = setsOf(deployment);
    const now = sets.find(({ metadata }) => metadata.uid === current?.metadata.uid);
    const sum = (count: (set: ReplicaSet) => number | undefined): number =>
      sets.reduce((all, set) => all + (count(set) ?? 0), 0);
    const desired = Math.max(
      deployment.spec.replicas ?? 1,
      sum((set) => set.spec.replicas),
    );
    const availableReplicas = sum((set) => set.status?.availableReplicas);
    const counts = {
      replicas: sum((set) => set.status?.replicas),
      updatedReplicas: now?.status?.replicas ?? 0,
      readyReplicas: sum((set) => set.status?.readyReplicas),
      availableReplicas,
      unavailableReplicas: Math.max(0, desired - availableReplicas),
      terminatingReplicas: sum((set) => set.status?.terminatingReplicas),
      observedGeneration: deployment.metadata.generation ?? 0,
    };
    const conditions = conditionsOf(deployment, counts, now?.metadata.name ?? '', timestamp(clock.now()));
    const status = { ...counts, conditions };
    if (isDeepStrictEqual(plain(status), deployment.status)) return;
    const patch = { metadata: { uid: deployment.metadata.uid }, status };
    const options = { type: 'merge', subresource: 'status', signal } as const;
    await client.patch(deployments.resource, deployment.metadata, patch, options);
  }

  return controller;
}

function scaleAnnotations(deployment: Deployment): Record<string, string> {
  const desired = deployment.spec.replicas ?? 1;
  return {
    'deployment.kubernetes.io/desired-replicas': String(desired),
    'deployment.kubernetes.io/max-replicas': String(desired + limitsOf(deployment).surge),
  };
}

/** What a Deployment's status says of its rollout: available or not, progressing or done. It is never out of time here. */
function conditionsOf(
  { spec, status }: Deployment,
  { replicas = 0, updatedReplicas = 0, availableReplicas = 0 }: NonNullable<Deployment['status']>,
  setName: string,
  time: string,
): DeploymentCondition[] {
  const desired = spec.replicas ?? 1;
  const next = (type: string, holds: boolean | undefined, reason: string, message: string): DeploymentCondition => {
    const was = status?.conditions?.find((one) => one.type === type);
    const word = holds === undefined ? 'Unknown' : holds ? 'True' : 'False';
    if (was?.status === word && was.reason === reason) return was;
    const lastTransitionTime = was?.status === word ? (was.lastTransitionTime ?? time) : time;
    return { type, status: word, reason, message, lastUpdateTime: time, lastTransitionTime };
  };
  const available =
    availableReplicas >= desired - limitsOf({ spec }).unavailable
      ? next('Available', true, 'MinimumReplicasAvailable', 'Deployment has minimum availability.')
      : next('Available', false, 'MinimumReplicasUnavailable', 'Deployment does not have minimum availability.');
  const set = `ReplicaSet "${setName}"`;
  const done = [updatedReplicas, replicas, availableReplicas].every((count) => count === desired);
  if (spec.paused) return [available, next('Progressing', undefined, 'DeploymentPaused', 'Deployment is paused')];
  return [
    available,
    done
      ? next('Progressing', true, 'NewReplicaSetAvailable', `${set} has successfully progressed.`)
      : next('Progressing', true, 'ReplicaSetUpdated', `${set} is progressing.`),
  ];
}
