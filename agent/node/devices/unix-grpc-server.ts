// A gRPC server on a unix socket that only root can reach.
import { chmod, mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import {
  Server,
  ServerCredentials,
  type sendUnaryData,
  type ServerUnaryCall,
  status,
  type UntypedHandleCall,
} from '@grpc/grpc-js';

interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

export interface Method {
  readonly path: string;
  readonly handle: UntypedHandleCall;
  readonly definition: object;
}

/** A unary method; what `answer` throws becomes InvalidArgument with its message, or NotFound where its name says so. */
export function unary<Request, Response>(
  path: string,
  request: Codec<Request>,
  response: Codec<Response>,
  answer: (message: Request) => Promise<Response> | Response,
): Method {
  return {
    path,
    definition: {
      path,
      requestStream: false,
      responseStream: false,
      requestSerialize: (message: Request) => Buffer.from(request.encode(message).finish()),
      requestDeserialize: (bytes: Buffer) => request.decode(bytes),
      responseSerialize: (message: Response) => Buffer.from(response.encode(message).finish()),
      responseDeserialize: (bytes: Buffer) => response.decode(bytes),
    },
    handle: (call: ServerUnaryCall<Request, Response>, done: sendUnaryData<Response>) => {
      Promise.resolve()
        .then(() => answer(call.request))
        .then(
          (message) => done(null, message),
          (error: unknown) =>
            done({
              code: error instanceof NotFoundError ? status.NOT_FOUND : status.INVALID_ARGUMENT,
              details: error instanceof Error ? error.message : String(error),
            }),
        );
    },
  };
}

export class NotFoundError extends Error {
  override name = 'NotFoundError';
}

export interface UnixServer {
  close(): Promise<void>;
}

/** Takes the place of what a former agent left there. */
export async function serveUnix(socket: string, methods: readonly Method[]): Promise<UnixServer> {
  await mkdir(dirname(socket), { recursive: true, mode: 0o750 });
  await rm(socket, { force: true });
  const server = new Server({ 'grpc.max_receive_message_length': 16 * 1024 * 1024 });
  // By their whole paths: two versions of a service have methods of the same name.
  server.addService(
    Object.fromEntries(methods.map(({ path, definition }) => [path, definition])) as never,
    Object.fromEntries(methods.map(({ path, handle }) => [path, handle])),
  );
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix://${socket}`, ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    );
  });
  await chmod(socket, 0o660);
  return {
    async close() {
      server.forceShutdown();
      await rm(socket, { force: true });
    },
  };
}
