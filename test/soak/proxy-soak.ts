// Random changes for as long as one likes, and at every checkpoint the kernel's rules beside a model; restarts and others' hands between.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { resources } from '../../kube/resources.ts';
import { createServicesLab, type RunningProxy } from '../lab/services-lab.ts';
import { viewIptables, viewNftables } from './kernel-view.ts';
import {
  createRandom,
  differences,
  drawEndpoints,
  drawService,
  type ModelService,
  objectsOf,
  viewOf,
} from './proxy-model.ts';

export interface SoakOptions {
  readonly mode: 'iptables' | 'nftables';
  readonly services: number;
  readonly seconds: number;
  /** Changes in a second. */
  readonly rate: number;
  readonly checkpointSeconds: number;
  readonly seed: number;
  report(line: string): void;
}

export interface SoakResult {
  readonly changes: number;
  readonly checkpoints: number;
  readonly restarts: number;
  readonly harms: number;
  /** How long after the last change the reading began that showed the kernel equal to the model; 0: the first one did. */
  readonly settledMs: readonly number[];
  /** At the first and at the last checkpoint. */
  readonly rssMB: readonly [number, number];
}

const settleLimitMs = 60_000;

/** Rejects at the first checkpoint that does not come to equal the model within a minute. */
export async function soakProxy(options: SoakOptions): Promise<SoakResult> {
  const { mode, rate, report } = options;
  const random = createRandom(options.seed);
  const lab = await createServicesLab();
  const stateDir = await mkdtemp(join(tmpdir(), 'soak-proxy-'));
  const model = new Map<number, ModelService>();
  const settledMs: number[] = [];
  const rss: number[] = [];
  let running: RunningProxy | undefined;
  let [changes, restarts, harms] = [0, 0, 0];

  const start = (): Promise<RunningProxy> => lab.startProxy({ mode }, { stateDir }, { firstSyncMs: 300_000 });
  const put = async (next: ModelService, isNew: boolean): Promise<void> => {
    const { service, slice } = objectsOf(next);
    if (isNew) {
      lab.api.seed(resources.services, service);
      lab.api.seed(resources.endpointSlices, slice);
    } else {
      await lab.api.update(resources.services, service);
      await lab.api.update(resources.endpointSlices, slice);
    }
    model.set(next.number, next);
  };
  const change = async (): Promise<void> => {
    changes++;
    const number = random(options.services);
    const there = model.get(number);
    if (!there) return put(drawService(number, random), true);
    switch (random(10)) {
      case 0:
        lab.api.remove(resources.services, { namespace: 'soak', name: `s${number}` });
        lab.api.remove(resources.endpointSlices, { namespace: 'soak', name: `s${number}-1` });
        model.delete(number);
        return undefined;
      case 1:
        return put({ ...drawService(number, random), endpoints: there.endpoints }, false);
      default:
        return put({ ...there, endpoints: drawEndpoints(random) }, false);
    }
  };
  const harm = async (): Promise<void> => {
    harms++;
    const [command, ...args] =
      mode === 'iptables'
        ? ['iptables', '-t', 'nat', '-F', 'KUBE-SERVICES']
        : ['nft', 'flush', 'map', 'ip', 'stevedore', 'svc'];
    await lab.node.exec(command!, args);
  };
  const checkpoint = async (): Promise<void> => {
    const startMs = performance.now();
    let readMs = startMs;
    for (;;) {
      readMs = performance.now();
      const kernel = await (mode === 'iptables' ? viewIptables(lab.node) : viewNftables(lab.node));
      const found = [...differences(kernel.fronts, viewOf(model.values())), ...kernel.leftovers];
      if (found.length === 0) break;
      if (performance.now() - startMs > settleLimitMs)
        throw new Error(
          `the kernel is not as the model after ${changes} changes (seed ${options.seed}), ${found.length} differences:\n${found.slice(0, 20).join('\n')}\n${running?.lines.slice(-20).join('') ?? ''}`,
        );
      await sleep(100);
    }
    const took = readMs - startMs;
    settledMs.push(Math.round(took));
    rss.push(Math.round(process.memoryUsage.rss() / 2 ** 20));
    report(
      `${changes} changes, ${model.size} Services, ${restarts} restarts, ${harms} harms: kernel equals model after ${Math.round(took)} ms; ${rss.at(-1)} MB resident`,
    );
  };

  try {
    for (let number = 0; number < options.services; number++)
      if (random(10) < 8) await put(drawService(number, random), true);
    running = await start();
    await checkpoint();
    const endMs = performance.now() + options.seconds * 1000;
    for (let round = 1; performance.now() < endMs; round++) {
      const roundEndMs = Math.min(endMs, performance.now() + options.checkpointSeconds * 1000);
      for (let dueMs = performance.now(); performance.now() < roundEndMs; dueMs += 1000 / rate) {
        await change();
        await sleep(Math.max(0, dueMs - performance.now()));
      }
      if (round % 3 === 0) {
        restarts++;
        await running.stop();
        for (let count = 0; count < 5; count++) await change();
        running = await start();
      }
      if (round % 4 === 2) await harm();
      await checkpoint();
    }
    return {
      changes,
      checkpoints: settledMs.length,
      restarts,
      harms,
      settledMs,
      rssMB: [rss[0] ?? 0, rss.at(-1) ?? 0],
    };
  } finally {
    await running?.stop();
    await lab.stop();
    await rm(stateDir, { recursive: true, force: true });
  }
}
