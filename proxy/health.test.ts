// The health rules, the servers, and what tells of foreign changes and of a live kube-proxy.
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import { createRegistry } from '../lib/metrics.ts';
import type { Node } from '../kube/types/core.ts';
import { createZPages } from '../kube/z-pages.ts';
import { close, healthHandler, listen, metricsHandler, serveOn } from './health.ts';
import { createForeignWatch, interestOf } from './iptables/foreign.ts';
import type { IptablesTool } from './iptables/tool.ts';
import { createKubeProxyDetector } from './kube-proxy-detector.ts';
import { createProxyMetrics } from './metrics.ts';
import { createNftMonitor, type NftMonitor } from './nft-monitor.ts';
import { createProxyHealth } from './proxy-health.ts';
import { createSwitch } from './switch.ts';
import { createServiceHealth, serviceHealthBody } from './service-health.ts';

const hasIpv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'));

const ended: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ended.splice(0)) await end();
});

async function serve(handler: Parameters<typeof createServer>[1]): Promise<string> {
  const server = createServer(handler);
  await listen(server, '127.0.0.1', 0);
  ended.push(() => close(server));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const nodeWith = (fields: Partial<Node['spec']> = {}, meta: Partial<Node['metadata']> = {}): Node => ({
  metadata: { name: 'n1', ...meta },
  spec: fields,
});

describe('health', () => {
  const setUp = () => {
    const clock = createFakeClock();
    let node: Node | undefined = nodeWith();
    const health = createProxyHealth({ clock, node: () => node, timeoutMs: () => 60_000 });
    health.updated('IPv4');
    health.updated('IPv6');
    const setNode = (next: Node | undefined): void => {
      node = next;
    };
    return { clock, health, setNode };
  };

  it('before the first write it is healthy, and says so as Go would', () => {
    const clock = createFakeClock();
    let node: Node | undefined;
    let timeoutMs = 60_000;
    const health = createProxyHealth({ clock, node: () => node, timeoutMs: () => timeoutMs });
    const currentTime = new Date(clock.now()).toISOString();
    expect(health.report('livez')).toEqual({ lastUpdated: currentTime, currentTime, healthy: true });
    expect(health.report('healthz')).toEqual({
      lastUpdated: '0001-01-01T00:00:00Z',
      currentTime,
      nodeEligible: false,
      healthy: true,
    });
    node = nodeWith();
    expect(health.report('healthz')).toMatchObject({ lastUpdated: currentTime, nodeEligible: true });
    // The time is that of the mode, once it is known.
    health.updated('IPv4');
    health.queued('IPv4');
    timeoutMs = 0;
    expect(health.healthy).toBe(false);
  });

  it('fails when an update waits for a minute, in either family, and recovers', async () => {
    const { clock, health } = setUp();
    health.queued('IPv6');
    await clock.advance(59_000);
    health.queued('IPv6');
    expect(health.healthy).toBe(true);
    await clock.advance(1_000);
    expect(health.report('livez')).toMatchObject({
      healthy: false,
      status: { IPv4: { healthy: true }, IPv6: { healthy: false } },
    });
    health.updated('IPv6');
    expect(health.healthy).toBe(true);
  });

  it.each<[string, Node | undefined]>([
    ['there is no Node', undefined],
    ['the Node is being deleted', nodeWith({}, { deletionTimestamp: '2026-01-01T00:00:00Z' })],
    [
      'Cluster Autoscaler is about to delete it',
      nodeWith({ taints: [{ key: 'ToBeDeletedByClusterAutoscaler', effect: 'NoSchedule' }] }),
    ],
  ])('healthz, not livez, fails where %s', async (_name, node) => {
    const { health, setNode } = setUp();
    setNode(node);
    const registry = createRegistry();
    const url = await serve(healthHandler(health, createProxyMetrics(registry)));
    const [healthz, livez] = [await fetch(`${url}/healthz`), await fetch(`${url}/livez`)];
    expect([healthz.status, livez.status]).toEqual([503, 200]);
    expect(await healthz.json()).toMatchObject({ nodeEligible: false, healthy: true });
    expect(await livez.json()).not.toHaveProperty('nodeEligible');
    expect(await registry.metrics()).toContain('kubeproxy_proxy_healthz_total{code="503"} 1');
  });

  it('metrics, mode and configuration are served', async () => {
    const registry = createRegistry();
    createProxyMetrics(registry);
    const zPages = createZPages(
      { clock: createFakeClock(), flags: () => ({ config: '/c' }) },
      { component: 'kube-proxy', version: 'v1', startedMs: 0, paths: ['/metrics'] },
    );
    const url = await serve(
      metricsHandler({ registry, mode: () => 'iptables', config: () => ({ a: 1 }), zPages }, silentLog),
    );
    const text = async (path: string) => (await fetch(url + path)).text();
    expect(await text('/proxyMode')).toBe('iptables');
    expect(await text('/healthz')).toBe('ok');
    expect(JSON.parse(await text('/configz'))).toEqual({ 'kubeproxy.config.k8s.io': { a: 1 } });
    expect(await text('/metrics')).toContain('kubeproxy_network_programming_duration_seconds');
    expect(await text('/healthz?verbose')).toBe('[+]ping ok\nhealthz check passed\n');
    expect(await text('/healthz/ping')).toBe('ok');
    const slis = await text('/metrics/slis');
    expect(slis).toContain('kubernetes_healthcheck{name="ping",type="healthz"} 1\n');
    expect(slis).toContain('kubernetes_healthchecks_total{name="ping",status="success",type="healthz"} 2\n');
    await fetch(`${url}/metrics/slis`, { method: 'DELETE' });
    expect(await text('/metrics/slis')).toBe('');
    expect((await fetch(`${url}/other`)).status).toBe(404);
    expect(await text('/statusz')).toMatch(/^\nkube-proxy statusz\n[\s\S]*\nPaths: \/metrics\n$/);
    const accept = 'application/json;v=v1beta1;g=config.k8s.io;as=Flagz';
    expect(await (await fetch(`${url}/flagz`, { headers: { accept } })).json()).toMatchObject({
      kind: 'Flagz',
      metadata: { name: 'kube-proxy' },
      flags: { config: '/c' },
    });
    expect((await fetch(`${url}/flagz`, { headers: { accept: 'application/json' } })).status).toBe(406);
  });
});

describe('a server', () => {
  it('leaves its address to others while it is told to', async () => {
    const probe = createServer();
    await listen(probe, '127.0.0.1', 0);
    const { port } = probe.address() as AddressInfo;
    await close(probe);
    const serving = createSwitch(true);
    const stop = new AbortController();
    const deps = { clock: createFakeClock(), log: silentLog, hardFail: true, serving };
    const done = serveOn(deps, 'it', `127.0.0.1:${port}`, (_request, response) => response.end('yes'), stop.signal);
    const ask = (): Promise<string> =>
      fetch(`http://127.0.0.1:${port}/`).then(
        (answer) => answer.text(),
        () => 'no',
      );
    const becomes = async (wanted: string): Promise<void> => {
      for (let tries = 0; (await ask()) !== wanted && tries < 100; tries++) await new Promise(setImmediate);
      expect(await ask()).toBe(wanted);
    };
    await becomes('yes');
    serving.set(false);
    await becomes('no');
    serving.set(true);
    await becomes('yes');
    stop.abort();
    await done;
    expect(await ask()).toBe('no');
  });
});

it.runIf(hasIpv6)('on 0.0.0.0, the default, is reached by IPv6 too, as in kube-proxy', async () => {
  const probe = createServer();
  await listen(probe, '127.0.0.1', 0);
  const { port } = probe.address() as AddressInfo;
  await close(probe);
  const stop = new AbortController();
  const deps = { clock: createFakeClock(), log: silentLog, hardFail: true };
  const done = serveOn(deps, 'it', `0.0.0.0:${port}`, (_request, response) => response.end('yes'), stop.signal);
  const ask = (host: string): Promise<string> =>
    fetch(`http://${host}:${port}/`).then(
      (answer) => answer.text(),
      () => 'no',
    );
  for (let tries = 0; (await ask('127.0.0.1')) === 'no' && tries < 100; tries++) await new Promise(setImmediate);
  expect([await ask('127.0.0.1'), await ask('[::1]')]).toEqual(['yes', 'yes']);
  stop.abort();
  await done;
});

describe('health check node ports', () => {
  it('answer whether local endpoints are ready, and close when the Service goes', async () => {
    const counts = new Map([['ns/web', 2]]);
    let healthy = true;
    const probe = createServer();
    await listen(probe, '127.0.0.1', 0);
    const { port } = probe.address() as AddressInfo;
    const events: unknown[] = [];
    const health = createServiceHealth({
      log: silentLog,
      events: { record: (...event) => void events.push(event) },
      nodeName: 'n1',
      family: 'IPv4',
      addresses: () => ['127.0.0.1'],
      healthy: () => healthy,
      localReady: (key) => counts.get(key) ?? 0,
    });
    ended.push(() => health.stop());
    const ask = () => fetch(`http://127.0.0.1:${port}/`);
    await health.sync(new Map([['ns/web', port]]));
    expect(events).toHaveLength(1);
    await close(probe);
    await health.sync(new Map([['ns/web', port]]));
    const answer = await ask();
    expect(answer.status).toBe(200);
    expect(answer.headers.get('x-load-balancing-endpoint-weight')).toBe('2');
    expect(await answer.text()).toBe(serviceHealthBody('ns/web', 2, true));
    healthy = false;
    expect((await ask()).status).toBe(503);
    healthy = true;
    counts.clear();
    expect(await (await ask()).json()).toEqual({
      service: { namespace: 'ns', name: 'web' },
      localEndpoints: 0,
      serviceProxyHealthy: true,
    });
    await health.sync(new Map());
    await expect(ask()).rejects.toThrow();
  });
});

describe('foreign changes', () => {
  it.each([
    ['delete rule ip nat KUBE-SERVICES handle 3', true],
    ['delete rule ip nat PREROUTING handle 5', false],
    ['delete rule ip filter INPUT handle 5', true],
    ['delete chain ip nat PREROUTING', true],
    ['delete table ip nat', true],
    ['delete chain ip filter KUBE-FORWARD', true],
    ['delete rule ip6 nat KUBE-SERVICES handle 3', false],
    ['delete rule ip nat CNI-HOSTPORT-DNAT handle 3', false],
    ['delete rule ip filter KUBE-FIREWALL handle 3', false],
    ['add rule ip nat KUBE-SERVICES counter', false],
  ])('%s', (line, wanted) => expect(interestOf('ip')(line) !== undefined).toBe(wanted));

  it('in built-in chains cost one look at the chain; only a jump of ours that went is told', async () => {
    const clock = createFakeClock();
    const told: string[] = [];
    const listed: string[] = [];
    const watchers: { interest: (line: string) => string | undefined; tell: (what: string) => void }[] = [];
    const monitor: NftMonitor = {
      noteOwn: () => undefined,
      ownBegins: () => undefined,
      ownEnds: () => undefined,
      listening: () => Promise.resolve(),
      running: true,
      run: () => Promise.resolve(),
      watch(interest, onChange) {
        watchers.push({ interest, tell: (what) => onChange({ what }) });
        return () => undefined;
      },
    };
    const jump = '-m comment --comment "kubernetes postrouting rules" -c 3 180 -j KUBE-POSTROUTING';
    let rules = [jump, '-s 10.244.0.9/32 -c 0 0 -j CNI-abc'];
    const tool = {
      family: 'IPv4',
      variant: 'nft',
      list: (table: string, chain: string) => {
        listed.push(`${table} ${chain}`);
        return Promise.resolve(rules);
      },
    } as unknown as IptablesTool;
    const stop = new AbortController();
    const done = createForeignWatch({ tool, clock, log: silentLog, monitor })(
      ({ what }) => told.push(what),
      stop.signal,
    );
    const happens = (line: string): void => {
      for (const { interest, tell } of watchers) if (interest(line) !== undefined) tell(line);
    };
    for (let at = 0; at < 30; at++) happens(`delete rule ip nat POSTROUTING handle ${at}`);
    await clock.advance(60);
    expect([listed, told]).toEqual([['nat POSTROUTING'], []]);
    rules = rules.slice(1);
    happens('delete rule ip nat POSTROUTING handle 7');
    await clock.advance(60);
    expect(told).toEqual(['the jump from POSTROUTING of nat to KUBE-POSTROUTING is gone']);
    stop.abort();
    await clock.advance(10_000);
    await done;
  });

  it('are told apart from our own by the process that made them', async () => {
    const clock = createFakeClock();
    const lines = [
      'delete rule ip nat KUBE-SERVICES handle 3',
      '# new generation 4 by process 100 (iptables-restor)',
      'delete rule ip nat KUBE-SERVICES handle 9',
      '# new generation 5 by process 200 (iptables)',
      'add rule ip nat KUBE-SERVICES counter',
      '# new generation 6 by process 300 (iptables)',
    ];
    const stop = new AbortController();
    const monitor = createNftMonitor({
      clock,
      log: silentLog,
      listens: () => Promise.resolve(true),
      async *follow() {
        yield* lines;
        await new Promise<void>((resolve) => stop.signal.addEventListener('abort', () => resolve(), { once: true }));
      },
    });
    const told: string[] = [];
    monitor.noteOwn(100);
    const unwatch = monitor.watch(interestOf('ip'), ({ what }) => told.push(what));
    const done = monitor.run(stop.signal);
    await clock.advance(0);
    expect(told).toEqual(['delete rule ip nat KUBE-SERVICES handle 9 (new generation 5 by process 200 (iptables))']);
    unwatch();
    stop.abort();
    await done;
  });
});

describe('nft monitor', () => {
  // Lines go in through `happens`; the monitor listens from `listens` on.
  const setUp = () => {
    const clock = createFakeClock();
    const stop = new AbortController();
    const told: { what: string; routine?: boolean }[] = [];
    const queue: string[] = [];
    let more = Promise.withResolvers<void>();
    let listens = false;
    stop.signal.addEventListener('abort', () => more.resolve(), { once: true });
    const monitor = createNftMonitor({
      clock,
      log: silentLog,
      listens: () => Promise.resolve(listens),
      async *follow(_command, _args, { onSpawn }) {
        onSpawn?.(7);
        while (!stop.signal.aborted) {
          yield* queue.splice(0);
          await more.promise;
          more = Promise.withResolvers();
        }
      },
    });
    monitor.watch(interestOf('ip'), (change) => told.push(change));
    const done = monitor.run(stop.signal);
    return {
      clock,
      monitor,
      told,
      listen: () => {
        listens = true;
      },
      async happens(...lines: string[]) {
        queue.push(...lines);
        more.resolve();
        await clock.advance(0);
      },
      async end() {
        stop.abort();
        await clock.advance(100);
        await done;
      },
    };
  };
  const flushed = ['delete rule ip nat KUBE-SERVICES handle 9', '# new generation 5 by process 200 (iptables)'];

  it('runs once it hears of changes; who watched before that is told to look', async () => {
    const t = setUp();
    const heard: string[] = [];
    void t.monitor.listening(2_000, AbortSignal.timeout(10_000)).then(() => heard.push('listening'));
    await t.clock.advance(500);
    expect([t.monitor.running, t.told, heard]).toEqual([false, [], []]);
    t.listen();
    await t.clock.advance(20);
    expect([t.monitor.running, heard]).toEqual([true, ['listening']]);
    expect(t.told).toEqual([{ what: 'nft monitor has only now begun to listen', routine: true }]);
    await t.end();
  });

  it('takes nothing for ours while we only read, whose process ids those may be', async () => {
    const t = setUp();
    t.monitor.ownBegins(0);
    await t.happens(...flushed);
    t.monitor.ownEnds();
    expect(t.told).toHaveLength(1);
    await t.end();
  });

  it('in another PID namespace takes as many transactions for ours as we make, and one more tells of those before', async () => {
    const t = setUp();
    t.monitor.ownBegins(1);
    await t.happens(...flushed);
    expect(t.told).toEqual([]);
    await t.happens('add rule ip nat KUBE-X counter', '# new generation 6 by process 300 (iptables-restor)');
    expect(t.told).toEqual([
      { what: 'delete rule ip nat KUBE-SERVICES handle 9 (new generation 6 by process 300 (iptables-restor))' },
    ]);
    t.monitor.ownEnds();
    await t.end();
  });
});

describe('a live kube-proxy', () => {
  it('is one of that name, alive, in our network', async () => {
    const root = await mkdtemp(join(tmpdir(), 'proc-'));
    ended.push(() => rm(root, { recursive: true }));
    const add = async (pid: string, comm: string, cmdline: string, net: string): Promise<void> => {
      await mkdir(join(root, pid, 'ns'), { recursive: true });
      await writeFile(join(root, pid, 'comm'), `${comm}\n`);
      await writeFile(join(root, pid, 'cmdline'), cmdline);
      await symlink(net, join(root, pid, 'ns/net'));
    };
    await add('self', 'node', 'node\0', 'net:[1]');
    await add('10', 'kube-proxy', '/usr/local/bin/kube-proxy\0--config=x\0', 'net:[2]');
    await add('11', 'kube-proxy', '', 'net:[1]');
    await add('12', 'kube-proxy', 'sh\0', 'net:[1]');
    const detect = createKubeProxyDetector({ procRoot: root });
    expect(await detect()).toBeUndefined();
    await add('13', 'kube-proxy', '/usr/local/bin/kube-proxy\0', 'net:[1]');
    expect(await detect()).toBe('process 13 (/usr/local/bin/kube-proxy)');
  });
});
