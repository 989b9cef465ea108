// Ends an evicted pod without the runtime, which on a node that is out of memory may need minutes for what the kernel does in a moment.
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';

export interface EndAtOnceDeps {
  readonly clock: Clock;
  /** Kills all processes in the pod's cgroup; resolves with how many there were. */
  killProcesses(uid: string): Promise<number>;
  /** Gives back what the pod's volumes keep in memory; called when no process is left. */
  freeMemory(pod: Pod): Promise<unknown>;
}

const tries = 20;
const pauseMs = 100;

/**
 * Resolves with how many processes there were when it began. Rejects where the cgroup cannot be read or a process not be killed, and when the
 * signal aborts.
 */
export async function endAtOnce(deps: EndAtOnceDeps, pod: Pod, signal: AbortSignal): Promise<number> {
  const uid = pod.metadata.uid ?? '';
  const found = await deps.killProcesses(uid);
  let left = found;
  // A process that was killed gives back its memory before it is gone.
  for (let done = 0; left > 0 && done < tries; done++) {
    await deps.clock.sleep(pauseMs, signal);
    left = await deps.killProcesses(uid);
  }
  if (left === 0) await deps.freeMemory(pod);
  return found;
}
