// What a Deployment's status says of its rollout: available or not, progressing, done, or out of time. Pure.
import { timestamp } from '../names.ts';
import type { Deployment, DeploymentCondition } from '../workload.ts';
import { limitsOf } from './rollout.ts';

interface Counts {
  readonly replicas: number;
  readonly updatedReplicas: number;
  readonly readyReplicas: number;
  readonly availableReplicas: number;
}

export function conditionsOf(
  { spec, status: old = {} }: Deployment,
  counts: Counts,
  setName: string,
  nowMs: number,
): { conditions: DeploymentCondition[]; lookAgainInMs: number | undefined } {
  const desired = spec.replicas ?? 1;
  const deadlineMs = (spec.progressDeadlineSeconds ?? 600) * 1000;
  const time = timestamp(nowMs);
  const before = (type: string): DeploymentCondition | undefined => old.conditions?.find((one) => one.type === type);
  const next = (type: string, holds: boolean | undefined, reason: string, message: string, moved = false) => {
    const was = before(type);
    const status = holds === undefined ? 'Unknown' : holds ? 'True' : 'False';
    if (was?.status === status && was.reason === reason && !moved) return was;
    const lastTransitionTime = was?.status === status ? (was.lastTransitionTime ?? time) : time;
    return { type, status, reason, message, lastUpdateTime: time, lastTransitionTime } as const;
  };
  const { updatedReplicas, replicas, availableReplicas, readyReplicas } = counts;
  const enough = availableReplicas >= desired - limitsOf({ spec }).unavailable;
  const available = enough
    ? next('Available', true, 'MinimumReplicasAvailable', 'Deployment has minimum availability.')
    : next('Available', false, 'MinimumReplicasUnavailable', 'Deployment does not have minimum availability.');
  const moved =
    updatedReplicas > (old.updatedReplicas ?? 0) ||
    availableReplicas > (old.availableReplicas ?? 0) ||
    readyReplicas > (old.readyReplicas ?? 0) ||
    replicas - updatedReplicas < (old.replicas ?? 0) - (old.updatedReplicas ?? 0);
  const was = before('Progressing');
  const waited = !moved && was && was.reason !== 'NewReplicaSetAvailable';
  const late = waited && nowMs - Date.parse(was.lastUpdateTime ?? time) > deadlineMs;
  const all = [updatedReplicas, replicas, availableReplicas].every((count) => count === desired);
  const set = `ReplicaSet "${setName}"`;
  const progress = (): DeploymentCondition => {
    const type = 'Progressing';
    if (spec.paused) return next(type, undefined, 'DeploymentPaused', 'Deployment is paused');
    if (all) return next(type, true, 'NewReplicaSetAvailable', `${set} has successfully progressed.`);
    if (late) return next(type, false, 'ProgressDeadlineExceeded', `${set} has timed out progressing.`);
    return next(type, true, 'ReplicaSetUpdated', `${set} is progressing.`, moved);
  };
  return { conditions: [available, progress()], lookAgainInMs: all || late ? undefined : deadlineMs + 1000 };
}
