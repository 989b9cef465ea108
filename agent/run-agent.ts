// The order in which an agent comes up and goes down: first what runs is known, then the node and its servers, and pods last.
import type { Node } from '../kube/types/core.ts';
import { aborted } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { supervise } from '../lib/supervise.ts';

export interface AgentTask {
  readonly name: string;
  run(signal: AbortSignal): Promise<void>;
}

export interface RunAgentDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** A task that must not end has ended. */
  onFault(task: string, error: unknown): void;
  /** Finds out what runs; rejects where the runtime does not tell. */
  relist(): Promise<void>;
  node(): Node | undefined;
  /** Told when the node becomes known or changes; returns how to end that. */
  onNode(listener: () => void): () => void;
  /** Begin when it is known what runs. */
  readonly tasks: readonly AgentTask[];
  /** Binds what others ask this node by, gives each that has a task over at once, and resolves with what closes the rest; rejects with words for the operator. */
  listen(start: (task: AgentTask) => void): Promise<() => Promise<void>>;
  /** Sets what all pods together may use; false where that did not do. */
  limit(node: Node): Promise<boolean>;
  /** Begin when the node is known. */
  readonly podTasks: readonly AgentTask[];
  /** One after the other, when all tasks have ended. */
  readonly closing: readonly (() => Promise<void> | void)[];
}

const relistRetryMs = 1_000;
const limitRetryMs = 60_000;

/** Ends when the signal has aborted and all is put away; rejects where it cannot come up, all put away too. */
export async function runAgent(deps: RunAgentDeps, signal: AbortSignal): Promise<void> {
  const { clock, log } = deps;
  const tasks = supervise({ log, onFault: deps.onFault });
  const start = ({ name, run }: AgentTask): void => tasks.start(name, run);
  let close: (() => Promise<void>) | undefined;
  // Also what could not start, for a port in use say, is put away: else it would keep the process alive.
  try {
    // Nothing is decided about pods before it is known what runs.
    for (;;) {
      try {
        await deps.relist();
        break;
      } catch (error) {
        log.warn('the runtime’s sandboxes and containers cannot be listed; tried again in 1 s', { error });
        await clock.sleep(relistRetryMs, signal);
      }
    }
    for (const task of deps.tasks) start(task);
    close = await deps.listen(start);
    // Admission, addresses and the limits of all pods need the node's facts.
    await nodeKnown(deps, signal);
    const limit = (): Promise<boolean> => deps.limit(deps.node()!);
    if (!(await limit())) start({ name: 'limits of all pods', run: (inner) => limitLater(limit, clock, inner) });
    for (const task of deps.podTasks) start(task);
    await aborted(signal);
  } finally {
    await tasks.stop();
    await close?.();
    for (const each of deps.closing) await each();
  }
}

async function nodeKnown({ node, onNode }: RunAgentDeps, signal: AbortSignal): Promise<void> {
  let forget: (() => void) | undefined;
  const known = new Promise<void>((resolve) => {
    forget = onNode(() => node() && resolve());
    if (node()) resolve();
  });
  try {
    await Promise.race([known, aborted(signal)]);
    signal.throwIfAborted();
  } finally {
    forget?.();
  }
}

async function limitLater(limit: () => Promise<boolean>, clock: Clock, signal: AbortSignal): Promise<void> {
  for (let done = false; !signal.aborted; ) {
    await clock.sleep(limitRetryMs, signal);
    if (!done) done = await limit().catch(() => false);
  }
}
