// What a pod needs before its containers: volumes, a sandbox, images.
import { RuntimeError } from '../../cri/errors.ts';
import { describeError } from '../../lib/log.ts';
import { type ExecuteDeps, type Handlers, nameTaken, takenTries, tellOf, troubleAfter } from './handling.ts';
import { memoryOf } from './memory.ts';
import { containerNamed } from './named.ts';
import { isReasoned } from './pod-parts.ts';

export function createBringUp(deps: ExecuteDeps): Handlers<'set-up-volumes' | 'run-sandbox' | 'pull-image'> {
  const { runtime, clock, parts } = deps;
  const tell = tellOf(deps);
  return {
    'set-up-volumes': async (context, _operation, signal) => {
      const { pod, memory } = context;
      try {
        await parts.prepare(pod);
        await parts.setUpVolumes(pod, signal);
        memory.volumesUp = true;
        memory.volumeTrouble = undefined;
        memory.startDelays.reset(' volumes');
      } catch (error) {
        if (signal.aborted) return;
        const message = describeError(error);
        const reason = isReasoned(error) ? error.reason : 'FailedMount';
        // What runs already has its volumes.
        if (reason === 'VolumeAttachmentLimitExceeded' && context.observed.containers.length === 0) {
          memory.admission = { admitted: false, reason, message };
          deps.refused?.(reason);
        }
        memory.volumeTrouble = troubleAfter(clock, context, ' volumes', reason, message, memory.volumeTrouble);
        tell(pod, undefined, 'Warning', reason, message);
      }
    },

    'run-sandbox': async (context, { attempt }, signal) => {
      const { pod, memory } = context;
      deps.count?.(pod, 'begun');
      try {
        if (attempt > 0)
          tell(pod, undefined, 'Normal', 'SandboxChanged', 'Pod sandbox changed, it will be killed and re-created.');
        await parts.prepare(pod);
        const { config, runtimeHandler } = await parts.sandbox(pod, attempt);
        const sandbox = await runtime.runSandbox(config, runtimeHandler, { beginUnless: signal });
        context.touched({ sandbox });
        memory.sandboxTrouble = undefined;
        memory.sandboxNames = { ...memory.sandboxNames, taken: 0 };
        memory.startDelays.reset(' sandbox');
      } catch (error) {
        // It had not begun, and is not wanted any more.
        if (signal.aborted && error === signal.reason) return;
        deps.count?.(pod, 'failed');
        const taken = nameTaken(error) ? memory.sandboxNames.taken + 1 : 0;
        memory.sandboxNames = {
          least: taken >= takenTries ? attempt + 1 : memory.sandboxNames.least,
          taken: taken >= takenTries ? 0 : taken,
        };
        const message = `Failed to create pod sandbox: ${error instanceof RuntimeError ? `rpc error: ${error.detail}` : describeError(error)}`;
        memory.sandboxTrouble = troubleAfter(
          clock,
          context,
          ' sandbox',
          'FailedCreatePodSandBox',
          message,
          memory.sandboxTrouble,
        );
        tell(pod, undefined, 'Warning', 'FailedCreatePodSandBox', message);
      }
    },

    'pull-image': async (context, { container: name }, signal) => {
      const { pod, memory } = context;
      const container = containerNamed(pod, name);
      if (!container) return;
      const known = memoryOf(memory, name);
      try {
        known.image = await parts.image(pod, container, signal);
        if (known.trouble && /Image|Inspect|Registry/.test(known.trouble.reason)) known.trouble = undefined;
      } catch (error) {
        if (signal.aborted) return;
        known.trouble = troubleAfter(
          clock,
          context,
          name,
          isReasoned(error) ? error.reason : 'ErrImagePull',
          describeError(error),
          known.trouble,
          isReasoned(error) ? error.retryAfterMs : undefined,
        );
      }
    },
  };
}
