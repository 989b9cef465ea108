// What the container runtime last said of itself, and what of it keeps the node from being ready. The words are the kubelet's.
import type { RuntimeCondition, RuntimeStatus, RuntimeVersion } from '../../cri/types.ts';

/** A runtime that has not answered for this long is down. */
export const runtimeSilenceMs = 30_000;

export interface RuntimeState {
  readonly status: RuntimeStatus | undefined;
  readonly version: RuntimeVersion | undefined;
  /** When the runtime last answered, on the monotonic clock; undefined before the first time. */
  readonly answeredMs: number | undefined;
  /** Why it did not answer the last time; undefined where it did. */
  readonly error: string | undefined;
}

export const unknownRuntime: RuntimeState = {
  status: undefined,
  version: undefined,
  answeredMs: undefined,
  error: undefined,
};

const describe = (type: string, condition: RuntimeCondition | undefined): string =>
  condition === undefined
    ? `${type} not reported`
    : `${condition.type}=${condition.status} reason:${condition.reason} message:${condition.message}`;

export function runtimeErrors(state: RuntimeState, nowMs: number): string[] {
  const errors: string[] = [];
  if (state.answeredMs === undefined) errors.push('container runtime status check may not have completed yet');
  else if (nowMs - state.answeredMs > runtimeSilenceMs) errors.push('container runtime is down');
  if (state.status === undefined) return errors;
  for (const [type, what] of [
    ['RuntimeReady', 'container runtime not ready'],
    ['NetworkReady', 'container runtime network not ready'],
  ] as const) {
    const condition = state.status.conditions.find((found) => found.type === type);
    if (!condition?.status) errors.push(`${what}: ${describe(type, condition)}`);
  }
  return errors;
}
