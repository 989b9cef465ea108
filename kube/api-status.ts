// Turns the API server's refusals into ApiErrors.
import { ApiError, type ApiErrorCode } from './errors.ts';
import type { Status } from './types/meta.ts';

export interface Refusal {
  /** What was attempted: `get /api/v1/nodes/n1`. */
  readonly what: string;
  readonly status: number;
  /** The body, as it came. */
  readonly text: string;
  /** The header, as it came. */
  readonly retryAfter?: string | undefined;
}

export function codeOf(status: number, reason: string | undefined): ApiErrorCode {
  if (status === 401) return 'unauthorized';
  if (status === 403) return 'forbidden';
  if (status === 404) return 'not-found';
  if (status === 409) return reason === 'AlreadyExists' ? 'already-exists' : 'conflict';
  if (status === 410 || reason === 'Expired' || reason === 'Gone') return 'gone';
  if (status === 405 || status === 406 || status === 415) return 'not-supported';
  if (status === 408) return 'timeout';
  if (status === 429) return 'too-many-requests';
  if (status === 504 && reason === 'Timeout') return 'timeout';
  if (status >= 400 && status < 500) return 'invalid';
  return 'server';
}

/** The error for an answer that is not 2xx. */
export function refusalToError(refusal: Refusal): ApiError {
  const body = parseStatus(refusal.text);
  const words = body?.message || refusal.text.trim().slice(0, 500) || 'no explanation';
  return new ApiError(codeOf(refusal.status, body?.reason), `${refusal.what}: ${words} (HTTP ${refusal.status})`, {
    status: refusal.status,
    reason: body?.reason,
    retryAfterMs: retryAfterMs(refusal.retryAfter, body),
    body,
  });
}

/** The error for a Status that came inside an answer, as a watch's ERROR event does. */
export function statusToError(what: string, status: Status): ApiError {
  const code = status.code ?? 500;
  return new ApiError(codeOf(code, status.reason), `${what}: ${status.message || status.reason || 'no explanation'}`, {
    status: code,
    reason: status.reason,
    retryAfterMs: retryAfterMs(undefined, status),
    body: status,
  });
}

function parseStatus(text: string): Status | undefined {
  if (!text.startsWith('{')) return undefined;
  try {
    const value = JSON.parse(text) as Status;
    return value.kind === 'Status' ? value : undefined;
  } catch {
    return undefined;
  }
}

function retryAfterMs(header: string | undefined, body: Status | undefined): number | undefined {
  const seconds = header !== undefined && /^\d+$/.test(header) ? Number(header) : body?.details?.retryAfterSeconds;
  return seconds === undefined || seconds <= 0 ? undefined : seconds * 1000;
}
