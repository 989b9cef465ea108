// gRPC's answers, and the words of containerd and CRI-O behind them, as RuntimeErrors. The only file that reads either.
import { status } from '@grpc/grpc-js';
import { RuntimeError, type RuntimeErrorCode } from '../errors.ts';

const codes: Partial<Record<number, RuntimeErrorCode>> = {
  [status.CANCELLED]: 'aborted',
  [status.INVALID_ARGUMENT]: 'invalid',
  [status.DEADLINE_EXCEEDED]: 'deadline',
  [status.NOT_FOUND]: 'not-found',
  [status.ALREADY_EXISTS]: 'already-exists',
  [status.PERMISSION_DENIED]: 'unauthorized',
  [status.RESOURCE_EXHAUSTED]: 'resource-exhausted',
  [status.FAILED_PRECONDITION]: 'invalid',
  [status.ABORTED]: 'aborted',
  [status.OUT_OF_RANGE]: 'invalid',
  [status.UNIMPLEMENTED]: 'unimplemented',
  [status.UNAVAILABLE]: 'unavailable',
  [status.UNAUTHENTICATED]: 'unauthorized',
};

// Where the code says nothing (containerd wraps many errors as UNKNOWN), the words do.
const words: readonly (readonly [RegExp, RuntimeErrorCode])[] = [
  [/already exists/i, 'already-exists'],
  [/context deadline exceeded|timeout .* exceeded|timed out/i, 'deadline'],
  [/no such (container|sandbox|image|task)|could not find container|does not exist/i, 'not-found'],
  [/(container|sandbox|task|image) .*not found|not found: not found/i, 'not-found'],
];

const reservedName = /name ".*" is reserved for|name is reserved/i;
const registryRefusal =
  /\b401\b|\b403\b|unauthorized|authorization failed|authentication required|access denied|denied:/i;

interface ServiceErrorLike {
  readonly code: number;
  readonly details: string;
}

const isServiceError = (error: unknown): error is ServiceErrorLike =>
  error instanceof Error && typeof (error as { code?: unknown }).code === 'number' && 'details' in error;

/** `call` is the CRI call. Errors that do not come from gRPC are `unknown`. */
export function classifyError(call: string, error: unknown): RuntimeError {
  if (error instanceof RuntimeError) return error;
  if (!isServiceError(error))
    return new RuntimeError('unknown', call, String((error as Error)?.message ?? error), error);
  return new RuntimeError(codeOf(call, error), call, error.details, error);
}

function codeOf(call: string, { code, details }: ServiceErrorLike): RuntimeErrorCode {
  // A registry that refuses comes as UNKNOWN, NOT_FOUND or PERMISSION_DENIED, by version.
  if (call === 'PullImage' && code !== status.UNAVAILABLE && registryRefusal.test(details)) return 'unauthorized';
  // FAILED_PRECONDITION since 2.0, UNKNOWN before.
  if (reservedName.test(details)) return 'already-exists';
  const known = codes[code];
  if (known) return known;
  return words.find(([pattern]) => pattern.test(details))?.[1] ?? 'unknown';
}
