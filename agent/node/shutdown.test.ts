import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createRegistry } from '../../lib/metrics.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { defaultKubeletConfiguration } from '../config.ts';
import { createKubeletMetrics } from '../server/kubelet-metrics.ts';
import { parseShutdownSignal } from './logind.ts';
import { createNodeShutdown, groupPods, shutdownPeriods } from './shutdown.ts';
import { openShutdownTimes } from './shutdown-times.ts';

const pod = (name: string, priority: number, grace = 30): Pod =>
  ({
    metadata: { name, namespace: 'default', uid: name },
    spec: { priority, terminationGracePeriodSeconds: grace, containers: [] },
    status: { phase: 'Running' },
  }) as unknown as Pod;

const config = {
  ...defaultKubeletConfiguration(),
  shutdownGracePeriod: 30_000,
  shutdownGracePeriodCriticalPods: 10_000,
};

describe('graceful shutdown', () => {
  it('divides the time between ordinary and critical pods, or by priority', () => {
    expect(shutdownPeriods(config)).toEqual([
      { priority: 0, graceSeconds: 20 },
      { priority: 2_000_000_000, graceSeconds: 10 },
    ]);
    const periods = shutdownPeriods({
      ...config,
      shutdownGracePeriod: 0,
      shutdownGracePeriodByPodPriority: [
        { priority: 1000, shutdownGracePeriodSeconds: 20 },
        { priority: 10, shutdownGracePeriodSeconds: 5 },
      ],
    });
    const groups = groupPods(periods, [pod('low', -5), pod('ten', 10), pod('mid', 999), pod('high', 5000)]);
    expect(groups.map(({ pods }) => pods.map(({ metadata }) => metadata.name))).toEqual([
      ['low', 'ten', 'mid'],
      ['high'],
    ]);
    expect(shutdownPeriods(defaultKubeletConfiguration())).toEqual([]);
  });

  it('ends the unimportant first, waits for them, and lets the host go when all are gone', async () => {
    const clock = createFakeClock();
    const ended: [string, number][] = [];
    const running = new Set(['web', 'dns']);
    const locks: string[] = [];
    const folder = await mkdtemp(join(tmpdir(), 'sv-shutdown-'));
    const registry = createRegistry();
    const open = (into = registry) =>
      openShutdownTimes({ log: silentLog, metrics: createKubeletMetrics(into) }, folder);
    const times = await open();
    const settle = async (): Promise<void> => {
      for (let round = 0; round < 20; round++) {
        await new Promise((resolve) => setTimeout(resolve, 2));
        await clock.advance(0);
      }
    };
    const startedAt = clock.now() / 1000;
    let tell: (down: boolean) => void = () => undefined;
    const shutdown = createNodeShutdown(
      {
        clock,
        log: silentLog,
        events: { record: () => undefined },
        nodeTarget: { apiVersion: 'v1', kind: 'Node', name: 'n' },
        activePods: () => [pod('dns', 2_000_000_000), pod('web', 0, 5)],
        end: (uid, { graceSeconds }) => void ended.push([uid, graceSeconds]),
        holdsResources: (uid) => running.has(uid),
        onChange: () => undefined,
        times,
        notifier: {
          allowDelay: () => Promise.resolve(),
          lock() {
            locks.push('taken');
            return { release: () => void locks.push('released') };
          },
          async *events(signal) {
            while (!signal.aborted)
              yield await new Promise<boolean>((resolve) => {
                tell = resolve;
              });
          },
        },
      },
      { config },
    );
    const stop = new AbortController();
    void shutdown.run(stop.signal);
    await clock.advance(0);
    expect(shutdown.refuse()).toBeUndefined();
    tell(true);
    await settle();
    const during = await registry.metrics();
    expect(during).toContain(`kubelet_graceful_shutdown_start_time_seconds ${startedAt}\n`);
    expect(during).toContain('kubelet_graceful_shutdown_end_time_seconds 0\n');
    await clock.advance(1000);
    expect(ended).toEqual([['web', 5]]);
    expect(shutdown.refuse()?.reason).toBe('NodeShutdown');
    expect(shutdown.readyError()).toBe('node is shutting down');
    running.delete('web');
    await clock.advance(500);
    expect(ended).toEqual([
      ['web', 5],
      ['dns', 10],
    ]);
    expect(locks).toEqual(['taken']);
    await clock.advance(10_500);
    await settle();
    expect(locks).toEqual(['taken', 'released']);
    // The host is up again: another agent shows the same.
    const after = createRegistry();
    await open(after);
    const shown = await after.metrics();
    expect(shown).toContain(`kubelet_graceful_shutdown_start_time_seconds ${startedAt}\n`);
    expect(Number(/^kubelet_graceful_shutdown_end_time_seconds (\S+)$/m.exec(shown)?.[1])).toBeGreaterThan(
      startedAt + 10,
    );
    expect(shown).toEqual(await registry.metrics());
    await rm(folder, { recursive: true });
    tell(false);
    await clock.advance(0);
    expect(shutdown.readyError()).toBeUndefined();
    expect(locks.at(-1)).toBe('taken');
    stop.abort();
  });

  it.each([
    ['{"type":"signal","member":"PrepareForShutdown","payload":{"type":"b","data":[true]}}', true],
    ['{"type":"signal","member":"PrepareForShutdown","payload":{"type":"b","data":[false]}}', false],
    ['{"type":"signal","member":"PrepareForSleep","payload":{"type":"b","data":[true]}}', undefined],
    ['Monitoring bus message stream.', undefined],
  ])('%s', (line, value) => expect(parseShutdownSignal(line)).toBe(value));
});
