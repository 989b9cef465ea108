import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../clock.ts';
import { createFakeClock } from '../fake-clock.ts';
import { silentLog } from '../log.ts';
import { type Collector, startCollector } from './collector.fixture.ts';
import { createOtlpExporter } from './otlp.ts';
import { createTracer, type EndedSpan, isSampled } from './tracer.ts';

const setup = (samplingRatePerMillion = 1_000_000) => {
  const clock = createFakeClock();
  const spans: EndedSpan[] = [];
  const tracer = createTracer({ clock, ended: (span) => void spans.push(span) }, { samplingRatePerMillion });
  return { clock, spans, tracer };
};

describe('createTracer', () => {
  it('puts a span inside the one it is called in, also in work that outlasts its caller', async () => {
    const { clock, spans, tracer } = setup();
    let inner: Promise<void> | undefined;
    let parents: string[] = [];
    await tracer.run('look', { attributes: { a: 1 } }, async (look) => {
      look.rename('syncPod');
      look.set({ b: true });
      inner = tracer.run('operation', {}, async () => {
        await clock.sleep(3_000);
        await tracer.run('call', { kind: 'client' }, (call) => {
          parents = call.traceparent.split('-');
          return Promise.resolve();
        });
      });
    });
    await clock.advance(3_000);
    await inner;
    const [look, call, operation] = spans;
    expect(spans.map((span) => span.name)).toEqual(['syncPod', 'call', 'operation']);
    expect(look).toMatchObject({ parentId: undefined, attributes: { a: 1, b: true }, error: undefined });
    expect(operation!.parentId).toEqual(look!.spanId);
    expect(operation!.endNs - operation!.startNs).toBe(3_000_000_000n);
    expect(call!.parentId).toEqual(operation!.spanId);
    expect(parents).toEqual(['00', look!.traceId.toString('hex'), call!.spanId.toString('hex'), '01']);
  });

  it('begins a new trace in a loop that a span started and that has ended since, and where a root is asked for', async () => {
    const { clock, spans, tracer } = setup();
    let loop: Promise<void> | undefined;
    await tracer.run('look', {}, async () => {
      loop = clock.sleep(10).then(() => tracer.run('probe', {}, () => Promise.resolve()));
      await tracer.run('other', { root: true }, () => Promise.resolve());
    });
    await clock.advance(10);
    await loop;
    expect(new Set(spans.map((span) => span.traceId.toString('hex'))).size).toBe(3);
    expect(spans.every((span) => span.parentId === undefined)).toBe(true);
  });

  it('notes what went wrong, and throws it on', async () => {
    const { spans, tracer } = setup();
    await expect(tracer.run('bad', {}, () => Promise.reject(new Error('no room')))).rejects.toThrow('no room');
    expect(spans[0]!.error).toBe('no room');
  });

  it('records whole traces or nothing of them', async () => {
    const { spans, tracer } = setup(300_000);
    let sampled = 0;
    for (let count = 0; count < 500; count++)
      await tracer.run('outer', {}, async (outer) => {
        if (outer.traceparent.endsWith('-01')) sampled++;
        await tracer.run('inner', {}, (inner) => {
          expect(inner.traceparent.slice(-2)).toBe(outer.traceparent.slice(-2));
          return Promise.resolve();
        });
      });
    expect(spans).toHaveLength(sampled * 2);
    expect(sampled).toBeGreaterThan(50);
    expect(sampled).toBeLessThan(300);
  });

  it('samples more where more is asked for, never with none', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 16, maxLength: 16 }),
        fc.integer({ min: 0, max: 1_000_000 }),
        fc.integer({ min: 0, max: 1_000_000 }),
        (bytes, a, b) => {
          const id = Buffer.from(bytes);
          expect(isSampled(id, 0)).toBe(false);
          expect(isSampled(id, 1_000_000)).toBe(true);
          if (isSampled(id, Math.min(a, b))) expect(isSampled(id, Math.max(a, b))).toBe(true);
        },
      ),
    );
  });
});

let collector: Collector | undefined;
afterEach(() => collector?.stop());

describe('createOtlpExporter', () => {
  it('sends what ended in batches, and the rest when it is stopped', async () => {
    collector = await startCollector();
    const exporter = createOtlpExporter(
      { clock: systemClock, log: silentLog },
      {
        endpoint: collector.endpoint,
        resource: { 'service.name': 'kubelet' },
        scope: { name: 'stevedore', version: '1' },
        delayMs: 1,
      },
    );
    const tracer = createTracer({ clock: systemClock, ended: exporter.ended }, { samplingRatePerMillion: 1_000_000 });
    const stop = new AbortController();
    const running = exporter.run(stop.signal);
    await tracer.run('runtime.v1.RuntimeService/RunPodSandbox', { kind: 'client', attributes: { n: 2 } }, () =>
      Promise.resolve(),
    );
    const [first] = (await collector.next()).resourceSpans;
    expect(first!.resource!.attributes).toMatchObject([
      { key: 'service.name', value: { value: { $case: 'stringValue', value: 'kubelet' } } },
    ]);
    expect(first!.scopeSpans[0]!.spans).toMatchObject([
      {
        name: 'runtime.v1.RuntimeService/RunPodSandbox',
        kind: 3,
        attributes: [{ key: 'n', value: { value: { $case: 'intValue', value: 2n } } }],
      },
    ]);
    await tracer.run('bad', {}, () => Promise.reject(new Error('no'))).catch(() => undefined);
    stop.abort();
    await running;
    const [last] = (await collector.next()).resourceSpans;
    expect(last!.scopeSpans[0]!.spans).toMatchObject([{ name: 'bad', status: { code: 2, message: 'no' } }]);
  });

  it('neither waits nor grows where nobody collects', async () => {
    const exporter = createOtlpExporter(
      { clock: systemClock, log: silentLog },
      { endpoint: '127.0.0.1:1', resource: {}, scope: { name: 's', version: '1' }, delayMs: 1 },
    );
    const tracer = createTracer({ clock: systemClock, ended: exporter.ended }, { samplingRatePerMillion: 1_000_000 });
    for (let count = 0; count < 5_000; count++) await tracer.run('x', {}, () => Promise.resolve());
    const stop = new AbortController();
    const running = exporter.run(stop.signal);
    stop.abort();
    await running;
  });
});
