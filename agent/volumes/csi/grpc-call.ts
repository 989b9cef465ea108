// One gRPC connection to a plugin's socket on this host. The only file that reads gRPC's status codes of plugins.
import { Client, credentials, Metadata, status } from '@grpc/grpc-js';

/** A call of a plugin that did not do what was asked. */
export class PluginError extends Error {
  override name = 'PluginError';
  /** gRPC's own name, for example `Unavailable`. */
  readonly code: string;
  /** False where the work may still be going on at the plugin: what was asked for must then be undone by asking, not by assuming. */
  readonly final: boolean;
  constructor(code: string, final: boolean, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
    this.final = final;
  }
}

export interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  readonly timeoutMs: number;
}

export interface PluginConnection {
  call<Request, Response>(
    method: string,
    request: Codec<Request>,
    response: Codec<Response>,
    message: Request,
    options: CallOptions,
  ): Promise<Response>;
  close(): void;
}

const names: Readonly<Record<number, string>> = {
  [status.CANCELLED]: 'Canceled',
  [status.UNKNOWN]: 'Unknown',
  [status.INVALID_ARGUMENT]: 'InvalidArgument',
  [status.DEADLINE_EXCEEDED]: 'DeadlineExceeded',
  [status.NOT_FOUND]: 'NotFound',
  [status.ALREADY_EXISTS]: 'AlreadyExists',
  [status.PERMISSION_DENIED]: 'PermissionDenied',
  [status.RESOURCE_EXHAUSTED]: 'ResourceExhausted',
  [status.FAILED_PRECONDITION]: 'FailedPrecondition',
  [status.ABORTED]: 'Aborted',
  [status.OUT_OF_RANGE]: 'OutOfRange',
  [status.UNIMPLEMENTED]: 'Unimplemented',
  [status.INTERNAL]: 'Internal',
  [status.UNAVAILABLE]: 'Unavailable',
  [status.DATA_LOSS]: 'DataLoss',
  [status.UNAUTHENTICATED]: 'Unauthenticated',
};

// With these the plugin may still be at it.
const uncertain: ReadonlySet<number> = new Set([
  status.CANCELLED,
  status.DEADLINE_EXCEEDED,
  status.UNAVAILABLE,
  status.RESOURCE_EXHAUSTED,
  status.ABORTED,
]);

/** Nothing is connected before the first call. */
export function connectPlugin(socket: string): PluginConnection {
  const client = new Client(`unix://${socket}`, credentials.createInsecure(), {
    // Without it the socket's path becomes the authority, which Go's HTTP/2 server refuses.
    'grpc.default_authority': 'localhost',
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.min_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1000,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
  });
  return {
    call(method, request, response, message, { signal, timeoutMs }) {
      return new Promise((resolve, reject) => {
        if (signal?.aborted) {
          reject(signal.reason);
          return;
        }
        const running = client.makeUnaryRequest(
          method,
          (value: Parameters<typeof request.encode>[0]) => Buffer.from(request.encode(value).finish()),
          (bytes: Buffer) => response.decode(bytes),
          message,
          new Metadata(),
          { deadline: Date.now() + timeoutMs },
          (error, value) => {
            signal?.removeEventListener('abort', onAbort);
            if (signal?.aborted) reject(signal.reason);
            else if (error) {
              const name = names[error.code] ?? String(error.code);
              const text = `rpc error: code = ${name} desc = ${error.details}`;
              reject(new PluginError(name, !uncertain.has(error.code), text, error));
            } else resolve(value!);
          },
        );
        const onAbort = (): void => running.cancel();
        signal?.addEventListener('abort', onAbort, { once: true });
      });
    },
    close: () => client.close(),
  };
}
