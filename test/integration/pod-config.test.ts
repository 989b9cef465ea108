// What is made of a pod's spec, on real containerds: the sandbox and container the runtime makes of our configuration, the cgroups they
// live in, probes and hooks against them, a resize, and the last words.
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { containerConfig } from '../../agent/containers/container-config.ts';
import { runHook } from '../../agent/containers/hooks.ts';
import { podHostname } from '../../agent/containers/hostname.ts';
import { hostsFile, hostsMount, writeHostsFile } from '../../agent/containers/hosts-file.ts';
import { sandboxConfig } from '../../agent/containers/sandbox-config.ts';
import { createTerminationLog, terminationMessage } from '../../agent/containers/termination-message.ts';
import { createProber } from '../../agent/probes/prober.ts';
import { type CgroupMounts, findCgroupMounts } from '../../agent/resources/cgroup-mounts.ts';
import { type CgroupTree, createCgroupTree } from '../../agent/resources/cgroup-tree.ts';
import { createPodCgroups, type PodCgroups } from '../../agent/resources/pod-cgroups.ts';
import { createResizer } from '../../agent/resources/resizer.ts';
import { demoImage, demoImageName, readBusybox } from '../../cri/local-images.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId, SandboxId } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { type Engine, engineKinds, startEngine, titleOf } from '../lab/engine.ts';

const container: Container = {
  name: 'main',
  image: demoImageName,
  command: [
    '/bin/sh',
    '-c',
    'trap "echo -n $(WORDS) > /dev/termination-log; exit 3" TERM; httpd -p 8081 -h /tmp; touch /tmp/up; while :; do sleep 0.1; done',
  ],
  env: [{ name: 'WORDS', value: 'bye' }],
  workingDir: '/tmp',
  terminationMessagePath: '/dev/termination-log',
  terminationMessagePolicy: 'File',
  resources: { requests: { cpu: '100m', memory: '32Mi' }, limits: { cpu: '200m', memory: '64Mi' } },
  ports: [{ name: 'web', containerPort: 8081 }],
  startupProbe: { exec: { command: ['test', '-e', '/tmp/up'] }, periodSeconds: 1 },
  readinessProbe: { httpGet: { port: 'web', path: '/index.html' }, periodSeconds: 1, failureThreshold: 1 },
  livenessProbe: { tcpSocket: { port: 'web' }, periodSeconds: 1 },
  securityContext: { capabilities: { drop: ['ALL'], add: ['NET_BIND_SERVICE'] }, allowPrivilegeEscalation: false },
};
const pod: Pod = {
  metadata: { name: 'whole', namespace: 'shop', uid: 'aaaa-1', generation: 1, labels: { app: 'whole' } },
  spec: {
    containers: [container],
    hostname: 'busy',
    subdomain: 'sub',
    hostAliases: [{ ip: '192.0.2.7', hostnames: ['alias'] }],
    securityContext: {
      runAsUser: 1234,
      runAsGroup: 5678,
      fsGroup: 99,
      supplementalGroups: [77],
      sysctls: [{ name: 'net.ipv4.ip_unprivileged_port_start', value: '80' }],
    },
  },
};

