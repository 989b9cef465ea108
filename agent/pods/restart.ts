// Whether and when an ended container runs again: restart policies, restart rules and CrashLoopBackOff.
import type { Container, ContainerRestartRule, Pod } from '../../kube/types/pod.ts';
import type { RestartBackoff } from './memory.ts';
import type { ObservedContainer } from './observed.ts';

export interface RestartBackoffOptions {
  readonly initialMs: number;
  readonly maxMs: number;
  /** A container that ran this long starts over. */
  readonly resetAfterMs: number;
}

/** kubelet: 10 s doubling to 300 s, reset after 10 minutes of running. */
export const defaultRestartBackoff: RestartBackoffOptions = {
  initialMs: 10_000,
  maxMs: 300_000,
  resetAfterMs: 600_000,
};

/** KubeletConfiguration crashLoopBackOff.maxContainerRestartPeriod, in milliseconds: a longest delay below the first one is that too. */
export const restartBackoffUpTo = (maxMs: number): RestartBackoffOptions => ({
  ...defaultRestartBackoff,
  initialMs: Math.min(defaultRestartBackoff.initialMs, maxMs),
  maxMs,
});

export function matchingRule(container: Container, exitCode: number): ContainerRestartRule | undefined {
  return container.restartPolicyRules?.find((rule) => {
    const { operator, values = [] } = rule.exitCodes ?? { operator: undefined };
    if (operator === 'In') return values.includes(exitCode);
    if (operator === 'NotIn') return !values.includes(exitCode);
    return false;
  });
}

/** Whether its end restarts all containers of its pod. */
export const restartsAll = (container: Container, exitCode: number): boolean =>
  matchingRule(container, exitCode)?.action === 'RestartAllContainers';

/** Whether a container that ended with this exit code is to run again. Same rules as the API documents for restartPolicyRules. */
export function shouldRestart(pod: Pod, container: Container, exitCode: number): boolean {
  if (container.restartPolicy !== undefined && matchingRule(container, exitCode)) return true;
  switch (container.restartPolicy ?? pod.spec.restartPolicy ?? 'Always') {
    case 'Always':
      return true;
    case 'OnFailure':
      return exitCode !== 0;
    case 'Never':
      return false;
    default:
      return true;
  }
}

/** Whether a container that we stop ourselves (a failed probe) runs again; rules on exit codes do not count then. */
export function restartsAfterKill(pod: Pod, container: Container): boolean {
  return (container.restartPolicy ?? pod.spec.restartPolicy ?? 'Always') !== 'Never';
}

/**
 * The back-off that is in force after `exited`: none for the first exit, then the initial delay, doubling. `now` in milliseconds since
 * the epoch.
 */
export function nextBackoff(
  before: RestartBackoff | undefined,
  exited: ObservedContainer,
  options: RestartBackoffOptions,
): RestartBackoff {
  if (before?.exitId === exited.id) return before;
  if (!before) {
    // After a restart of the agent nothing is remembered, but the number of restarts tells how far the doubling had come.
    const exits = exited.metadata.attempt;
    const ranMs = exited.startedAtMs > 0 ? exited.finishedAtMs - exited.startedAtMs : 0;
    if (exits === 0 || ranMs >= options.resetAfterMs) return { delayMs: 0, exitId: exited.id };
    return { delayMs: Math.min(options.maxMs, options.initialMs * 2 ** Math.min(exits - 1, 16)), exitId: exited.id };
  }
  const ranMs = exited.startedAtMs > 0 ? exited.finishedAtMs - exited.startedAtMs : 0;
  if (ranMs >= options.resetAfterMs) return { delayMs: 0, exitId: exited.id };
  const delayMs = before.delayMs === 0 ? options.initialMs : Math.min(options.maxMs, before.delayMs * 2);
  return { delayMs: Math.min(delayMs, options.maxMs), exitId: exited.id };
}

/** A duration as Go prints it, for the whole seconds that back-offs are made of: `10s`, `1m20s`, `5m0s`. */
export function formatBackoff(ms: number): string {
  const seconds = Math.round(ms / 1000);
  const minutes = Math.floor(seconds / 60);
  return minutes > 0 ? `${minutes}m${seconds % 60}s` : `${seconds}s`;
}

/** `name_namespace(uid)`, as the kubelet names pods in messages. */
export const formatPod = (pod: Pod): string =>
  `${pod.metadata.name}_${pod.metadata.namespace ?? 'default'}(${pod.metadata.uid ?? ''})`;
