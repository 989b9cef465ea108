// How fast Services reach the kernel: cold load, one endpoint change, restart, each beside the raw tool doing the same rules in the same
// run. Needs root. `node bench/proxy.ts [--mode iptables|nftables] [--services 1,100,1000] [--endpoints 10] [--changes 200]`
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import type { EndpointSlice, Service } from '../kube/types/core.ts';
import { systemClock } from '../lib/clock.ts';
import { createLog } from '../lib/log.ts';
import type { NodeFacts, RulesBackend } from '../proxy/backend.ts';
import { createBackendContext, openBackend, type BackendContext, type BackendKind } from '../proxy/backends.ts';
import { createProxyState, type ProxyState } from '../proxy/state.ts';
import { createSync, type Sync } from '../proxy/sync.ts';
import { createLabHost, type LabHost } from '../test/lab/netns.ts';
import { watchLoop } from './loop-watch.ts';
import { treeCpuMs } from './tree-cpu.ts';

const { values } = parseArgs({
  options: {
    mode: { type: 'string', default: 'iptables' },
    services: { type: 'string', default: '1,100,1000' },
    endpoints: { type: 'string', default: '10' },
    changes: { type: 'string', default: '100' },
    /** A point that takes longer than this, in seconds, is recorded as unfinished. */
    limit: { type: 'string', default: '60' },
    json: { type: 'string' },
  },
});

const mode = values.mode as BackendKind;
const endpointsEach = Number(values.endpoints);
const changeCount = Number(values.changes);
const limitMs = Number(values.limit) * 1000;
const log = createLog({ level: 'warn', format: 'text' });

const facts: NodeFacts = {
  localDetector: { kind: 'cidr', cidr: '10.192.0.0/10' },
  nodeIP: '172.20.0.1',
  nodePortAddresses: 'all',
  masqueradeAll: false,
  masqueradeBit: 14,
  localhostNodePorts: false,
  conntrackBeLiberal: false,
  serviceCidrs: [],
};

const serviceOf = (at: number): Service => {
  const clusterIP = `10.${96 + (at >> 16)}.${(at >> 8) & 255}.${at & 255}`;
  return {
    metadata: { namespace: 'bench', name: `s${at}` },
    spec: {
      type: 'ClusterIP',
      clusterIP,
      clusterIPs: [clusterIP],
      ipFamilies: ['IPv4'],
      ports: [{ name: 'http', port: 80, protocol: 'TCP' }],
    },
  };
};

const sliceOf = (at: number, count: number, shift = 0): EndpointSlice => ({
  metadata: { namespace: 'bench', name: `s${at}-1`, labels: { 'kubernetes.io/service-name': `s${at}` } },
  addressType: 'IPv4',
  endpoints: Array.from({ length: count }, (_, index) => {
    const number = at * endpointsEach + index + shift;
    return {
      addresses: [`10.${192 + ((number >> 16) & 31)}.${(number >> 8) & 255}.${number & 255}`],
      nodeName: `n${index}`,
    };
  }),
  ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
});

function fill(state: ProxyState, services: number): void {
  for (let at = 0; at < services; at++) {
    const [service, slice] = [serviceOf(at), sliceOf(at, endpointsEach)];
    state.services.change({ key: `bench/s${at}`, before: undefined, after: service });
    state.endpoints.change({ key: `bench/s${at}-1`, before: undefined, after: slice });
  }
}

const quantile = (list: readonly number[], q: number): number =>
  [...list].sort((a, b) => a - b)[Math.min(list.length - 1, Math.floor(list.length * q))] ?? Number.NaN;
const ms = (value: number): number => Math.round(value * 10) / 10;
const ratio = (ours: number, floor: number): number => Math.round((ours / floor) * 100) / 100;

async function timed<T>(work: () => Promise<T>): Promise<{ took: number; value: T }> {
  const start = performance.now();
  const value = await work();
  return { took: performance.now() - start, value };
}

/** By the clock, and what this process and the tools it started computed. */
async function measured(work: () => Promise<unknown>): Promise<{ took: number; cpu: number }> {
  const start = treeCpuMs();
  const { took } = await timed(work);
  return { took, cpu: treeCpuMs() - start };
}

interface Running {
  readonly sync: Sync;
  readonly writes: (() => void)[];
  readonly stop: () => Promise<void>;
}

function start(backend: RulesBackend, state: ProxyState, wakers: (() => void)[]): Running {
  const stopping = new AbortController();
  const writes: (() => void)[] = [];
  const sync = createSync({
    backend,
    state,
    clock: systemClock,
    log,
    onWritten: () => {
      for (const done of writes.splice(0)) done();
    },
    onFailure: (error) => log.error('a write failed', { error }),
    onRefused: (key, _state, error) => log.error('refused', { key, error }),
  });
  wakers.splice(0, wakers.length, () => sync.wake());
  const done = sync.run(stopping.signal);
  return {
    sync,
    writes,
    async stop() {
      stopping.abort();
      await done;
    },
  };
}

const written = (running: Running): Promise<void> => new Promise((resolve) => running.writes.push(resolve));

/** The raw tool: the whole ruleset, and a listing. */
interface Raw {
  load(text: string): Promise<void>;
  list(): Promise<unknown>;
}

function rawTool(host: LabHost): Raw {
  const [load, list] =
    mode === 'iptables'
      ? [['iptables-restore', '--noflush', '-w', '5'], ['iptables-save']]
      : [
          ['nft', '-f', '-'],
          ['nft', '-j', 'list', 'ruleset'],
        ];
  const run = (command: readonly string[], input?: string) =>
    host.exec(command[0]!, command.slice(1), {
      timeoutMs: limitMs,
      maxOutputBytes: 2 ** 30,
      ...(input === undefined ? {} : { input }),
    });
  return {
    load: async (text) => void (await run(load!, text)),
    list: () => run(list!),
  };
}

