// The daemon's metrics, in Prometheus' text format. A registry is made where things are wired and handed down.
import { Counter, Gauge, Histogram, Registry } from 'prom-client';

export type MetricsRegistry = Registry;
export type { Counter, Gauge, Histogram };

interface MetricOptions<Label extends string> {
  readonly name: string;
  readonly help: string;
  readonly labels?: readonly Label[];
}

/** Asking for a metric of a name that is there hands out the one that is there: rooms may feed the same one. */
export const createRegistry = (): MetricsRegistry => new Registry();

/** `value`, of a counter without labels that somebody else counts, is asked each time the page is; undefined leaves the last number. */
export function counter<Label extends string = never>(
  registry: Registry,
  options: MetricOptions<Label> & { readonly value?: () => Promise<number | undefined> },
): Counter<Label> {
  const { name, help, labels = [], value } = options;
  const known = registry.getSingleMetric(name);
  if (known) return known as Counter<Label>;
  return new Counter({
    name,
    help,
    labelNames: [...labels],
    registers: [registry],
    ...(value
      ? {
          async collect() {
            const now = await value();
            if (now === undefined) return;
            this.reset();
            this.inc(now);
          },
        }
      : {}),
  });
}

/** `value`, of a gauge without labels, is asked each time the page is; nothing is to be set then. */
export function gauge<Label extends string = never>(
  registry: Registry,
  options: MetricOptions<Label> & { readonly value?: () => number },
): Gauge<Label> {
  const { name, help, labels = [], value } = options;
  const known = registry.getSingleMetric(name);
  if (known) return known as Gauge<Label>;
  return new Gauge({
    name,
    help,
    labelNames: [...labels],
    registers: [registry],
    ...(value
      ? {
          collect() {
            this.set(value());
          },
        }
      : {}),
  });
}

/** `buckets` are upper bounds in the metric's own unit. */
export function histogram<Label extends string = never>(
  registry: Registry,
  options: MetricOptions<Label> & { readonly buckets: readonly number[] },
): Histogram<Label> {
  const { name, help, labels = [], buckets } = options;
  const known = registry.getSingleMetric(name);
  if (known) return known as Histogram<Label>;
  return new Histogram({ name, help, labelNames: [...labels], buckets: [...buckets], registers: [registry] });
}

/** One line of a metric; `name` where it is not the metric's own (`…_bucket`, `…_sum`, `…_count`). */
export interface Sample {
  readonly name?: string;
  readonly labels: Readonly<Record<string, string | number>>;
  readonly value: number;
}

/**
 * A metric whose numbers somebody else keeps, for what is counted so often that finding the counter by its labels would be most of the work.
 * `samples` is asked each time the page is. Throws where the name is taken.
 */
export function sampled(
  registry: Registry,
  options: { readonly name: string; readonly help: string; readonly type: 'counter' | 'histogram' },
  samples: () => readonly Sample[],
): void {
  const { name, help, type } = options;
  const metric = {
    name,
    help,
    type,
    aggregator: 'sum',
    reset: () => undefined,
    get: async () => ({
      name,
      help,
      type,
      aggregator: 'sum',
      values: samples().map((sample) => ({
        value: sample.value,
        labels: sample.labels,
        metricName: sample.name ?? name,
      })),
    }),
  };
  // The registry asks no more of a metric than this.
  registry.registerMetric(metric as unknown as Counter);
}
