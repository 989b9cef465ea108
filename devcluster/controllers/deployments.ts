// Rolls out a Deployment: one ReplicaSet for each template, the newest grows while the others shrink.
import { createHash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { isNotFound } from '../../kube/errors.ts';
import type { Deployment, DeploymentCondition, PodTemplate, ReplicaSet } from '../default-workload.ts';
import { timestamp } from '../names.ts';
import { type Controller, createController } from './loop.ts';
import { limitsOf, planRollout } from './rollout.ts';
import {
  type ControllerDeps,
  deploymentResource,
  ownerIndex,
  ownerKey,
  replicaSetResource,
  type World,
} from './world.ts';

const revisionKey = 'deployment.kubernetes.io/revision';
const hashKey = 'pod-template-hash';

const alphabet = 'bcdfghjklmnpqrstvwxz2456789';
export const templateHash = (template: PodTemplate): string =>
  [
    ...createHash('sha256')
      .update(JSON.stringify(sorted(template)))
      .digest()
      .subarray(0, 10),
  ]
    .map((byte) => alphabet[byte % alphabet.length])
    .join('');

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, field]) => [key, sorted(field)]),
  );
}

const revisionOf = (object: { metadata: { annotations?: Record<string, string> } }): number =>
  Number(object.metadata.annotations?.[revisionKey] ?? 0);

function sameTemplate(set: ReplicaSet, deployment: Deployment): boolean {
  const bare = ({ metadata = {}, spec }: PodTemplate): unknown => {
    const { [hashKey]: _, ...labels } = metadata.labels ?? {};
    return sorted(JSON.parse(JSON.stringify({ labels, annotations: metadata.annotations ?? {}, spec })));
  };
  return isDeepStrictEqual(bare(set.spec.template), bare(deployment.spec.template));
}

const byAge = (a: ReplicaSet, b: ReplicaSet): number =>
  (a.metadata.creationTimestamp ?? '').localeCompare(b.metadata.creationTimestamp ?? '') ||
  a.metadata.name.localeCompare(b.metadata.name);

