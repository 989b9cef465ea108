// Tracing as the `tracing` of KubeletConfiguration asks for it. What does it is loaded only here: who does not trace need not carry it in memory.
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Tracer } from '../lib/tracing/tracer.ts';
import { version } from './version.ts';

export interface TracingConfiguration {
  /** Of the collector, OTLP over gRPC without TLS. Default `localhost:4317`. */
  readonly endpoint?: string;
  readonly samplingRatePerMillion?: number;
}

export interface Tracing {
  readonly tracer: Tracer;
  /** Sends spans until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

/** Undefined where nothing would be recorded, which is said. */
export async function openTracing(
  deps: { readonly log: Log; readonly clock: Clock },
  { endpoint = 'localhost:4317', samplingRatePerMillion = 0 }: TracingConfiguration,
  nodeName: string,
): Promise<Tracing | undefined> {
  if (samplingRatePerMillion === 0) {
    deps.log.warn(
      'tracing is configured without samplingRatePerMillion: nothing is recorded, as no trace begins outside this agent',
    );
    return undefined;
  }
  const [{ createTracer }, { createOtlpExporter }] = await Promise.all([
    import('../lib/tracing/tracer.ts'),
    import('../lib/tracing/otlp.ts'),
  ]);
  const exporter = createOtlpExporter(deps, {
    endpoint,
    resource: { 'service.name': 'kubelet', 'service.version': version, 'host.name': nodeName },
    scope: { name: 'stevedore', version },
  });
  deps.log.info('traces are sent', { endpoint, samplingRatePerMillion });
  return {
    tracer: createTracer({ clock: deps.clock, ended: exporter.ended }, { samplingRatePerMillion }),
    run: exporter.run,
  };
}
