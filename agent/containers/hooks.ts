// Lifecycle hooks: what a container is to be told, or given time for, after its start and before its stop.
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId } from '../../cri/types.ts';
import { type EventRecorder, podTarget } from '../../kube/events.ts';
import type { Container, LifecycleHandler, Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { hostPort } from '../probes/addresses.ts';
import { HttpGetError, httpGet } from '../probes/http-get.ts';
import { type HttpTarget, httpTarget } from '../probes/http-target.ts';
import { podName } from './config-error.ts';

export interface HookDeps {
  readonly runtime: Pick<Runtime, 'execSync'>;
  readonly clock: Clock;
  readonly events: EventRecorder;
  readonly log: Log;
  /** For metrics. */
  readonly counted?: { fellBackToHttp(): void; sleepCutShort(): void };
}

export interface Hook {
  readonly kind: 'postStart' | 'preStop';
  readonly pod: Pod;
  readonly container: Container;
  readonly containerId: ContainerId;
  /** The pod's primary address; empty where it has none. */
  readonly podIp: string;
  readonly handler: LifecycleHandler;
}

/** A hook that ran and failed, or could not run. The message is the kubelet's; it may hold secrets and is for the log only. */
export class HookError extends Error {
  override name = 'HookError';
}

// A hook has no time of its own: it ends with the container's grace, by the signal.
const unlimitedMs = 24 * 3600 * 1000;

const because = (error: unknown): string => (error instanceof Error ? error.message : String(error));

async function runExec(deps: HookDeps, hook: Hook, signal: AbortSignal): Promise<void> {
  const command = hook.handler.exec?.command ?? [];
  const failed = (why: string, output: string): HookError =>
    new HookError(
      `Exec lifecycle hook ([${command.join(' ')}]) for Container "${hook.container.name}" in Pod "${podName(hook.pod)}" failed - error: ${why}, message: ${JSON.stringify(output)}`,
    );
  let result: Awaited<ReturnType<Runtime['execSync']>>;
  try {
    result = await deps.runtime.execSync(hook.containerId, command, { timeoutMs: unlimitedMs, signal });
  } catch (error) {
    signal.throwIfAborted();
    throw failed(because(error), '');
  }
  if (result.exitCode === 0) return;
  const [stdout, stderr] = [result.stdout, result.stderr].map((bytes) => Buffer.from(bytes).toString('utf8'));
  throw failed(`command '${command.join(' ')}' exited with ${result.exitCode}: ${stderr}`, `${stdout}${stderr}`);
}

async function getWithFallback(deps: HookDeps, hook: Hook, target: HttpTarget, signal: AbortSignal): Promise<void> {
  try {
    // Whatever the status: the request was heard.
    await httpGet(target, 'same-host', signal);
  } catch (error) {
    if (!(error instanceof HttpGetError && error.code === 'plain-http')) throw error;
    const headers = target.headers.filter(([name]) => name.toLowerCase() !== 'authorization');
    await httpGet({ ...target, scheme: 'http', headers }, 'same-host', signal).catch((second: unknown) => {
      signal.throwIfAborted();
      deps.log.debug('the lifecycle hook does not speak HTTP either', { error: second });
      throw error;
    });
    deps.counted?.fellBackToHttp();
    deps.events.record(
      podTarget(hook.pod),
      'Warning',
      'LifecycleHTTPFallback',
      `request to HTTPS lifecycle hook ${hostPort(target.host, target.port)} got HTTP response, retry with HTTP succeeded`,
    );
  }
}

async function runHttp(deps: HookDeps, hook: Hook, signal: AbortSignal): Promise<void> {
  const action = hook.handler.httpGet!;
  try {
    if (!action.host && hook.podIp === '')
      throw new Error('failed to find networking container: the pod has no address');
    await getWithFallback(deps, hook, httpTarget(action, hook.container, hook.podIp, 'lifecycle'), signal);
  } catch (error) {
    signal.throwIfAborted();
    throw new HookError(
      `HTTP lifecycle hook (${action.path ?? ''}) for Container "${hook.container.name}" in Pod "${podName(hook.pod)}" failed - error: ${because(error)}`,
      { cause: error },
    );
  }
}

async function run(deps: HookDeps, hook: Hook, signal: AbortSignal): Promise<void> {
  const { handler } = hook;
  if (handler.exec) return runExec(deps, hook, signal);
  if (handler.httpGet) return runHttp(deps, hook, signal);
  if (handler.sleep) {
    return deps.clock.sleep(handler.sleep.seconds * 1000, signal).catch((error: unknown) => {
      deps.counted?.sleepCutShort();
      throw error;
    });
  }
  throw new HookError(`Cannot run handler: invalid handler: ${JSON.stringify(handler)}`);
}

/**
 * Runs a hook to its end. A failure is recorded as an Event FailedPostStartHook or FailedPreStopHook, without its message, and rejects with
 * a HookError. Aborting (the grace period is over) rejects with the signal's reason and is no failure.
 */
export async function runHook(deps: HookDeps, hook: Hook, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted();
  try {
    await run(deps, hook, signal);
  } catch (error) {
    signal.throwIfAborted();
    const name = hook.kind === 'postStart' ? 'PostStartHook' : 'PreStopHook';
    deps.log.warn(`${name} failed`, { pod: podName(hook.pod), container: hook.container.name, error });
    const isInit = hook.pod.spec.initContainers?.some((each) => each.name === hook.container.name) ?? false;
    const field = `spec.${isInit ? 'initContainers' : 'containers'}{${hook.container.name}}`;
    deps.events.record(podTarget(hook.pod, field), 'Warning', `Failed${name}`, `${name} failed`);
    throw error;
  }
}
