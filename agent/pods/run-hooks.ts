// The hooks of a container: after its start and before its stop.
import { abandonOn, CancelledError, isTimeout, withTimeout } from '../../lib/abort.ts';
import { describeError } from '../../lib/log.ts';
import type { ExecuteDeps, Handlers, OperationContext } from './handling.ts';
import { memoryOf } from './memory.ts';
import { containerNamed } from './named.ts';

/** Longer than the least time between the stop signal and the kill: by then no process of the hook is left. */
const leftToItselfMs = 30_000;

export function createHooks(deps: ExecuteDeps): Handlers<'run-post-start' | 'run-pre-stop'> {
  const { clock, parts } = deps;

  const podIpOf = ({ observed }: OperationContext): string | undefined =>
    observed.sandboxes.find((sandbox) => sandbox.state === 'ready')?.ips[0];

  return {
    'run-post-start': async (context, { container: name, id }, signal) => {
      const { pod, memory } = context;
      const container = containerNamed(pod, name);
      const known = memoryOf(memory, name);
      if (!container) return;
      try {
        await parts.hook('postStart', { pod, container, id, podIp: podIpOf(context) }, signal);
        known.postStartDone = id;
      } catch (error) {
        if (signal.aborted) return;
        deps.log.warn('a postStart hook failed; the container is stopped and its restart policy decides', {
          pod: `${pod.metadata.namespace}/${pod.metadata.name}`,
          container: name,
          error,
        });
        known.postStartFailed = id;
        known.trouble = {
          reason: 'PostStartHookError',
          message: describeError(error),
          sinceMs: clock.now(),
          retryAtMs: clock.now(),
        };
      }
    },

    'run-pre-stop': async (context, { container: name, id, deadlineMs }, signal) => {
      const { pod, memory } = context;
      const container = containerNamed(pod, name);
      const known = memoryOf(memory, name);
      if (!container) return;
      // A hook that outlives its time is waited for no more, and goes on until its container is killed, as the kubelet has it.
      const own = new AbortController();
      try {
        const hook = parts.hook('preStop', { pod, container, id, podIp: podIpOf(context) }, own.signal);
        await withTimeout(clock, 'preStop hook', Math.max(1, deadlineMs - clock.now()), signal, (inner) =>
          abandonOn(hook, inner),
        );
      } catch (error) {
        // One that has failed by itself is over.
        if (signal.aborted || isTimeout(error))
          clock.setTimer(leftToItselfMs, () => own.abort(new CancelledError('its container is gone')));
        if (!signal.aborted) {
          deps.log.info('a preStop hook failed; the container is stopped without it', {
            pod: `${pod.metadata.namespace}/${pod.metadata.name}`,
            container: name,
            error,
          });
        }
      }
      known.preStopDone = id;
    },
  };
}
