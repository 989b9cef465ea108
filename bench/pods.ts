// How fast pods come and go, as a watcher of the API sees it, beside the same raw calls of the runtime (bench/raw-pods.ts) by the same
// client, network and image in the same run. Needs root.
// `node bench/pods.ts [--rounds 20] [--burst 30] [--bursts 3] [--runtime containerd|docker] [--containerd 1.6|2.x] [--json FILE]`
import { readFile, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { demoImageName } from '../cri/local-images.ts';
import { resources } from '../kube/resources.ts';
import type { Pod } from '../kube/types/pod.ts';
import { runtimeId } from '../test/lab/engine.ts';
import { type LabNode, startLabNode } from '../test/lab/node.ts';
import { command, type RawPod, rawPods } from './raw-pods.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '20' },
    burst: { type: 'string', default: '30' },
    bursts: { type: 'string', default: '3' },
    runtime: { type: 'string', default: 'containerd' },
    containerd: { type: 'string', default: '1.6' },
    json: { type: 'string' },
  },
});
const rounds = Number(values.rounds);
const burst = Number(values.burst);
const bursts = Number(values.bursts);

const now = (): number => performance.now();
const percentile = (list: readonly number[], share: number): number => {
  const sorted = [...list].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
};
const p50 = (list: readonly number[]): number => percentile(list, 0.5);
const shown = (ms: number): string => `${ms.toFixed(0)} ms`;

/** Issued `width` at a time; resolves with how long each took from the common start, in ms. */
async function side<T>(items: readonly T[], width: number, work: (item: T) => Promise<void>): Promise<number[]> {
  const begun = now();
  const took: number[] = [];
  const queue = [...items];
  const lane = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) {
      await work(item);
      took.push(now() - begun);
    }
  };
  await Promise.all(Array.from({ length: width }, lane));
  return took;
}

const podOf = (name: string): Pod => ({
  metadata: { name, namespace: 'default', labels: { bench: 'pods' } },
  spec: {
    terminationGracePeriodSeconds: 30,
    containers: [{ name: 'c', image: demoImageName, imagePullPolicy: 'IfNotPresent', command }],
  },
});

/** What the watch tells, by pod and moment. */
interface Seen {
  running: Map<string, number>;
  ready: Map<string, number>;
  gone: Map<string, number>;
  restarted: Map<string, number>;
}

async function watchPods(node: LabNode, signal: AbortSignal, seen: Seen): Promise<void> {
  const watch = node.cluster.admin.watch(resources.pods, { namespace: 'default', signal });
  for await (const event of watch) {
    if (event.type === 'BOOKMARK') continue;
    const { name } = event.object.metadata;
    if (event.type === 'DELETED') seen.gone.set(name, now());
    const status = event.object.status?.containerStatuses?.[0];
    if (status?.state?.running && !seen.running.has(name)) seen.running.set(name, now());
    if (status?.ready && !seen.ready.has(name)) seen.ready.set(name, now());
    if (status && status.restartCount > 0 && status.state?.running && !seen.restarted.has(name))
      seen.restarted.set(name, now());
  }
}

async function until(what: string, holds: () => boolean, timeoutMs = 60_000): Promise<void> {
  const deadline = now() + timeoutMs;
  while (!holds()) {
    if (now() > deadline) throw new Error(`${what}: not after ${timeoutMs} ms`);
    await sleep(2);
  }
}

async function cpuSeconds(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]!.split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

async function memory(pid: number): Promise<{ resident: number; anonymous: number }> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8');
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0) / 1024;
  return { resident: field('VmRSS'), anonymous: field('RssAnon') };
}

