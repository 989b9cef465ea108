// The CRI adapter against real containerds: the port's contract, and what only a real one can show. Debian's 1.6 is required; 2.x runs
// where STEVEDORE_CONTAINERD2 names a folder that holds it.
import { mkdir, mkdtemp, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { cniResultsFolder } from '../../cri/containerd/cni-results.ts';
import { createCriRuntime } from '../../cri/containerd/cri-runtime.ts';
import { type ContractSubject, runtimeContract, workloads } from '../../cri/contract.ts';
import { demoImage, demoImageName, readBusybox } from '../../cri/local-images.ts';
import { leastContainer, leastSandbox } from '../../cri/configs.fixture.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerConfig, EndingEvent, RuntimeEvent, SandboxConfig } from '../../cri/types.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { removeCgroups } from '../lab/cgroups.ts';
import { type Containerd, hasContainerd2, startContainerd } from '../lab/containerd.ts';

const versions = [
  { binary: '1.6', quirks: ['no-user-in-status', 'no-pod-in-events'] },
  ...(hasContainerd2() ? [{ binary: '2.x', quirks: [] } as const] : []),
] as const;

for (const { binary, quirks } of versions) {
  describe(`containerd ${binary}`, () => {
    let containerd: Containerd;
    let runtime: Runtime;
    let folder: string;
    const open = (endpoint: string): Runtime =>
      createCriRuntime({ log: silentLog, clock: systemClock }, { endpoint, runtimeRequestTimeoutMs: 60_000 });

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sv-cri-'));
      await mkdir(join(folder, 'logs'));
      containerd = await startContainerd({ dir: join(folder, 'c'), binary });
      const tar = join(folder, 'demo.tar');
      await writeFile(tar, imageArchive([demoImage(imageArchitecture(), await readBusybox())]));
      await containerd.importImage(tar);
      runtime = open(containerd.endpoint);
    });

    afterAll(async () => {
      await runtime?.close();
      await containerd?.stop();
      await removeCgroups('stevedore-contract');
      if (folder) await rm(folder, { recursive: true, force: true });
    });

    const subject = (): ContractSubject => ({
      runtime,
      image: demoImageName,
      logDirectory: join(folder, 'logs'),
      cgroupParent: '/stevedore-contract',
      real: true,
      quirks,
      unreachable: () => open(`unix://${join(folder, 'nobody.sock')}`),
      pass: (ms) => sleep(ms),
    });

    runtimeContract(`containerd ${binary}`, subject);

    const sandboxConfig = (uid: string, pid: 'pod' | 'container' = 'container'): SandboxConfig => ({
      ...leastSandbox({ metadata: { name: 'real', uid, namespace: 'default', attempt: 0 } }),
      logDirectory: join(folder, 'logs'),
      dns: { servers: ['192.0.2.53'], searches: ['example.test'], options: ['ndots:5'] },
      labels: { 'io.kubernetes.pod.uid': uid },
      cgroupParent: '/stevedore-contract',
      security: {
        ...leastSandbox().security,
        namespaces: { network: 'pod', pid, ipc: 'pod' },
        seccomp: { type: 'RuntimeDefault' },
      },
    });
    const containerConfig = (sandbox: SandboxConfig, command: readonly string[]): ContainerConfig =>
      leastContainer(demoImageName, command, {
        workingDir: '/tmp',
        envs: [{ key: 'GREETING', value: 'hello' }],
        mounts: [
          {
            containerPath: '/data',
            hostPath: join(folder, 'logs'),
            readonly: true,
            recursiveReadOnly: false,
            selinuxRelabel: false,
            propagation: 'private',
          },
        ],
        labels: sandbox.labels,
        logPath: `${sandbox.metadata.uid}.log`,
        resources: { oomScoreAdj: 1000 },
        security: {
          ...leastContainer('', []).security,
          capabilities: { add: [], drop: ['ALL'] },
          namespaces: sandbox.security.namespaces,
          runAsUser: 1234,
          runAsGroup: 4321,
          readonlyRootfs: true,
          supplementalGroups: [77],
          noNewPrivs: true,
          maskedPaths: ['/proc/kcore'],
          readonlyPaths: ['/proc/sys'],
          seccomp: { type: 'RuntimeDefault' },
        },
      });
    async function run(uid: string, command: readonly string[], pid: 'pod' | 'container' = 'container') {
      onTestFailed(async () => console.error(await containerd.tailLog()));
      const sandboxSpec = sandboxConfig(uid, pid);
      const sandbox = await runtime.runSandbox(sandboxSpec, '');
      const config = containerConfig(sandboxSpec, command);
      const id = await runtime.createContainer(sandbox, config, sandboxSpec);
      await runtime.startContainer(id);
      return {
        id,
        logPath: join(folder, 'logs', config.logPath),
        remove: async () => {
          await runtime.stopSandbox(sandbox);
          await runtime.removeSandbox(sandbox);
        },
      };
    }
    const inside = async (id: string, script: string): Promise<string> =>
      Buffer.from((await runtime.execSync(id, ['/bin/sh', '-c', script], { timeoutMs: 10_000 })).stdout)
        .toString()
        .trim();

    it('gives the process what its configuration says', async () => {
      const { id, remove } = await run('real-1', workloads.waits);
      expect(await inside(id, 'id -u; id -g; id -G')).toBe('1234\n4321\n4321 77');
      expect(await inside(id, 'echo $GREETING; pwd; hostname')).toBe('hello\n/tmp\nreal');
      expect(await inside(id, 'cat /etc/resolv.conf')).toBe(
        'search example.test\nnameserver 192.0.2.53\noptions ndots:5',
      );
      expect(await inside(id, 'grep -E "^(CapEff|NoNewPrivs|Seccomp):" /proc/1/status')).toMatch(
        /CapEff:\s+0+\nNoNewPrivs:\s+1\nSeccomp:\s+2/,
      );
      expect(await inside(id, 'touch /x 2>&1; touch /data/x 2>&1')).toMatch(/Read-only.*\n.*Read-only/);
      const seen = await runtime.inspectContainer(id);
      expect(seen.mounts).toContainEqual(
        expect.objectContaining({ containerPath: '/data', readonly: true, propagation: 'private' }),
      );
      await remove();
    });

    it('has the sandbox reap what a shared process namespace orphans', async () => {
      const { id, remove } = await run('real-2', workloads.waits, 'pod');
      expect(await inside(id, 'cat /proc/1/comm')).toBe('pause');
      await inside(id, '(sleep 0.1 & ) ; sleep 0.4');
      // A process that just ended is a zombie for a moment, whoever reaps it; the orphan of before must not stay one.
      const zombies = (): Promise<string> => inside(id, 'grep -l "State:.Z" /proc/[0-9]*/status 2>/dev/null | wc -l');
      for (let turn = 0; turn < 50 && (await zombies()) !== '0'; turn++) await sleep(50);
      expect(await zombies()).toBe('0');
      await remove();
    });

    it('writes logs in CRI’s format and opens them again', async () => {
      const script = 'echo first; echo second >&2; while [ ! -e /data/go ]; do sleep 0.05; done; echo third; sleep 600';
      const { id, logPath, remove } = await run('real-3', ['/bin/sh', '-c', script]);
      const stamp = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:\d\d)`;
      const text = async (): Promise<string> => readFile(logPath, 'utf8').catch(() => '');
      for (let turn = 0; turn < 100 && !(await text()).includes('second'); turn++) await sleep(20);
      expect(await text()).toMatch(new RegExp(`^${stamp} stdout F first\n`, 'm'));
      expect(await text()).toMatch(new RegExp(`^${stamp} stderr F second\n`, 'm'));
      await rename(logPath, `${logPath}.1`);
      await runtime.reopenContainerLog(id);
      await writeFile(join(folder, 'logs', 'go'), '');
      for (let turn = 0; turn < 100 && !(await text()).includes('third'); turn++) await sleep(20);
      expect(await text()).toMatch(new RegExp(`^${stamp} stdout F third\n$`));
      await remove();
    });

    it('takes a sandbox down whose CNI result a loss of power left empty', async () => {
      const sandbox = await runtime.runSandbox(sandboxConfig('real-5'), '');
      const results = (await readdir(cniResultsFolder)).filter((name) => name.includes(`-${sandbox}-`));
      expect(results.length).toBeGreaterThan(0);
      for (const name of results) await truncate(join(cniResultsFolder, name));
      await runtime.stopSandbox(sandbox);
      await runtime.removeSandbox(sandbox);
      expect((await runtime.listSandboxes()).some(({ id }) => id === sandbox)).toBe(false);
      expect((await readdir(cniResultsFolder)).some((name) => name.includes(`-${sandbox}-`))).toBe(false);
    });

    it('tells of every change to images once it has said that it does', async () => {
      const events: RuntimeEvent[] = [];
      const controller = new AbortController();
      const reading = (async () => {
        for await (const event of runtime.events(controller.signal)) events.push(event);
      })();
      const last = () => events.findLast(({ kind }) => kind === 'images' || kind === 'lost');
      const told = async (what: string, change: () => Promise<unknown>): Promise<void> => {
        const count = events.length;
        await change();
        for (let turn = 0; turn < 200 && !events.slice(count).some(({ kind }) => kind === 'images'); turn++)
          await sleep(20);
        expect(events.slice(count), what).toContainEqual({ kind: 'images', told: true });
      };
      await told('the stream stands', () => Promise.resolve());
      const name = 'docker.io/library/told:1';
      await told('a name for an image', () => containerd.ctr(['images', 'tag', demoImageName, name]));
      await told('a name for another', () => containerd.ctr(['images', 'tag', '--force', demoImageName, name]));
      await told('a name that goes', () => containerd.ctr(['images', 'rm', name]));
      expect(last()).toEqual({ kind: 'images', told: true });
      await containerd.restart('SIGKILL');
      for (let turn = 0; turn < 200 && !events.some((event) => event.kind === 'images' && !event.told); turn++)
        await sleep(20);
      expect(events).toContainEqual({ kind: 'images', told: false });
      // And again when the stream stands again.
      for (let turn = 0; turn < 500 && JSON.stringify(last()) !== '{"kind":"images","told":true}'; turn++)
        await sleep(20);
      expect(last()).toEqual({ kind: 'images', told: true });
      controller.abort();
      await reading;
    });

    it('survives a crash of the runtime: containers run on, events say lost', async () => {
      const { id, remove } = await run('real-4', workloads.waits);
      const events: RuntimeEvent[] = [];
      const controller = new AbortController();
      const reading = (async () => {
        for await (const event of runtime.events(controller.signal)) events.push(event);
      })();
      for (let turn = 0; turn < 100 && events.length === 0; turn++) await sleep(20);
      const before = await runtime.inspectContainer(id, { verbose: true });
      const count = events.length;
      await containerd.restart('SIGKILL');
      for (let turn = 0; turn < 200 && !events.slice(count).some(({ kind }) => kind === 'lost'); turn++)
        await sleep(20);
      expect(events.slice(count)).toContainEqual({ kind: 'lost' });
      const after = await runtime.inspectContainer(id, { verbose: true });
      expect(after).toMatchObject({ state: 'running', pid: before.pid, startedAtMs: before.startedAtMs });
      // The new stream tells of what comes.
      await runtime.stopContainer(id, 5);
      for (
        let turn = 0;
        turn < 100 && !events.some((event) => event.kind === 'stopped' && event.containerId === id);
        turn++
      )
        await sleep(20);
      const told = events.filter((event) => 'containerId' in event && event.containerId === id);
      expect(told.map(({ kind }) => kind).filter((kind) => kind === 'ending' || kind === 'stopped')).toEqual([
        'ending',
        'stopped',
      ]);
      const { exitCode } = await runtime.inspectContainer(id);
      const ending = told.find(({ kind }) => kind === 'ending');
      expect(ending).toMatchObject({ exitCode, finishedAtMs: expect.any(Number) });
      expect(Math.abs(Date.now() - (ending as EndingEvent).finishedAtMs)).toBeLessThan(30_000);
      controller.abort();
      await reading;
      await remove();
    });
  });
}
