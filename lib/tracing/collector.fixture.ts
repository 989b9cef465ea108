// A collector of traces for tests: OTLP over gRPC, as an OpenTelemetry collector receives it.
import { Server, ServerCredentials, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js';
import { ExportTraceServiceRequest, ExportTraceServiceResponse, type Span } from './gen/otlp.ts';

export interface Collector {
  /** For `tracing.endpoint` of KubeletConfiguration. */
  readonly endpoint: string;
  /** The next batch; waits for it. */
  next(): Promise<ExportTraceServiceRequest>;
  /** All spans of all batches so far. */
  spans(): readonly Span[];
  stop(): void;
}

/** `address`: `host:port` or `unix:PATH`; default a free port of 127.0.0.1. */
export async function startCollector(address = '127.0.0.1:0'): Promise<Collector> {
  const all: ExportTraceServiceRequest[] = [];
  let taken = 0;
  let tell: (() => void) | undefined;
  const server = new Server();
  server.addService(
    {
      export: {
        path: '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
        requestStream: false,
        responseStream: false,
        requestSerialize: (message: ExportTraceServiceRequest) =>
          Buffer.from(ExportTraceServiceRequest.encode(message).finish()),
        requestDeserialize: (bytes: Buffer) => ExportTraceServiceRequest.decode(bytes),
        responseSerialize: (message: ExportTraceServiceResponse) =>
          Buffer.from(ExportTraceServiceResponse.encode(message).finish()),
        responseDeserialize: (bytes: Buffer) => ExportTraceServiceResponse.decode(bytes),
      },
    },
    {
      export(
        call: ServerUnaryCall<ExportTraceServiceRequest, ExportTraceServiceResponse>,
        done: sendUnaryData<ExportTraceServiceResponse>,
      ) {
        all.push(call.request);
        tell?.();
        done(null, ExportTraceServiceResponse.fromPartial({}));
      },
    },
  );
  const port = await new Promise<number>((resolve, reject) => {
    server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) =>
      error ? reject(error) : resolve(bound),
    );
  });
  return {
    endpoint: address.startsWith('unix:') ? address : `${address.slice(0, address.lastIndexOf(':'))}:${port}`,
    async next() {
      while (all.length === taken) await new Promise<void>((resolve) => (tell = resolve));
      return all[taken++]!;
    },
    spans: () =>
      all.flatMap(({ resourceSpans }) =>
        resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans)),
      ),
    stop: () => server.forceShutdown(),
  };
}