export function createDeploymentController(deps: ControllerDeps, world: World): Controller {
  const { client, clock } = deps;
  const controller = createController(deps, 'Deployment', reconcile);
  world.deployments.onChange(({ key }) => controller.queue.wake(key));
  world.replicaSets.onChange(({ before, after }) => {
    for (const set of [before, after]) {
      const key = set && ownerKey(set, 'Deployment');
      if (key) controller.queue.wake(key);
    }
  });

  async function reconcile(key: string, signal: AbortSignal): Promise<void> {
    const deployment = world.deployments.store.get(key);
    if (!deployment?.metadata.uid || deployment.metadata.deletionTimestamp) return;
    const sets = [...world.replicaSets.store.byIndex(ownerIndex, deployment.metadata.uid)].sort(byAge);
    const found = sets.find((set) => sameTemplate(set, deployment));
    const old = sets.filter((set) => set !== found);
    if (deployment.spec.paused) return writeStatus(deployment, found, sets, signal);
    const current = found ?? (await makeSet(deployment, old, signal));
    await mark(deployment, current, old, signal);
    for (const [name, replicas] of planRollout(deployment, current, old)) {
      const set = name === current.metadata.name ? current : old.find(({ metadata }) => metadata.name === name)!;
      await resize(deployment, set, replicas, signal);
    }
    await writeStatus(deployment, current, [...old, current], signal);
    await prune(deployment, old, signal);
  }

  async function makeSet(deployment: Deployment, old: readonly ReplicaSet[], signal: AbortSignal): Promise<ReplicaSet> {
    const { metadata, spec } = deployment;
    const hash = templateHash(spec.template);
    const labels = { ...spec.template.metadata?.labels, [hashKey]: hash };
    const desired = spec.replicas ?? 1;
    const made = await client.create(
      replicaSetResource,
      {
        metadata: {
          name: `${metadata.name}-${hash}`,
          namespace: metadata.namespace!,
          labels,
          annotations: { ...scaleAnnotations(deployment), [revisionKey]: String(nextRevision(old)) },
          ownerReferences: [
            {
              apiVersion: 'apps/v1',
              kind: 'Deployment',
              name: metadata.name,
              uid: metadata.uid!,
              controller: true,
              blockOwnerDeletion: true,
            },
          ],
        },
        spec: {
          // The first set starts full; a later one grows as the plan lets it.
          replicas: old.some((set) => (set.spec.replicas ?? 0) > 0) || spec.strategy?.type === 'Recreate' ? 0 : desired,
          ...(spec.minReadySeconds ? { minReadySeconds: spec.minReadySeconds } : {}),
          selector: { ...spec.selector, matchLabels: { ...spec.selector.matchLabels, [hashKey]: hash } },
          template: { ...spec.template, metadata: { ...spec.template.metadata, labels } },
        },
      },
      { signal },
    );
    await world.replicaSets.until(
      (store) => store.get(`${made.metadata.namespace}/${made.metadata.name}`) !== undefined,
      signal,
    );
    return made;
  }

  async function mark(
    deployment: Deployment,
    current: ReplicaSet,
    old: readonly ReplicaSet[],
    signal: AbortSignal,
  ): Promise<void> {
    const newest = Math.max(0, ...old.map(revisionOf));
    let revision = revisionOf(current);
    if (revision <= newest) {
      revision = newest + 1;
      await client.patch(
        replicaSetResource,
        current.metadata,
        { metadata: { annotations: { [revisionKey]: String(revision) } } },
        { type: 'merge', signal },
      );
    }
    if (revisionOf(deployment) === revision) return;
    await client.patch(
      deploymentResource,
      deployment.metadata,
      { metadata: { annotations: { [revisionKey]: String(revision) } } },
      { type: 'merge', signal },
    );
  }

  async function resize(deployment: Deployment, set: ReplicaSet, replicas: number, signal: AbortSignal): Promise<void> {
    const { resourceVersion, ...name } = set.metadata;
    await client.patch(
      replicaSetResource,
      name,
      { metadata: { annotations: scaleAnnotations(deployment) }, spec: { replicas } },
      { type: 'merge', signal },
    );
    await world.replicaSets.until(
      (store) => store.get(`${name.namespace}/${name.name}`)?.metadata.resourceVersion !== resourceVersion,
      signal,
    );
  }

  async function prune(deployment: Deployment, old: readonly ReplicaSet[], signal: AbortSignal): Promise<void> {
    const empty = old.filter((set) => !set.metadata.deletionTimestamp && !set.spec.replicas && !set.status?.replicas);
    const surplus = empty.length - (deployment.spec.revisionHistoryLimit ?? 10);
    const doomed = [...empty].sort((a, b) => revisionOf(a) - revisionOf(b)).slice(0, Math.max(0, surplus));
    for (const { metadata } of doomed)
      await client.delete(replicaSetResource, metadata, { signal }).catch((error: unknown) => {
        if (!isNotFound(error)) throw error;
      });
  }

  async function writeStatus(
    deployment: Deployment,
    current: ReplicaSet | undefined,
    sets: readonly ReplicaSet[],
    signal: AbortSignal,
  ): Promise<void> {
    const fresh = sets.map(
      (set) => world.replicaSets.store.get(`${set.metadata.namespace}/${set.metadata.name}`) ?? set,
    );
    const now = current && fresh.find(({ metadata }) => metadata.uid === current.metadata.uid);
    const sum = (count: (set: ReplicaSet) => number | undefined): number =>
      fresh.reduce((all, set) => all + (count(set) ?? 0), 0);
    const desired = deployment.spec.replicas ?? 1;
    const counts = {
      replicas: sum((set) => set.status?.replicas),
      updatedReplicas: now?.status?.replicas ?? 0,
      readyReplicas: sum((set) => set.status?.readyReplicas),
      availableReplicas: sum((set) => set.status?.availableReplicas),
      unavailableReplicas: Math.max(
        0,
        Math.max(
          desired,
          sum((set) => set.spec.replicas),
        ) - sum((set) => set.status?.availableReplicas),
      ),
      terminatingReplicas: sum((set) => set.status?.terminatingReplicas),
      observedGeneration: deployment.metadata.generation ?? 0,
    };
    const conditions = conditionsOf(deployment, counts, now?.metadata.name, clock.now());
    const deadline = (deployment.spec.progressDeadlineSeconds ?? 600) * 1000;
    const progressing = conditions.find(({ type }) => type === 'Progressing')!;
    if (progressing.reason !== 'NewReplicaSetAvailable' && progressing.reason !== 'ProgressDeadlineExceeded')
      controller.queue.wakeAfter(`${deployment.metadata.namespace}/${deployment.metadata.name}`, deadline + 1000);
    const status = { ...counts, conditions };
    if (isDeepStrictEqual(JSON.parse(JSON.stringify(status)), deployment.status)) return;
    await client.patch(
      deploymentResource,
      deployment.metadata,
      { metadata: { uid: deployment.metadata.uid }, status },
      { type: 'merge', subresource: 'status', signal },
    );
  }

  return controller;
}

