// The node's conditions with the kubelet's reasons and messages. Pure.
import type { Condition } from '../../kube/types/meta.ts';

export interface Pressure {
  readonly memory: boolean;
  readonly disk: boolean;
  readonly pid: boolean;
}

export const noPressure: Pressure = { memory: false, disk: false, pid: false };

/** A condition before it has times. */
export interface ConditionValue {
  readonly type: string;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: string;
  readonly message: string;
  /** Recorded when the status changes, `Node NAME status is now: EVENT`. */
  readonly event?: string;
}

interface PressureWords {
  readonly type: string;
  readonly bad: readonly [reason: string, message: string, event: string];
  readonly good: readonly [reason: string, message: string, event: string];
}

const words: Readonly<Record<keyof Pressure, PressureWords>> = {
  memory: {
    type: 'MemoryPressure',
    bad: ['KubeletHasInsufficientMemory', 'kubelet has insufficient memory available', 'NodeHasInsufficientMemory'],
    good: ['KubeletHasSufficientMemory', 'kubelet has sufficient memory available', 'NodeHasSufficientMemory'],
  },
  disk: {
    type: 'DiskPressure',
    bad: ['KubeletHasDiskPressure', 'kubelet has disk pressure', 'NodeHasDiskPressure'],
    good: ['KubeletHasNoDiskPressure', 'kubelet has no disk pressure', 'NodeHasNoDiskPressure'],
  },
  pid: {
    type: 'PIDPressure',
    bad: ['KubeletHasInsufficientPID', 'kubelet has insufficient PID available', 'NodeHasInsufficientPID'],
    good: ['KubeletHasSufficientPID', 'kubelet has sufficient PID available', 'NodeHasSufficientPID'],
  },
};

export function pressureConditions(pressure: Pressure): ConditionValue[] {
  return (['memory', 'disk', 'pid'] as const).map((kind) => {
    const [reason, message, event] = pressure[kind] ? words[kind].bad : words[kind].good;
    return { type: words[kind].type, status: pressure[kind] ? 'True' : 'False', reason, message, event };
  });
}

/** `errors` are what keeps the node from being ready, each in words; `warnings` only end up in the message. */
export function readyCondition(errors: readonly string[], warnings: readonly string[] = []): ConditionValue {
  const ready = errors.length === 0;
  const unique = [...new Set(errors)];
  const base = ready ? 'kubelet is posting ready status' : unique.length === 1 ? unique[0]! : `[${unique.join(', ')}]`;
  return {
    type: 'Ready',
    status: ready ? 'True' : 'False',
    reason: ready ? 'KubeletReady' : 'KubeletNotReady',
    message: warnings.length === 0 ? base : `${base}. WARNING: ${warnings.join(', ')}`,
    event: ready ? 'NodeReady' : 'NodeNotReady',
  };
}

/** The condition with its times: the transition's is kept while the status is. */
export function stampCondition(value: ConditionValue, before: Condition | undefined, now: string): Condition {
  const same = before?.status === value.status;
  return {
    type: value.type,
    status: value.status,
    reason: value.reason,
    message: value.message,
    lastHeartbeatTime: now,
    lastTransitionTime: same ? (before?.lastTransitionTime ?? now) : now,
  };
}

/** True where anything but the heartbeat differs. */
export const conditionChanged = (before: Condition | undefined, after: Condition): boolean =>
  before === undefined ||
  before.status !== after.status ||
  before.reason !== after.reason ||
  before.message !== after.message;
