// One gRPC channel to a runtime's socket: unary calls with deadlines, and server streams as async iterators.
import { Client, credentials, type ClientReadableStream, Metadata, status } from '@grpc/grpc-js';
import { RuntimeError } from '../errors.ts';
import type { CallOptions } from '../runtime.ts';
import type { Tracer } from '../../lib/tracing/tracer.ts';
import { classifyError } from './classify.ts';
import type { DeepPartial, MessageFns } from './gen/cri.ts';

type Decoder<T> = Pick<MessageFns<T>, 'decode'>;

export interface Connection {
  /** Rejects with a RuntimeError. `timeoutMs` 0 means no deadline. */
  unary<Request, Response>(
    method: string,
    request: MessageFns<Request>,
    response: Decoder<Response>,
    message: DeepPartial<Request>,
    options: CallOptions & { readonly timeoutMs: number },
  ): Promise<Response>;
  /** Ends when the signal aborts; throws a RuntimeError where the stream breaks. `onOpen` is told when the runtime accepted it. */
  stream<Request, Response>(
    method: string,
    request: MessageFns<Request>,
    response: Decoder<Response>,
    message: DeepPartial<Request>,
    signal: AbortSignal,
  ): AsyncIterable<Response>;
  close(): void;
}

export interface ConnectionOptions {
  /** Each call is then a span, and the runtime is told of it. */
  readonly tracer?: Tracer | undefined;
}

const maxMessageBytes = 64 * 1024 * 1024;

/** `endpoint` is `unix:///path`. Nothing is connected before the first call. */
export function openConnection(endpoint: string, { tracer }: ConnectionOptions = {}): Connection {
  const client = new Client(endpoint, credentials.createInsecure(), {
    // Without it the socket's path becomes the authority, which Go's HTTP/2 server refuses.
    'grpc.default_authority': 'localhost',
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.min_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1000,
    'grpc.max_receive_message_length': maxMessageBytes,
    'grpc.max_send_message_length': maxMessageBytes,
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_retries': 0,
    'grpc.enable_http_proxy': 0,
    'grpc.service_config_disable_resolution': 1,
  });
  const name = (method: string): string => method.slice(method.lastIndexOf('/') + 1);
  const serializer =
    <Request>(request: MessageFns<Request>) =>
    (message: DeepPartial<Request>): Buffer =>
      Buffer.from(request.encode(request.fromPartial(message)).finish());

  const callOnce = <Request, Response>(
    metadata: Metadata,
    method: string,
    request: MessageFns<Request>,
    response: Decoder<Response>,
    message: DeepPartial<Request>,
    { signal, timeoutMs }: CallOptions & { readonly timeoutMs: number },
  ): Promise<Response> => {
    const call = name(method);
    return new Promise((resolve, reject) => {
      if (signal?.aborted) {
        reject(new RuntimeError('aborted', call, 'not called: cancelled', signal.reason));
        return;
      }
      const startedMs = performance.now();
      const running = client.makeUnaryRequest(
        method,
        serializer(request),
        (bytes: Buffer) => response.decode(bytes),
        message,
        metadata,
        timeoutMs > 0 ? { deadline: Date.now() + timeoutMs } : {},
        (error, value) => {
          signal?.removeEventListener('abort', onAbort);
          if (error) {
            if (signal?.aborted) reject(new RuntimeError('aborted', call, 'cancelled', signal.reason));
            // A server that ends the call at our deadline before we do says CANCELLED.
            else if (
              error.code === status.CANCELLED &&
              timeoutMs > 0 &&
              performance.now() - startedMs >= timeoutMs - 20
            )
              reject(new RuntimeError('deadline', call, `no answer within ${timeoutMs} ms`, error));
            else reject(classifyError(call, error));
          } else if (value === undefined) {
            reject(new RuntimeError('unknown', call, 'the runtime sent no message'));
          } else resolve(value);
        },
      );
      const onAbort = (): void => running.cancel();
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  };

  return {
    unary(method, request, response, message, options) {
      if (!tracer) return callOnce(new Metadata(), method, request, response, message, options);
      const [service = ''] = method.slice(1).split('/');
      const attributes = { 'rpc.system': 'grpc', 'rpc.service': service, 'rpc.method': name(method) };
      return tracer.run(method.slice(1), { kind: 'client', attributes }, async (span) => {
        const metadata = new Metadata();
        metadata.set('traceparent', span.traceparent);
        return await callOnce(metadata, method, request, response, message, options);
      });
    },

    async *stream(method, request, response, message, signal) {
      const call = name(method);
      signal.throwIfAborted();
      const running: ClientReadableStream<unknown> = client.makeServerStreamRequest(
        method,
        serializer(request),
        (bytes: Buffer) => response.decode(bytes),
        message,
        new Metadata(),
        {},
      );
      const onAbort = (): void => running.cancel();
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        for await (const item of running) yield item as Awaited<ReturnType<typeof response.decode>>;
      } catch (error) {
        if (signal.aborted && (error as { code?: number }).code === status.CANCELLED) return;
        throw classifyError(call, error);
      } finally {
        signal.removeEventListener('abort', onAbort);
        running.cancel();
      }
    },

    close: () => client.close(),
  };
}
