// One try of one probe: what was found, in the words Kubernetes uses.
import { isDeadline, isNotFound } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId } from '../../cri/types.ts';
import { TimeoutError } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Container, HttpGetAction, Probe } from '../../kube/types/pod.ts';
import { expand } from '../containers/expansion.ts';
import { hostPort } from './addresses.ts';
import { checkHealth, codeName, serving, statusName, unimplemented } from './grpc-health.ts';
import { HttpGetError, startHttpGet } from './http-get.ts';
import type { HttpResponse } from './http-response.ts';
import { type HttpTarget, httpTarget, urlOf } from './http-target.ts';
import { patiently, withPatience } from './patience.ts';
import { resolvePort } from './ports.ts';
import { startTcp } from './tcp.ts';

export type ProbeOutcome =
  | { readonly kind: 'success' }
  /** Counts as a success; the message is for an Event. */
  | { readonly kind: 'warning'; readonly message: string }
  | { readonly kind: 'failure'; readonly message: string; readonly timedOut?: boolean }
  /** The probe could not be made: it says nothing of the container. */
  | { readonly kind: 'error'; readonly message: string }
  /** The container is not there any more. */
  | { readonly kind: 'gone' };

export interface AttemptDeps {
  readonly runtime: Pick<Runtime, 'execSync'>;
  readonly clock: Clock;
}

export interface ProbeTarget {
  readonly container: Container;
  readonly id: ContainerId;
  readonly probe: Probe;
  readonly podIp: string;
}

const success: ProbeOutcome = { kind: 'success' };
const failure = (message: string): ProbeOutcome => ({ kind: 'failure', message });
const timeout = (message: string): ProbeOutcome => ({ kind: 'failure', message, timedOut: true });
const because = (error: unknown): string => (error instanceof Error ? error.message : String(error));

export const timeoutMsOf = (probe: Probe): number => (probe.timeoutSeconds || 1) * 1000;

const maxOutputBytes = 10 * 1024;

async function tryExec(deps: AttemptDeps, target: ProbeTarget, signal: AbortSignal): Promise<ProbeOutcome> {
  const { container, id, probe } = target;
  // Only what the spec says literally: the runtime's environment is not known here.
  const values = new Map((container.env ?? []).map(({ name, value }) => [name, value ?? '']));
  const command = (probe.exec?.command ?? []).map((part) => expand(part, (name) => values.get(name)));
  const timeoutMs = timeoutMsOf(probe);
  const late = `command timed out: "${command.join(' ')}" timed out after ${timeoutMs / 1000}s`;
  try {
    const result = await withPatience(deps.clock, 'exec probe', timeoutMs + 500, signal, (inner) =>
      deps.runtime.execSync(id, command, { timeoutMs, signal: inner }),
    );
    if (result.exitCode === 0) return success;
    const output = Buffer.concat([result.stdout, result.stderr]).subarray(0, maxOutputBytes);
    return failure(output.toString('utf8'));
  } catch (error) {
    signal.throwIfAborted();
    if (isDeadline(error) || error instanceof TimeoutError) return timeout(late);
    if (isNotFound(error)) return { kind: 'gone' };
    return { kind: 'error', message: because(error) };
  }
}

interface KnownTarget {
  readonly container: Container;
  readonly podIp: string;
  readonly to: HttpTarget;
}

const knownTargets = new WeakMap<HttpGetAction, KnownTarget>();

/** The same action of the same container is tried every period. */
function targetOf(action: HttpGetAction, container: Container, podIp: string): HttpTarget {
  const known = knownTargets.get(action);
  if (known?.container === container && known.podIp === podIp) return known.to;
  const to = httpTarget(action, container, podIp, 'probe');
  knownTargets.set(action, { container, podIp, to });
  return to;
}

function judge(result: HttpResponse | HttpGetError): ProbeOutcome {
  if (result instanceof HttpGetError) return failure(result.message);
  if (result.status >= 200 && result.status < 300) return success;
  if (result.status >= 300 && result.status < 400)
    return { kind: 'warning', message: `Probe terminated redirects, Response body: ${result.body}` };
  return failure(`HTTP probe failed with statuscode: ${result.status}`);
}

type Settle = (outcome: ProbeOutcome) => void;

function startHttp(deps: AttemptDeps, target: ProbeTarget, settle: Settle): () => void {
  const to = targetOf(target.probe.httpGet!, target.container, target.podIp);
  return patiently<ProbeOutcome>(
    deps.clock,
    timeoutMsOf(target.probe),
    () => timeout(`Get "${urlOf(to)}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)`),
    (settled) => startHttpGet(to, 'same-host', (result) => settled(judge(result))),
    settle,
  );
}

function startTcpSocket(deps: AttemptDeps, target: ProbeTarget, settle: Settle): () => void {
  const action = target.probe.tcpSocket!;
  const host = action.host || target.podIp;
  const port = resolvePort(action.port, target.container);
  return patiently<ProbeOutcome>(
    deps.clock,
    timeoutMsOf(target.probe),
    () => timeout(`dial tcp ${hostPort(host, port)}: i/o timeout`),
    (settled) => startTcp(host, port, (why) => settled(why === undefined ? success : failure(why))),
    settle,
  );
}

async function tryGrpc(deps: AttemptDeps, target: ProbeTarget, signal: AbortSignal): Promise<ProbeOutcome> {
  const { port, service = '' } = target.probe.grpc!;
  const seconds = timeoutMsOf(target.probe) / 1000;
  try {
    const answer = await withPatience(deps.clock, 'grpc probe', seconds * 1000, signal, (inner) =>
      checkHealth(target.podIp, port, service, inner),
    );
    if (answer.kind === 'unreachable')
      return failure(
        `timeout: failed to connect service "${hostPort(target.podIp, port)}" within ${seconds}s: ${answer.detail}`,
      );
    if (answer.kind === 'status')
      return answer.status === serving
        ? success
        : failure(`service unhealthy (responded with "${statusName(answer.status)}")`);
    if (answer.code === unimplemented)
      return failure(
        `error: this server does not implement the grpc health protocol (grpc.health.v1.Health): ${answer.message}`,
      );
    return failure(
      `error: health rpc probe failed: rpc error: code = ${codeName(answer.code)} desc = ${answer.message}`,
    );
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof TimeoutError) return timeout(`timeout: health rpc did not complete within ${seconds}s`);
    throw error;
  }
}

/** For what takes a signal and is tried seldom. */
function startPromised(attempt: (signal: AbortSignal) => Promise<ProbeOutcome>, settle: Settle): () => void {
  const abort = new AbortController();
  attempt(abort.signal).then(
    (outcome) => {
      if (!abort.signal.aborted) settle(outcome);
    },
    (error: unknown) => {
      if (!abort.signal.aborted) settle({ kind: 'error', message: because(error) });
    },
  );
  return () => abort.abort();
}

/** Starts one try. `settle` is called once, later, and never after the function that is returned, which gives the try up. */
export function startProbe(deps: AttemptDeps, target: ProbeTarget, settle: Settle): () => void {
  const { probe } = target;
  try {
    if (probe.exec) return startPromised((signal) => tryExec(deps, target, signal), settle);
    if (probe.httpGet) return startHttp(deps, target, settle);
    if (probe.tcpSocket) return startTcpSocket(deps, target, settle);
    if (probe.grpc) return startPromised((signal) => tryGrpc(deps, target, signal), settle);
    throw new Error(`missing probe handler for ${target.container.name}`);
  } catch (error) {
    // What cannot even be asked, for example a port of no name.
    return startPromised(() => Promise.reject(error), settle);
  }
}
