// Rolls out a Deployment: one ReplicaSet for each template, the newest grows while the others shrink.
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { isNotFound } from '../../kube/errors.ts';
import { keyOf } from '../../kube/store.ts';
import { safeText } from '../names.ts';
import { plain } from '../strategies.ts';
import type { Deployment, PodTemplate, ReplicaSet } from '../workload.ts';
import { conditionsOf } from './deployment-conditions.ts';
import { limitsOf, planRollout } from './rollout.ts';
import {
  type Controller,
  type ControllerDeps,
  createController,
  deploymentResource,
  ownedBy,
  ownerIndex,
  replicaSetResource,
  seen,
  unless,
  wakeOwners,
  type World,
} from './world.ts';

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

export function createDeploymentController(deps: ControllerDeps, world: World): Controller {
  const { client, clock } = deps;
  const controller = createController(deps, 'Deployment', reconcile);
  world.deployments.onChange(({ key }) => controller.wake(key));
  wakeOwners(world.replicaSets, 'Deployment', controller);
  const setsOf = (deployment: Deployment): ReplicaSet[] =>
    world.replicaSets.store.byIndex(ownerIndex, deployment.metadata.uid!).toSorted(byAge);

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const deployment = world.deployments.store.get(key);
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
        ownerReferences: [ownedBy(deploymentResource, deployment)],
      },
      spec: {
        replicas: later ? 0 : replicas,
        minReadySeconds,
        selector: { ...selector, matchLabels: { ...selector.matchLabels, [hashKey]: hash } },
        template: { ...template, metadata: { ...template.metadata, labels } },
      },
    };
    const made = await client.create(replicaSetResource, set, { signal });
    await seen(world.replicaSets, made, signal);
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
      await client.patch(replicaSetResource, current.metadata, patch, { type: 'merge', signal });
    if (revisionOf(deployment) !== revision)
      await client.patch(deploymentResource, deployment.metadata, patch, { type: 'merge', signal });
  }

  async function resize(deployment: Deployment, set: ReplicaSet, replicas: number, signal: AbortSignal): Promise<void> {
    const patch = { metadata: { annotations: scaleAnnotations(deployment) }, spec: { replicas } };
    await client.patch(replicaSetResource, set.metadata, patch, { type: 'merge', signal });
    await seen(world.replicaSets, set, signal, set.metadata.resourceVersion);
  }

  async function prune(deployment: Deployment, old: readonly ReplicaSet[], signal: AbortSignal): Promise<void> {
    const empty = old.filter((set) => !set.metadata.deletionTimestamp && !set.spec.replicas && !set.status?.replicas);
    const surplus = Math.max(0, empty.length - (deployment.spec.revisionHistoryLimit ?? 10));
    for (const { metadata } of empty.toSorted((a, b) => revisionOf(a) - revisionOf(b)).slice(0, surplus))
      await client.delete(replicaSetResource, metadata, { signal }).catch(unless(isNotFound));
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
    const { conditions, lookAgainInMs } = conditionsOf(deployment, counts, now?.metadata.name ?? '', clock.now());
    if (lookAgainInMs !== undefined) controller.wakeAfter(keyOf(deployment), lookAgainInMs);
    const status = { ...counts, conditions };
    if (isDeepStrictEqual(plain(status), deployment.status)) return;
    const patch = { metadata: { uid: deployment.metadata.uid }, status };
    const options = { type: 'merge', subresource: 'status', signal } as const;
    await client.patch(deploymentResource, deployment.metadata, patch, options);
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