const nextRevision = (sets: readonly ReplicaSet[]): number => Math.max(0, ...sets.map(revisionOf)) + 1;

const scaleAnnotations = (deployment: Deployment): Record<string, string> => {
  const desired = deployment.spec.replicas ?? 1;
  return {
    'deployment.kubernetes.io/desired-replicas': String(desired),
    'deployment.kubernetes.io/max-replicas': String(desired + limitsOf(deployment).surge),
  };
};

interface Counts {
  readonly replicas: number;
  readonly updatedReplicas: number;
  readonly readyReplicas: number;
  readonly availableReplicas: number;
}

export function conditionsOf(
  deployment: Deployment,
  counts: Counts,
  setName: string | undefined,
  nowMs: number,
): DeploymentCondition[] {
  const desired = deployment.spec.replicas ?? 1;
  const before = deployment.status?.conditions ?? [];
  const time = timestamp(nowMs);
  const next = (
    type: string,
    status: 'True' | 'False' | 'Unknown',
    reason: string,
    message: string,
    moved: boolean,
  ): DeploymentCondition => {
    const was = before.find((one) => one.type === type);
    if (was && was.status === status && was.reason === reason && !moved) return was;
    return {
      type,
      status,
      reason,
      message,
      lastUpdateTime: time,
      lastTransitionTime: was?.status === status ? (was.lastTransitionTime ?? time) : time,
    };
  };
  const enough = counts.availableReplicas >= desired - limitsOf(deployment).unavailable;
  const available = enough
    ? next('Available', 'True', 'MinimumReplicasAvailable', 'Deployment has minimum availability.', false)
    : next('Available', 'False', 'MinimumReplicasUnavailable', 'Deployment does not have minimum availability.', false);
  return [available, progress()];

  function progress(): DeploymentCondition {
    const was = before.find(({ type }) => type === 'Progressing');
    const { updatedReplicas, replicas, availableReplicas } = counts;
    if (deployment.spec.paused)
      return next('Progressing', 'Unknown', 'DeploymentPaused', 'Deployment is paused', false);
    if (updatedReplicas === desired && replicas === desired && availableReplicas >= desired)
      return next(
        'Progressing',
        'True',
        'NewReplicaSetAvailable',
        `ReplicaSet "${setName}" has successfully progressed.`,
        false,
      );
    const old = deployment.status ?? {};
    const moved =
      updatedReplicas > (old.updatedReplicas ?? 0) ||
      availableReplicas > (old.availableReplicas ?? 0) ||
      counts.readyReplicas > (old.readyReplicas ?? 0) ||
      replicas - updatedReplicas < (old.replicas ?? 0) - (old.updatedReplicas ?? 0);
    const deadline = (deployment.spec.progressDeadlineSeconds ?? 600) * 1000;
    const still = was && !moved && was.reason !== 'NewReplicaSetAvailable';
    if (still && nowMs - Date.parse(was.lastUpdateTime ?? time) > deadline)
      return next(
        'Progressing',
        'False',
        'ProgressDeadlineExceeded',
        `ReplicaSet "${setName}" has timed out progressing.`,
        false,
      );
    return next('Progressing', 'True', 'ReplicaSetUpdated', `ReplicaSet "${setName}" is progressing.`, moved);
  }
}