async function main(): Promise<void> {
  const node = await startLabNode(
    values.runtime === 'docker' ? { runtime: 'docker' } : { binary: values.containerd as '1.6' | '2.x' },
  );
  const ending = new AbortController();
  const seen: Seen = { running: new Map(), ready: new Map(), gone: new Map(), restarted: new Map() };
  const raw = await rawPods({
    engine: node.engine,
    cgroupParent: `/bench-${process.pid}`,
    netns: `/run/netns/${node.host.name}`,
    stateDir: `${node.rootDir}-raw`,
  });
  const results: Record<string, { stevedore: number; raw: number; ratio: number; p99?: number }> = {};
  const note = (name: string, ours: readonly number[], floor: readonly number[]): void => {
    results[name] = {
      stevedore: p50(ours),
      raw: p50(floor),
      ratio: p50(ours) / p50(floor),
      p99: percentile(ours, 0.99),
    };
    const { stevedore, ratio, p99 = 0 } = results[name];
    process.stdout.write(
      `${name.padEnd(22)} p50 ${shown(stevedore).padStart(8)}  p99 ${shown(p99).padStart(8)}  raw ${shown(p50(floor)).padStart(8)}  ratio ${ratio.toFixed(2)}\n`,
    );
  };
  try {
    const watching = watchPods(node, ending.signal, seen).catch((error: unknown) => {
      if (!ending.signal.aborted) throw error;
    });
    process.stdout.write(`load ${(await readFile('/proc/loadavg', 'utf8')).slice(0, 14)} at the start\n`);
    const own = async (): Promise<number> => process.cpuUsage().user / 1e6 + process.cpuUsage().system / 1e6;
    const [apiBefore, daemonBefore] = [await own(), await cpuSeconds(node.pid()!)];

    const up: number[] = [];
    const down: number[] = [];
    const restart: number[] = [];
    const rawUps: number[] = [];
    const rawDowns: number[] = [];
    const rawRestarts: number[] = [];
    // One of ours, one raw, in turn: what else the machine does falls on both.
    for (let at = 0; at < rounds + 2; at++) {
      const warm = at >= 2;
      const name = `one-${at}`;
      let begun = now();
      await node.cluster.admin.create(resources.pods, podOf(name));
      await until(`${name} running`, () => seen.running.has(name));
      if (warm) up.push(seen.running.get(name)! - begun);
      const shownPod = await node.cluster.admin.get(resources.pods, { namespace: 'default', name });
      const pid = await raw.pidOf(runtimeId(shownPod.status?.containerStatuses?.[0]?.containerID));
      begun = now();
      process.kill(pid, 'SIGKILL');
      await until(`${name} restarted`, () => seen.restarted.has(name));
      if (warm) restart.push(seen.restarted.get(name)! - begun);
      begun = now();
      await node.cluster.admin.delete(resources.pods, { namespace: 'default', name });
      await until(`${name} gone`, () => seen.gone.has(name));
      if (warm) down.push(seen.gone.get(name)! - begun);

      begun = now();
      const rawPod = await raw.up(at);
      if (warm) rawUps.push(now() - begun);
      begun = now();
      const again = await raw.again(rawPod);
      if (warm) rawRestarts.push(now() - begun);
      await raw.endAgain(again);
      begun = now();
      await raw.down(rawPod);
      if (warm) rawDowns.push(now() - begun);
    }
    note('create→Running', up, rawUps);
    note('delete→gone', down, rawDowns);
    note('crash→restarted', restart, rawRestarts);

    const readyAfter: number[] = [];
    const goneAfter: number[] = [];
    const rawReady: number[] = [];
    const rawGone: number[] = [];
    // In turn too: the raw calls of one burst vary by a third, whatever else the machine does.
    for (let turn = 0; turn < bursts; turn++) {
      const names = Array.from({ length: burst }, (_, at) => `burst-${turn}-${at}`);
      let begun = now();
      await Promise.all(names.map((name) => node.cluster.admin.create(resources.pods, podOf(name))));
      await until('burst ready', () => names.every((name) => seen.ready.has(name)), 120_000);
      readyAfter.push(...names.map((name) => seen.ready.get(name)! - begun));
      begun = now();
      await Promise.all(names.map((name) => node.cluster.admin.delete(resources.pods, { namespace: 'default', name })));
      await until('burst gone', () => names.every((name) => seen.gone.has(name)), 120_000);
      goneAfter.push(...names.map((name) => seen.gone.get(name)! - begun));
      const raws: RawPod[] = [];
      const places = names.map((_, at) => 1000 * (turn + 1) + at);
      rawReady.push(...(await side(places, 8, async (at) => void raws.push(await raw.up(at)))));
      rawGone.push(...(await side(raws, 8, (pod) => raw.down(pod))));
    }
    note(`burst of ${burst}→Ready`, readyAfter, rawReady);
    note(`burst of ${burst}→gone`, goneAfter, rawGone);

    const { resident, anonymous } = await memory(node.pid()!);
    const cpu = {
      daemon: (await cpuSeconds(node.pid()!)) - daemonBefore,
      apiServerAndBench: (await own()) - apiBefore,
    };
    process.stdout.write(
      `daemon: ${resident.toFixed(0)} MB resident, ${anonymous.toFixed(0)} MB anonymous, ${cpu.daemon.toFixed(1)} s of CPU; API server and bench: ${cpu.apiServerAndBench.toFixed(1)} s\nload ${(await readFile('/proc/loadavg', 'utf8')).slice(0, 14)} at the end\n`,
    );
    if (values.json) await writeFile(values.json, JSON.stringify({ results, resident, anonymous, cpu }, null, 2));
    ending.abort();
    await watching;
  } catch (error) {
    process.stderr.write(`${await node.report()}\n`);
    throw error;
  } finally {
    ending.abort();
    await raw.close();
    await node.stop();
  }
}

await main();
