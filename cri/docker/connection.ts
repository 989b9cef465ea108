// Calls of Docker Engine's API with deadlines, and its answers as RuntimeErrors. The only file that reads either.
import Docker from 'dockerode';
import { isTimeout, withTimeout } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import { RuntimeError, type RuntimeErrorCode } from '../errors.ts';
import type { CallOptions } from '../runtime.ts';

/** Calls that take a signal though their typings do not say so. */
interface Abortable {
  info(options: { abortSignal: AbortSignal }): Promise<unknown>;
  version(options: { abortSignal: AbortSignal }): Promise<Docker.DockerVersion>;
  ping(options: { abortSignal: AbortSignal }): Promise<unknown>;
}

/** Options with a signal, for calls whose typings know none. */
export const abortable = <T extends object>(abortSignal: AbortSignal, options: T): T =>
  Object.assign(options, { abortSignal });

export interface DockerConnection {
  readonly docker: Docker;
  readonly daemon: Abortable;
  /**
   * Runs one call (or several that belong together) under `name`, which is the CRI's. The work is handed a signal that ends its requests;
   * `timeoutMs` 0 means no deadline. Rejects with a RuntimeError.
   */
  call<T>(
    name: string,
    options: CallOptions | undefined,
    timeoutMs: number,
    work: (signal: AbortSignal) => Promise<T>,
  ): Promise<T>;
}

export function openDocker(clock: Clock, socketPath: string): DockerConnection {
  // DOCKER_HOST and its kin must not lead elsewhere than to the socket that was named.
  const elsewhere: Record<string, undefined> = { host: undefined, port: undefined, ca: undefined, timeout: undefined };
  const docker = new Docker({ ...elsewhere, socketPath, protocol: 'http' });
  return {
    docker,
    daemon: docker as unknown as Abortable,
    async call(name, options, defaultMs, work) {
      const timeoutMs = options?.timeoutMs ?? defaultMs;
      const signal = options?.signal;
      try {
        if (signal?.aborted) throw signal.reason;
        if (timeoutMs > 0) return await withTimeout(clock, name, timeoutMs, signal, work);
        return await work(signal ?? new AbortController().signal);
      } catch (error) {
        if (signal?.aborted) throw new RuntimeError('aborted', name, 'cancelled', error);
        throw classifyError(name, error);
      }
    },
  };
}

interface ModemError {
  readonly statusCode?: number;
  readonly reason?: string;
  readonly json?: { readonly message?: string } | null;
  readonly code?: string;
  readonly message: string;
}

const byStatus: Readonly<Record<number, RuntimeErrorCode>> = {
  400: 'invalid',
  401: 'unauthorized',
  403: 'unauthorized',
  404: 'not-found',
  409: 'invalid',
  501: 'unimplemented',
  503: 'unavailable',
};

const words: readonly (readonly [RegExp, RuntimeErrorCode])[] = [
  [/is already in use by container|already exists/i, 'already-exists'],
  [/no such (container|image|exec)|manifest unknown|manifest for .* not found/i, 'not-found'],
  [/unauthorized|authentication required|access denied|no basic auth credentials|denied:/i, 'unauthorized'],
  [/\bnot[ _]found\b|name unknown/i, 'not-found'],
  [/context deadline exceeded|i\/o timeout|Client\.Timeout/i, 'deadline'],
  [/no space left on device/i, 'resource-exhausted'],
];

const unreachable = new Set(['ENOENT', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'EACCES', 'ENOTSOCK', 'ETIMEDOUT']);

/** What Docker itself said, without what the client wraps around it. */
export function wordsOf(error: unknown): string {
  const { json, reason, message } = error as ModemError;
  return (json?.message || message || reason || String(error)).trim();
}

export const statusOf = (error: unknown): number | undefined => (error as ModemError | undefined)?.statusCode;

/** `call` is the CRI's name of what was tried. */
export function classifyError(call: string, error: unknown): RuntimeError {
  if (error instanceof RuntimeError) return error;
  if (isTimeout(error)) return new RuntimeError('deadline', call, `no answer within ${error.timeoutMs} ms`, error);
  const { statusCode, code } = error as ModemError;
  const said = wordsOf(error);
  return new RuntimeError(codeOf(statusCode, code, said), call, said, error);
}

export function codeOf(status: number | undefined, code: string | undefined, said: string): RuntimeErrorCode {
  if (status === undefined) {
    if ((code !== undefined && unreachable.has(code)) || /socket hang up/.test(said)) return 'unavailable';
    return words.find(([pattern]) => pattern.test(said))?.[1] ?? 'unknown';
  }
  if (status === 404) return 'not-found';
  return words.find(([pattern]) => pattern.test(said))?.[1] ?? byStatus[status] ?? 'unknown';
}

/** Docker answers 304 where there is nothing to do and 404 where the thing is gone: both are what was wanted. */
export function alreadySo(error: unknown): void {
  const status = statusOf(error);
  if (status !== 304 && status !== 404) throw error;
}
