// Makes a container and starts it.
import type { ContainerConfig, ContainerId, SandboxConfig } from '../../cri/types.ts';
import { describeError } from '../../lib/log.ts';
import {
  type ExecuteDeps,
  type Handler,
  nameTaken,
  type OperationContext,
  takenTries,
  tellOf,
  troubleAfter,
  wordsOf,
} from './handling.ts';
import { type ContainerMemory, memoryOf } from './memory.ts';
import { containerNamed } from './named.ts';
import { isReasoned } from './pod-parts.ts';

export function createStartContainer(deps: ExecuteDeps): Handler<'start-container'> {
  const { runtime, clock, parts } = deps;
  const tell = tellOf(deps);

  const failStart = (
    context: OperationContext,
    known: ContainerMemory,
    name: string,
    reason: string,
    message: string,
  ): void => {
    known.failures++;
    if (known.failures === 1) deps.count?.(context.pod, 'failed');
    deps.startFailed?.(context.pod, name, reason, message);
    known.trouble = troubleAfter(clock, context, name, reason, message, known.trouble);
    tell(context.pod, name, 'Warning', 'Failed', `Error: ${message}`);
  };

  return async (context, operation, signal) => {
    const { pod, memory, observed } = context;
    const { container: name, attempt, sandboxId } = operation;
    const container = containerNamed(pod, name);
    const sandbox = observed.sandboxes.find((each) => each.id === sandboxId);
    const known = memoryOf(memory, name);
    if (!container || !sandbox || !known.image) return;
    let made: { config: ContainerConfig; sandboxConfig: SandboxConfig };
    try {
      made = await parts.container({ pod, container, attempt, sandbox, observed, image: known.image }, signal);
    } catch (error) {
      failStart(
        context,
        known,
        name,
        isReasoned(error) ? error.reason : 'CreateContainerConfigError',
        describeError(error),
      );
      return;
    }
    let id: ContainerId;
    try {
      id = await runtime.createContainer(sandboxId, made.config, made.sandboxConfig);
    } catch (error) {
      // The image may have gone between the look and the use.
      known.image = undefined;
      // A name that stays taken though the runtime shows nobody by it belongs to a call that hangs: the next attempt has another.
      if (nameTaken(error) && known.failures >= takenTries - 1) known.leastAttempt = attempt + 1;
      failStart(context, known, name, 'CreateContainerError', wordsOf(error));
      return;
    }
    if (operation.after) {
      const { id: before, lingers } = operation.after;
      if (lingers && !(await context.ended(before, signal)))
        throw new Error(
          `the runtime shows container ${before} running though its process has ended; ${id} is not started`,
        );
      if (memory.termination) return;
    }
    parts.created(pod, container, id);
    tell(pod, name, 'Normal', 'Created', 'Container created');
    try {
      await runtime.startContainer(id);
    } catch (error) {
      failStart(context, known, name, 'RunContainerError', wordsOf(error));
      return;
    }
    parts.started(pod, container, id, `${made.sandboxConfig.logDirectory}/${made.config.logPath}`);
    tell(pod, name, 'Normal', 'Started', 'Container started');
    known.trouble = undefined;
    known.failures = 0;
    // The next start looks at the image again, as its pull policy says.
    known.image = undefined;
    known.kill = undefined;
    context.memory.startDelays.reset(name);
    context.touched({ container: id, sandboxId });
  };
}
