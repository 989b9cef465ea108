// Hands ended spans to a collector in batches: OTLP over gRPC, without TLS, as Kubernetes' components do. What the collector does not take is lost
// and said once; the work that is traced never waits for it.
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import { aborted } from '../abort.ts';
import type { Clock } from '../clock.ts';
import type { Log } from '../log.ts';
import { ExportTraceServiceRequest, ExportTraceServiceResponse, type KeyValue } from './gen/otlp.ts';
import type { Attributes, EndedSpan } from './tracer.ts';

export interface OtlpDeps {
  readonly clock: Clock;
  readonly log: Log;
}

export interface OtlpOptions {
  /** `host:port`, or a name gRPC knows: `dns:///…`, `unix:///…`. */
  readonly endpoint: string;
  /** Who sends them: `service.name` and so on. */
  readonly resource: Attributes;
  readonly scope: { readonly name: string; readonly version: string };
  /** From the first span of a batch until it is sent. Default 5,000. */
  readonly delayMs?: number;
}

export interface OtlpExporter {
  ended(span: EndedSpan): void;
  /** Sends until the signal aborts, and then what is left. */
  run(signal: AbortSignal): Promise<void>;
}

const maxBatch = 512;
const maxWaiting = 2048;
const sendMs = 10_000;
const lastSendMs = 2_000;

const pairs = (attributes: Attributes): KeyValue[] =>
  Object.entries(attributes).map(([key, value]) => ({
    key,
    value: {
      value:
        typeof value === 'string'
          ? { $case: 'stringValue', value }
          : typeof value === 'boolean'
            ? { $case: 'boolValue', value }
            : { $case: 'intValue', value: BigInt(Math.trunc(value)) },
    },
  }));

export function createOtlpExporter(deps: OtlpDeps, options: OtlpOptions): OtlpExporter {
  const { clock, log } = deps;
  const { endpoint, delayMs = 5_000 } = options;
  const waiting: EndedSpan[] = [];
  let lost = 0;
  let failing = false;
  let wake: (() => void) | undefined;

  const requestOf = (spans: readonly EndedSpan[]): Buffer =>
    Buffer.from(
      ExportTraceServiceRequest.encode(
        ExportTraceServiceRequest.fromPartial({
          resourceSpans: [
            {
              resource: { attributes: pairs(options.resource) },
              scopeSpans: [
                {
                  scope: options.scope,
                  spans: spans.map((span) => ({
                    traceId: span.traceId,
                    spanId: span.spanId,
                    ...(span.parentId ? { parentSpanId: span.parentId } : {}),
                    name: span.name,
                    kind: span.kind === 'client' ? 3 : 1,
                    startTimeUnixNano: span.startNs,
                    endTimeUnixNano: span.endNs,
                    attributes: pairs(span.attributes),
                    ...(span.error === undefined ? {} : { status: { code: 2, message: span.error } }),
                  })),
                },
              ],
            },
          ],
        }),
      ).finish(),
    );

  const send = (client: Client, spans: readonly EndedSpan[], timeoutMs: number): Promise<void> =>
    new Promise((resolve) => {
      client.makeUnaryRequest(
        '/opentelemetry.proto.collector.trace.v1.TraceService/Export',
        requestOf,
        (bytes: Buffer) => ExportTraceServiceResponse.decode(bytes),
        spans,
        new Metadata(),
        { deadline: Date.now() + timeoutMs },
        (error, answer) => {
          if (error) {
            lost += spans.length;
            if (!failing)
              log.warn('the trace collector does not take spans: they are lost until it does', { endpoint, error });
          } else {
            const refused = Number(answer?.partialSuccess?.rejectedSpans ?? 0n);
            if (refused > 0)
              log.warn('the trace collector refused spans', { refused, why: answer?.partialSuccess?.errorMessage });
            if (failing) log.info('the trace collector takes spans again', { endpoint, lost });
            lost = failing ? 0 : lost;
          }
          failing = error !== null;
          resolve();
        },
      );
    });

  return {
    ended(span) {
      if (waiting.length >= maxWaiting) {
        lost++;
        return;
      }
      waiting.push(span);
      wake?.();
    },
    async run(signal) {
      const client = new Client(endpoint, credentials.createInsecure(), { 'grpc.enable_http_proxy': 0 });
      const ended = aborted(signal);
      try {
        while (!signal.aborted) {
          if (waiting.length === 0)
            await Promise.race([
              ended,
              new Promise<void>((resolve) => {
                wake = resolve;
              }),
            ]);
          wake = undefined;
          if (waiting.length < maxBatch) await clock.sleep(delayMs, signal).catch(() => undefined);
          while (waiting.length > 0 && !signal.aborted) await send(client, waiting.splice(0, maxBatch), sendMs);
        }
        if (waiting.length > 0) await send(client, waiting.splice(0), lastSendMs);
      } finally {
        client.close();
      }
    },
  };
}
