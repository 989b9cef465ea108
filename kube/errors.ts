// What the API server, or the way to it, can answer instead of what was asked. Classed here, where the bytes arrive.
import type { Status } from './types/meta.ts';

export type ApiErrorCode =
  | 'unreachable' // no connection, or it broke
  | 'timeout'
  | 'unauthorized' // 401
  | 'forbidden' // 403
  | 'not-found' // 404
  | 'already-exists' // 409, reason AlreadyExists
  | 'conflict' // 409
  | 'gone' // 410, the resourceVersion is too old
  | 'invalid' // 400, 422
  | 'too-many-requests' // 429
  | 'not-supported' // 405, 406, 415
  | 'server'; // 5xx, or an answer that makes no sense

export interface ApiErrorDetails {
  /** HTTP status; undefined where no answer came. */
  readonly status?: number | undefined;
  /** The API's own reason, for example `NotFound`. */
  readonly reason?: string | undefined;
  readonly retryAfterMs?: number | undefined;
  readonly body?: Status | undefined;
  readonly cause?: unknown;
}

/** A call of the API that did not do what was asked. The message says the verb, the path and the server's words. */
export class ApiError extends Error {
  override name = 'ApiError';
  readonly code: ApiErrorCode;
  readonly status: number | undefined;
  readonly reason: string | undefined;
  readonly retryAfterMs: number | undefined;
  readonly body: Status | undefined;
  constructor(code: ApiErrorCode, message: string, details: ApiErrorDetails = {}) {
    super(message, { cause: details.cause });
    this.code = code;
    this.status = details.status;
    this.reason = details.reason;
    this.retryAfterMs = details.retryAfterMs;
    this.body = details.body;
  }
}

const longestAskedMs = 30_000;

/** How long the server asked to be left alone, in milliseconds, half a minute at most; 0 where it did not. */
export const askedToWaitMs = (error: unknown): number =>
  error instanceof ApiError ? Math.min(error.retryAfterMs ?? 0, longestAskedMs) : 0;

const has =
  (...codes: ApiErrorCode[]) =>
  (error: unknown): error is ApiError =>
    error instanceof ApiError && codes.includes(error.code);

export const isNotFound = has('not-found');
export const isAlreadyExists = has('already-exists');
export const isConflict = has('conflict');
export const isGone = has('gone');
export const isForbidden = has('forbidden');
export const isInvalid = has('invalid');
export const isUnreachable = has('unreachable', 'timeout');