for (const kind of engineKinds()) {
  describe(`a pod on ${titleOf(kind)}`, () => {
    const root = `/stevedore-pod-${process.pid}-${kind.replace('.', '')}`;
    const podDirectory = (): string => join(folder, 'pods/aaaa-1');
    let folder: string;
    let engine: Engine;
    let runtime: Runtime;
    let mounts: CgroupMounts;
    let tree: CgroupTree;
    let cgroups: PodCgroups;
    let sandbox: SandboxId;
    let id: ContainerId;
    let ip: string;
    const facts = () => ({
      cgroupVersion: mounts.version,
      cpuCfsQuota: true,
      cpuCfsQuotaPeriodUs: 100_000,
      memoryCapacityBytes: 4 * 2 ** 30,
      swap: { available: false, behavior: 'NoSwap' as const, capacityBytes: 0 },
      hugepageSizes: [],
      podPidsLimit: 500,
      podLogsDirectory: join(folder, 'logs'),
      seccompProfileRoot: join(folder, 'seccomp'),
      seccompDefault: true,
      moreMaskedPaths: [],
    });
    const sh = async (script: string): Promise<string> => {
      const { stdout, stderr } = await runtime.execSync(id, ['/bin/sh', '-c', script], { timeoutMs: 10_000 });
      return `${Buffer.from(stdout).toString()}${Buffer.from(stderr).toString()}`.trim();
    };

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sv-pod-'));
      engine = await startEngine({ kind, dir: join(folder, 'c') });
      await engine.loadImage(imageArchive([demoImage(imageArchitecture(), await readBusybox())]));
      runtime = await engine.openRuntime(join(folder, 'state'));
      mounts = await findCgroupMounts();
      tree = createCgroupTree(mounts);
      cgroups = createPodCgroups(
        { tree, clock: systemClock, log: silentLog },
        { ...facts(), driver: 'cgroupfs', version: mounts.version, root, perQos: true },
      );
      await cgroups.prepare({ cpuMilli: 2000, memoryBytes: 2 ** 31 });
      await cgroups.ensure(pod);
      const name = podHostname(pod, 'cluster.local');
      const config = sandboxConfig(
        {
          pod,
          attempt: 0,
          seen: { source: 'api', atMs: Date.now() },
          name,
          dns: { servers: ['192.0.2.53'], searches: ['shop.svc.cluster.local'], options: ['ndots:5'] },
          cgroupParent: cgroups.parentFor(pod),
          volumeGroups: [],
        },
        facts(),
      );
      await mkdir(join(config.logDirectory, 'main'), { recursive: true });
      sandbox = await runtime.runSandbox(config, '');
      ip = (await runtime.sandboxStatus(sandbox)).ips[0] ?? '';
      await writeHostsFile(podDirectory(), hostsFile(pod, name, [ip], ''));
      const terminationLog = await createTerminationLog(podDirectory(), container, false);
      const made = containerConfig(
        {
          pod,
          container,
          restartCount: 0,
          imageRef: demoImageName,
          imageUser: {},
          runtimeHandler: '',
          env: { WORDS: 'bye' },
          mounts: [hostsMount(podDirectory(), false), terminationLog!],
          devices: [],
          volumeGroups: [],
        },
        facts(),
      );
      id = await runtime.createContainer(sandbox, made, config);
      await runtime.startContainer(id);
    });

    afterAll(async () => {
      if (sandbox) {
        await runtime.stopSandbox(sandbox).catch(() => undefined);
        await runtime.removeSandbox(sandbox).catch(() => undefined);
      }
      await cgroups?.remove('aaaa-1');
      await tree?.remove(root);
      await runtime?.close();
      await engine?.stop();
      if (folder) await rm(folder, { recursive: true, force: true });
    });

    it('is who its spec says, and may do no more', async () => {
      expect(await sh('id -u; id -g; id -G')).toMatch(/^1234\n5678\n(?=.*\b99\b)(?=.*\b77\b)/);
      expect(await sh('hostname')).toBe('busy');
      const status = await sh('grep -E "^(CapBnd|NoNewPrivs|Seccomp):" /proc/self/status');
      expect(status).toMatch(/CapBnd:\s+0000000000000400/);
      expect(status).toMatch(/NoNewPrivs:\s+1/);
      expect(status).toMatch(/Seccomp:\s+2/);
      expect(await sh('cat /proc/sys/net/ipv4/ip_unprivileged_port_start')).toBe('80');
    });

    it('finds names where Kubernetes puts them', async () => {
      expect(await sh('cat /etc/hosts')).toContain(`${ip}\tbusy.sub.shop.svc.cluster.local\tbusy`);
      expect(await sh('cat /etc/hosts')).toContain('192.0.2.7\talias');
      const resolv = await sh('cat /etc/resolv.conf');
      expect(resolv).toMatch(/search shop\.svc\.cluster\.local\nnameserver 192\.0\.2\.53\noptions ndots:5/);
    });

    it("lives in the pod's cgroup with its own limits", async () => {
      const path = cgroups.parentFor(pod);
      expect(path).toBe(`${root}/kubepods/burstable/podaaaa-1`);
      const own = `${path}/${id}`;
      const [memory, quota] =
        mounts.version === 2 ? ['memory.max', 'cpu.max'] : ['memory.limit_in_bytes', 'cpu.cfs_quota_us'];
      expect(await tree.read(own, 'memory', memory)).toBe(String(64 * 2 ** 20));
      expect(await tree.read(own, 'cpu', quota)).toMatch(/^20000\b/);
      expect(await tree.read(path, 'memory', memory)).toBe(String(64 * 2 ** 20));
      expect(await tree.read(path, 'pids', 'pids.max')).toBe('500');
    });

    it('is probed by command, HTTP and TCP', async () => {
      const changes: string[] = [];
      const events: string[] = [];
      const prober = createProber({
        runtime,
        clock: systemClock,
        log: silentLog,
        events: { record: (_about, _type, reason, message) => events.push(`${reason} ${message}`) },
        onChange: () => {
          const { started, ready, failed } = prober.state(container, id);
          changes.push(
            `${started ? 'started' : 'starting'} ${ready ? 'ready' : 'unready'} ${failed?.kind ?? ''}`.trim(),
          );
        },
      });
      const until = async (state: string): Promise<void> => {
        for (let tries = 0; tries < 150 && changes.at(-1) !== state; tries++) await sleep(50);
        expect({ last: changes.at(-1), events }).toMatchObject({ last: state });
      };
      try {
        await sh('echo up > /tmp/index.html');
        prober.sync(pod, ip, [{ container, id, startedAtMs: Date.now() }], false);
        await until('started ready');
        await sh('rm /tmp/index.html');
        await until('started unready');
        expect(events).toContain('Unhealthy Readiness probe failed: HTTP probe failed with statuscode: 404');
        await sh('echo up > /tmp/index.html');
        await until('started ready');
      } finally {
        prober.close();
      }
    });

    it('runs hooks', async () => {
      const hook = (handler: Parameters<typeof runHook>[1]['handler']): Promise<void> =>
        runHook(
          { runtime, clock: systemClock, log: silentLog, events: { record: () => undefined } },
          { kind: 'postStart', pod, container, containerId: id, podIp: ip, handler },
          AbortSignal.timeout(10_000),
        );
      await hook({ exec: { command: ['/bin/sh', '-c', 'echo hooked > /tmp/hooked'] } });
      expect(await sh('cat /tmp/hooked')).toBe('hooked');
      await hook({ httpGet: { port: 'web', path: '/hooked' } });
      await hook({ httpGet: { port: 'web', scheme: 'HTTPS' } });
      await expect(hook({ exec: { command: ['false'] } })).rejects.toThrow("command 'false' exited with 1");
      await expect(hook({ httpGet: { port: 1 } })).rejects.toThrow('connection refused');
    });

    it('is resized in place', async () => {
      const resizer = createResizer(
        {
          runtime,
          cgroups,
          events: { record: () => undefined },
          memoryUse: async () => ({ pod: 2 ** 20, containers: new Map([['main', 2 ** 20]]) }),
        },
        facts(),
      );
      const yes = () => ({ admitted: true }) as const;
      const running = async () => [{ name: 'main', id, resources: (await runtime.inspectContainer(id)).resources }];
      resizer.created(resizer.review(pod, yes), container, id);
      const more: Container = {
        ...container,
        resources: { requests: { cpu: '150m', memory: '32Mi' }, limits: { cpu: '300m', memory: '96Mi' } },
      };
      const asked = resizer.review({ ...pod, spec: { ...pod.spec, containers: [more] } }, yes);
      expect(resizer.outstanding(asked, await running(), true).update).toBe(true);
      await resizer.actuate(asked, await running());
      expect(resizer.outstanding(asked, await running(), true).update).toBe(false);
      expect(await cgroups.configOf(pod)).toMatchObject({ cpuLimitMilli: 300, memoryLimitBytes: 96 * 2 ** 20 });
      const [memory, quota] =
        mounts.version === 2 ? ['memory.max', 'cpu.max'] : ['memory.limit_in_bytes', 'cpu.cfs_quota_us'];
      const own = `${cgroups.parentFor(pod)}/${id}`;
      expect(await tree.read(own, 'memory', memory)).toBe(String(96 * 2 ** 20));
      expect(await tree.read(own, 'cpu', quota)).toMatch(/^30000\b/);
    });

    it('leaves its last words', async () => {
      await runtime.stopContainer(id, 10);
      const ended = await runtime.inspectContainer(id);
      expect(ended.exitCode).toBe(3);
      expect(await terminationMessage(ended)).toBe('bye');
    });

    it('leaves nothing behind', async () => {
      await runtime.stopSandbox(sandbox);
      await runtime.removeSandbox(sandbox);
      expect(await cgroups.remove('aaaa-1')).toBe(true);
      expect(await tree.exists(`${root}/kubepods/burstable/podaaaa-1`, 'somewhere')).toBe(false);
      expect(await cgroups.list()).toEqual([]);
    });
  });
}
