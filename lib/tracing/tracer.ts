// Spans of work, one inside the other by where they are called, and the context that goes out with a call (W3C traceparent). Nothing of this is
// loaded, and nothing is followed through the program, unless tracing is switched on.
import { AsyncLocalStorage } from 'node:async_hooks';
import { randomBytes } from 'node:crypto';
import type { Clock } from '../clock.ts';

export type Attributes = Readonly<Record<string, string | number | boolean>>;

export interface Span {
  /** What a call carries along so that who is called can go on with the trace. */
  readonly traceparent: string;
  rename(name: string): void;
  set(attributes: Attributes): void;
}

export interface SpanOptions {
  readonly kind?: 'internal' | 'client';
  readonly attributes?: Attributes;
  /** Begins a trace of its own wherever it is called. */
  readonly root?: boolean;
}

export interface Tracer {
  /**
   * Does the work in a span of its own, inside the one this is called in as long as that one lasts: a loop that was started in a span does not
   * add to it for ever. What the work throws is noted and thrown on.
   */
  run<T>(name: string, options: SpanOptions, work: (span: Span) => Promise<T>): Promise<T>;
}

export interface EndedSpan {
  readonly traceId: Buffer;
  readonly spanId: Buffer;
  readonly parentId: Buffer | undefined;
  readonly name: string;
  readonly kind: 'internal' | 'client';
  readonly startNs: bigint;
  readonly endNs: bigint;
  readonly attributes: Attributes;
  /** What went wrong; undefined where nothing did. */
  readonly error: string | undefined;
}

export interface TracerDeps {
  readonly clock: Clock;
  /** Told of each span that was sampled, when it has ended. */
  ended(span: EndedSpan): void;
  /** So many random bytes. */
  random?(bytes: number): Buffer;
}

export interface TracerOptions {
  /** Of a million traces so many are recorded. */
  readonly samplingRatePerMillion: number;
}

interface Context {
  readonly traceId: Buffer;
  readonly spanId: Buffer;
  readonly sampled: boolean;
  over: boolean;
}

/** By the trace's id, as OpenTelemetry's TraceIDRatioBased: all who see the trace decide alike. */
export function isSampled(traceId: Buffer, ratePerMillion: number): boolean {
  if (ratePerMillion >= 1_000_000) return true;
  return traceId.readBigUInt64BE(8) >> 1n < (BigInt(Math.trunc(ratePerMillion)) << 63n) / 1_000_000n;
}

export function createTracer(deps: TracerDeps, options: TracerOptions): Tracer {
  const { clock, random = randomBytes } = deps;
  const contexts = new AsyncLocalStorage<Context>();

  return {
    async run(name, { kind = 'internal', attributes = {}, root = false }, work) {
      const around = root ? undefined : contexts.getStore();
      const parent = around?.over ? undefined : around;
      const traceId = parent?.traceId ?? random(16);
      const sampled = parent?.sampled ?? isSampled(traceId, options.samplingRatePerMillion);
      const context: Context = { traceId, spanId: random(8), sampled, over: false };
      let shownName = name;
      let shown = attributes;
      const span: Span = {
        traceparent: `00-${traceId.toString('hex')}-${context.spanId.toString('hex')}-${sampled ? '01' : '00'}`,
        rename: (other) => {
          shownName = other;
        },
        set: (more) => {
          shown = { ...shown, ...more };
        },
      };
      const startNs = BigInt(Math.trunc(clock.now())) * 1_000_000n;
      const startedMs = clock.monotonicMs();
      let failure: string | undefined;
      try {
        return await contexts.run(context, () => work(span));
      } catch (error) {
        failure = error instanceof Error ? error.message : String(error);
        throw error;
      } finally {
        context.over = true;
        if (sampled)
          deps.ended({
            traceId,
            spanId: context.spanId,
            parentId: parent?.spanId,
            name: shownName,
            kind,
            startNs,
            endNs: startNs + BigInt(Math.round((clock.monotonicMs() - startedMs) * 1e6)),
            attributes: shown,
            error: failure,
          });
      }
    },
  };
}
