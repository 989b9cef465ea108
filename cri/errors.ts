// What a runtime can answer instead of what was asked. Classed where the bytes arrive, in the adapters.

export type RuntimeErrorCode =
  | 'unavailable' // the socket cannot be reached, or the connection broke
  | 'deadline' // no answer in time
  | 'not-found'
  | 'already-exists' // names reserved by an earlier, half-done call included
  | 'invalid' // the runtime refuses what was asked
  | 'unimplemented'
  | 'unauthorized' // a registry wants other credentials
  | 'resource-exhausted'
  | 'aborted'
  | 'unknown';

/** A call of the runtime that did not do what was asked. The message says the call, on what, and the runtime's words. */
export class RuntimeError extends Error {
  override name = 'RuntimeError';
  readonly code: RuntimeErrorCode;
  /** The CRI call, for example `RunPodSandbox`. */
  readonly call: string;
  /** The runtime's own words, without our prefix: they belong in a pod's status. */
  readonly detail: string;
  constructor(code: RuntimeErrorCode, call: string, detail: string, cause?: unknown) {
    super(`${call}: ${detail}`, { cause });
    this.code = code;
    this.call = call;
    this.detail = detail;
  }
}

const has =
  (...codes: RuntimeErrorCode[]) =>
  (error: unknown): error is RuntimeError =>
    error instanceof RuntimeError && codes.includes(error.code);

export const isNotFound = has('not-found');
export const isUnavailable = has('unavailable', 'deadline');
export const isDeadline = has('deadline');
export const isUnimplemented = has('unimplemented');
