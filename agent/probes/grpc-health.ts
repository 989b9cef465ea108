// grpc.health.v1.Health/Check over HTTP/2 without TLS. The two messages have one field each, so neither a code generator nor a gRPC
// channel with its reconnecting and resolving is worth having for one call a second.
import { type ClientHttp2Session, connect, constants } from 'node:http2';
import { hostPort } from './addresses.ts';

export type HealthAnswer =
  | { readonly kind: 'status'; readonly status: number }
  /** The server answered with a gRPC error. */
  | { readonly kind: 'error'; readonly code: number; readonly message: string }
  /** No connection was had, or it broke. */
  | { readonly kind: 'unreachable'; readonly detail: string };

export const serving = 1;
const statusNames = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN'];
export const statusName = (status: number): string => statusNames[status] ?? String(status);

const codeNames = [
  'OK',
  'Canceled',
  'Unknown',
  'InvalidArgument',
  'DeadlineExceeded',
  'NotFound',
  'AlreadyExists',
  'PermissionDenied',
  'ResourceExhausted',
  'FailedPrecondition',
  'Aborted',
  'OutOfRange',
  'Unimplemented',
  'Internal',
  'Unavailable',
  'DataLoss',
  'Unauthenticated',
];
export const unimplemented = 12;
export const codeName = (code: number): string => codeNames[code] ?? `Code(${code})`;

function varint(value: number): number[] {
  const bytes: number[] = [];
  let rest = value;
  while (rest > 0x7f) {
    bytes.push((rest & 0x7f) | 0x80);
    rest >>>= 7;
  }
  bytes.push(rest);
  return bytes;
}

/** HealthCheckRequest{service} in a gRPC frame. */
export function encodeRequest(service: string): Buffer {
  const name = Buffer.from(service);
  const message =
    name.length === 0 ? Buffer.alloc(0) : Buffer.concat([Buffer.from([0x0a, ...varint(name.length)]), name]);
  const prefix = Buffer.alloc(5);
  prefix.writeUInt32BE(message.length, 1);
  return Buffer.concat([prefix, message]);
}

/** The status of a HealthCheckResponse in a gRPC frame; undefined where it is none. An absent field is 0, UNKNOWN. */
export function decodeResponse(frame: Buffer): number | undefined {
  if (frame.length < 5 || frame[0] !== 0) return undefined;
  const message = frame.subarray(5, 5 + frame.readUInt32BE(1));
  let at = 0;
  const read = (): number | undefined => {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = message[at++];
      if (byte === undefined) return undefined;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
    return undefined;
  };
  let status = 0;
  while (at < message.length) {
    const key = read();
    if (key === undefined) return undefined;
    const value = read();
    if (value === undefined) return undefined;
    if (key === 0x08) status = value;
    else if ((key & 7) === 2) at += value;
    else if ((key & 7) !== 0) return undefined;
  }
  return status;
}

const text = (value: unknown): string =>
  Array.isArray(value) ? String(value[0]) : value === undefined ? '' : String(value);

function percentDecode(value: string): string {
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

function ask(session: ClientHttp2Session, service: string, authority: string): Promise<HealthAnswer> {
  return new Promise((resolve) => {
    const stream = session.request({
      [constants.HTTP2_HEADER_METHOD]: 'POST',
      [constants.HTTP2_HEADER_PATH]: '/grpc.health.v1.Health/Check',
      [constants.HTTP2_HEADER_AUTHORITY]: authority,
      'content-type': 'application/grpc',
      'user-agent': 'kube-probe/1.36',
      te: 'trailers',
    });
    const chunks: Buffer[] = [];
    let status: HealthAnswer | undefined;
    let httpStatus = 0;
    const take = (headers: Readonly<Record<string, unknown>>): void => {
      const code = headers['grpc-status'];
      if (code === undefined) return;
      const number = Number(text(code));
      if (number !== 0) status = { kind: 'error', code: number, message: percentDecode(text(headers['grpc-message'])) };
    };
    stream.on('response', (headers) => {
      httpStatus = Number(headers[':status']);
      take(headers);
    });
    stream.on('trailers', take);
    stream.on('data', (chunk: Buffer) => {
      if (chunks.reduce((sum, each) => sum + each.length, 0) < 65_536) chunks.push(chunk);
    });
    stream.on('error', (error) => resolve({ kind: 'error', code: 14, message: error.message }));
    stream.on('close', () => {
      const answered = decodeResponse(Buffer.concat(chunks));
      if (status) resolve(status);
      else if (answered !== undefined) resolve({ kind: 'status', status: answered });
      else if (httpStatus !== 0 && httpStatus !== 200)
        resolve({
          kind: 'error',
          code: httpStatus === 404 ? unimplemented : 2,
          message: `unexpected HTTP status code received from server: ${httpStatus}`,
        });
      else resolve({ kind: 'error', code: 13, message: 'server closed the stream without sending trailers' });
    });
    stream.end(encodeRequest(service));
  });
}

/** Rejects with the signal's reason. */
export function checkHealth(host: string, port: number, service: string, signal: AbortSignal): Promise<HealthAnswer> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const authority = hostPort(host, port);
    const session = connect(`http://${authority}`);
    const finish = (): void => {
      signal.removeEventListener('abort', onAbort);
      session.destroy();
    };
    const onAbort = (): void => {
      finish();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    session.on('error', (error: Error) => {
      finish();
      resolve({ kind: 'unreachable', detail: error.message });
    });
    session.on('connect', () => {
      void ask(session, service, authority).then((answer) => {
        finish();
        resolve(answer);
      });
    });
  });
}