async function measurePoint(services: number): Promise<Record<string, unknown>> {
  const point: Record<string, unknown> = { mode, services, endpointsEach };
  const stateDir = mkdtempSync(join(tmpdir(), 'bench-proxy-'));
  const [rawHost, host] = [await createLabHost('bench-raw'), await createLabHost('bench')];
  const wakers: (() => void)[] = [];
  const monitorStop = new AbortController();
  const running: Promise<unknown>[] = [];
  const loop = watchLoop();
  const noteLoop = (what: string): void => {
    const { wallMs, cpuMs } = loop.take();
    point[`${what}LoopMs`] = ms(wallMs);
    point[`${what}LoopCpuMs`] = ms(cpuMs);
  };
  try {
    const state = createProxyState({ nodeName: 'n1', startedAtMs: 0, onDirty: () => wakers[0]?.() });
    const filled = await timed(async () => fill(state, services));
    point.fillCachesMs = ms(filled.took);
    const real = createBackendContext(systemClock, log, { enter: host.enter });
    const inputs: string[] = [];
    const context: BackendContext = {
      ...real,
      stateDir,
      exec(command, args, options) {
        if (options?.input !== undefined) inputs.push(String(options.input));
        return real.exec(command, args, options);
      },
      converse(command, args, options) {
        const conversation = real.converse!(command, args, options);
        return {
          pid: conversation.pid,
          get ended() {
            return conversation.ended;
          },
          ask(asked, mark, askOptions) {
            // The last line only marks the end of the answer.
            const transaction = asked.slice(0, asked.lastIndexOf('\n', asked.length - 2) + 1);
            if (transaction !== '') inputs.push(transaction);
            return conversation.ask(asked, mark, askOptions);
          },
          end: () => conversation.end(),
        };
      },
    };
    running.push(context.monitor.run(monitorStop.signal));
    const open = async (): Promise<RulesBackend> => {
      const backend = await openBackend(mode, 'IPv4', context);
      backend.configure(facts);
      return backend;
    };
    const backend = await open();
    const text = await backend.render(state.desired('IPv4'));
    point.rulesetBytes = text.length;

    const raw = rawTool(rawHost);
    const rawLoad = await measured(() => raw.load(text));
    const rawList = await measured(() => raw.list());
    [point.rawLoadMs, point.rawLoadCpuMs] = [ms(rawLoad.took), rawLoad.cpu];
    [point.rawListMs, point.rawListCpuMs] = [ms(rawList.took), rawList.cpu];
    const against = (what: string, floor: { took: number; cpu: number }, ours: { took: number; cpu: number }): void => {
      point[`${what}Ms`] = ms(ours.took);
      point[`${what}OverRaw`] = ratio(ours.took, floor.took);
      point[`${what}CpuMs`] = ours.cpu;
      point[`${what}CpuOverRaw`] = ratio(ours.cpu, floor.cpu);
    };

    loop.take();
    const cold = start(backend, state, wakers);
    against('cold', rawLoad, await measured(() => written(cold)));
    noteLoop('cold');

    inputs.length = 0;
    const latencies: number[] = [];
    const rawPartial: number[] = [];
    for (let round = 0; round < changeCount; round++) {
      // Two rounds for each Service: an endpoint goes, an endpoint comes.
      const at = (Math.floor(round / 2) * 7919) % services;
      const [whole, fewer] = [sliceOf(at, endpointsEach), sliceOf(at, endpointsEach - 1)];
      const [before, slice] = round % 2 === 0 ? [whole, fewer] : [fewer, whole];
      const took = await timed(async () => {
        const done = written(cold);
        state.endpoints.change({ key: `bench/s${at}-1`, before, after: slice });
        await done;
      });
      latencies.push(took.took);
      // Back to idle, so that each change is a first one; the raw tool then does the very same.
      await systemClock.sleep(110);
      for (const input of inputs.splice(0)) rawPartial.push((await timed(() => raw.load(input))).took);
    }
    point.changeP50Ms = ms(quantile(latencies, 0.5));
    point.changeP99Ms = ms(quantile(latencies, 0.99));
    if (rawPartial.length > 0) point.rawPartialP50Ms = ms(quantile(rawPartial, 0.5));
    noteLoop('change');
    await cold.stop();

    loop.take();
    const again = start(await open(), state, wakers);
    against('restart', rawList, await measured(() => written(again)));
    noteLoop('restart');
    await again.stop();

    // A crash leaves nothing behind that spares the listing.
    rmSync(stateDir, { recursive: true });
    loop.take();
    const crashed = start(await open(), state, wakers);
    against('crashRestart', rawList, await measured(() => written(crashed)));
    noteLoop('crashRestart');
    await crashed.stop();
    point.rssMB = Math.round(process.memoryUsage.rss() / 2 ** 20);
    point.heapMB = Math.round(process.memoryUsage().heapUsed / 2 ** 20);
  } catch (error) {
    point.unfinished = String(error).slice(0, 300);
  } finally {
    loop.stop();
    point.load = ms(loadavg()[0] ?? 0);
    monitorStop.abort();
    await Promise.all(running);
    await Promise.all([rawHost.stop(), host.stop()]);
    rmSync(stateDir, { recursive: true, force: true });
  }
  return point;
}

const points: Record<string, unknown>[] = [];
for (const services of values.services.split(',').map(Number)) {
  const point = await measurePoint(services);
  points.push(point);
  console.log(JSON.stringify(point));
}
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(points, undefined, 2)}\n`);
