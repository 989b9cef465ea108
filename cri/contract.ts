// What every implementation of the runtime port must do, as one suite: run for the fake beside it, and for real runtimes in
// test/integration. Imported by tests only.
import { randomUUID } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import { leastContainer, leastSandbox } from './configs.fixture.ts';
import type { Runtime } from './runtime.ts';
import type {
  ContainerConfig,
  ContainerId,
  ContainerInspection,
  RuntimeEvent,
  SandboxConfig,
  SandboxId,
} from './types.ts';

export interface ContractSubject {
  readonly runtime: Runtime;
  /** An image that is present and has busybox in it. */
  readonly image: string;
  /** A pod's log folder; made by the subject where the runtime writes logs. */
  readonly logDirectory: string;
  readonly cgroupParent: string;
  /** Whether containers are real processes, with logs, addresses and pids. */
  readonly real: boolean;
  /** What this runtime's version cannot tell; the suite then asserts less. */
  readonly quirks: readonly Quirk[];
  /** The same implementation on a socket that nobody serves. */
  unreachable(): Runtime;
  /** Lets time pass, in milliseconds. */
  pass(ms: number): Promise<void>;
}

export type Quirk = 'no-user-in-status' | 'no-pod-in-events';

/** The programs that the suite runs; a runtime that runs nothing has to act as they do. */
export const workloads = {
  waits: ['/bin/sh', '-c', 'trap "exit 0" TERM; while true; do sleep 0.05; done'],
  succeeds: ['/bin/sh', '-c', 'echo out; echo err >&2; exit 0'],
  fails: ['/bin/sh', '-c', 'exit 3'],
  ignoresTerm: ['/bin/sh', '-c', 'trap "" TERM; while true; do sleep 0.05; done'],
  cannotStart: ['/no/such/program'],
} as const satisfies Record<string, readonly string[]>;

/** Commands that the suite runs inside. */
export const commands = {
  speaks: ['/bin/sh', '-c', 'echo out; echo err >&2; exit 7'],
  hangs: ['/bin/sleep', '60'],
} as const satisfies Record<string, readonly string[]>;

const podUidLabel = 'io.kubernetes.pod.uid';

export function runtimeContract(name: string, subjectOf: () => ContractSubject): void {
  describe(`${name} keeps the runtime port's contract`, () => {
    const made: SandboxId[] = [];

    afterEach(async () => {
      const { runtime } = subjectOf();
      for (const id of made.splice(0)) {
        await runtime.stopSandbox(id);
        await runtime.removeSandbox(id);
      }
    });

    const sandboxConfig = (over: Partial<SandboxConfig> = {}): SandboxConfig => {
      const { logDirectory, cgroupParent } = subjectOf();
      const uid = randomUUID();
      return leastSandbox({
        metadata: { name: 'contract', uid, namespace: 'default', attempt: 0 },
        logDirectory,
        labels: { [podUidLabel]: uid, app: 'contract' },
        annotations: { note: 'kept' },
        cgroupParent,
        ...over,
      });
    };

    const containerConfig = (command: readonly string[], over: Partial<ContainerConfig> = {}): ContainerConfig => {
      const { image } = subjectOf();
      return leastContainer(image, command, {
        image: { image, userSpecifiedImage: image },
        envs: [{ key: 'GREETING', value: 'hello' }],
        labels: { 'io.kubernetes.container.name': 'main' },
        annotations: { 'io.kubernetes.container.restartCount': '0' },
        logPath: `${randomUUID()}.log`,
        resources: { cpuShares: 102, memoryLimitInBytes: 64 * 1024 * 1024, oomScoreAdj: 1000 },
        ...over,
      });
    };

    async function runSandbox(config = sandboxConfig()): Promise<{ id: SandboxId; config: SandboxConfig }> {
      const id = await subjectOf().runtime.runSandbox(config, '');
      made.push(id);
      return { id, config };
    }

    async function create(command: readonly string[], over: Partial<ContainerConfig> = {}) {
      const sandbox = await runSandbox();
      const labels = { ...containerConfig(command).labels, [podUidLabel]: sandbox.config.metadata.uid };
      const config = containerConfig(command, { labels, ...over });
      const id = await subjectOf().runtime.createContainer(sandbox.id, config, sandbox.config);
      return { id, config, sandbox };
    }

    async function start(command: readonly string[], over: Partial<ContainerConfig> = {}) {
      const created = await create(command, over);
      await subjectOf().runtime.startContainer(created.id);
      return created;
    }

    async function until(what: string, found: () => boolean | Promise<boolean>): Promise<void> {
      for (let turn = 0; turn < 400; turn++) {
        if (await found()) return;
        await subjectOf().pass(25);
      }
      throw new Error(`waited 10 s in vain for: ${what}`);
    }

    async function exited(id: ContainerId): Promise<ContainerInspection> {
      const { runtime } = subjectOf();
      await until('the container to exit', async () => (await runtime.inspectContainer(id)).state === 'exited');
      return runtime.inspectContainer(id);
    }

    /** Lets time pass until the promise settles, for runtimes whose time stands still. */
    async function passing<T>(work: Promise<T>): Promise<T> {
      let settled = false;
      const done = work.finally(() => {
        settled = true;
      });
      done.catch(() => undefined);
      for (let turn = 0; turn < 1200 && !settled; turn++) await subjectOf().pass(25);
      return done;
    }

    describe('the runtime itself', () => {
      it('tells its version, its conditions and its cgroup driver', async () => {
        const { runtime } = subjectOf();
        expect((await runtime.version()).runtimeName).not.toBe('');
        // Asked twice: the second answer comes by the short way.
        const first = await runtime.status();
        for (const status of [first, await runtime.status()]) {
          const ready = status.conditions.filter(({ status: on }) => on).map(({ type }) => type);
          expect(ready).toEqual(expect.arrayContaining(['RuntimeReady', 'NetworkReady']));
          expect(status.cgroupDriver).toMatch(/^(cgroupfs|systemd)$/);
          expect(status.sandboxImage).toBe(first.sandboxImage);
          expect(status.snapshotterRoot).toBe(first.snapshotterRoot);
        }
      });

      it('is unavailable where nobody serves the socket', async () => {
        const runtime = subjectOf().unreachable();
        await expect(runtime.version()).rejects.toMatchObject({ name: 'RuntimeError', code: 'unavailable' });
        await runtime.close();
      });

      it('tells how full its file systems are', async () => {
        const { image } = await subjectOf().runtime.imageFilesystem();
        expect(image[0]?.mountpoint).toMatch(/^\//);
      });

      it('takes a pod CIDR', async () => {
        await subjectOf().runtime.updatePodCidr('10.99.0.0/24');
      });
    });

    describe('sandboxes', () => {
      it('run, are found, stop and go', async () => {
        const { runtime, real } = subjectOf();
        const { id, config } = await runSandbox();
        const status = await runtime.sandboxStatus(id, { verbose: true });
        expect(status).toMatchObject({
          id,
          metadata: config.metadata,
          state: 'ready',
          labels: config.labels,
          annotations: { note: 'kept' },
          namespaces: { network: 'pod', pid: 'container', ipc: 'pod' },
        });
        expect(status.ips).toHaveLength(1);
        if (real) {
          expect(status.pid).toBeGreaterThan(1);
          expect(status.networkNamespace).toMatch(/^\//);
        }
        const uid = config.metadata.uid;
        expect((await runtime.listSandboxes({ podUid: uid })).map((sandbox) => sandbox.id)).toEqual([id]);
        expect((await runtime.listSandboxes({ id })).map((sandbox) => sandbox.metadata.uid)).toEqual([uid]);
        expect(await runtime.listSandboxes({ podUid: randomUUID() })).toEqual([]);
        expect((await runtime.listSandboxes()).some((sandbox) => sandbox.id === id)).toBe(true);

        await runtime.stopSandbox(id);
        expect((await runtime.sandboxStatus(id)).state).toBe('notready');
        await runtime.stopSandbox(id);
        await runtime.removeSandbox(id);
        await expect(runtime.sandboxStatus(id)).rejects.toMatchObject({ code: 'not-found' });
        await runtime.removeSandbox(id);
        await runtime.stopSandbox(id);
      });

      it('have a name only once, and again after they went', async () => {
        const { runtime } = subjectOf();
        const { id, config } = await runSandbox();
        await expect(runtime.runSandbox(config, '')).rejects.toMatchObject({ code: 'already-exists' });
        await runtime.stopSandbox(id);
        await runtime.removeSandbox(id);
        await runSandbox(config);
      });

      it('on the host’s network have no address of their own', async () => {
        const config = sandboxConfig();
        const namespaces = { network: 'node', pid: 'container', ipc: 'pod' } as const;
        const security = { ...config.security, namespaces };
        const { id } = await runSandbox({ ...config, hostname: '', security });
        const status = await subjectOf().runtime.sandboxStatus(id);
        expect(status.ips).toEqual([]);
        expect(status.namespaces?.network).toBe('node');
      });

      it('want a handler that the runtime has', async () => {
        await expect(subjectOf().runtime.runSandbox(sandboxConfig(), 'no-such-handler')).rejects.toMatchObject({
          name: 'RuntimeError',
        });
      });

      it('take their containers with them', async () => {
        const { runtime } = subjectOf();
        const { id, sandbox } = await start(workloads.waits);
        await passing(runtime.stopSandbox(sandbox.id));
        expect((await exited(id)).exitCode).toBe(137);
        await runtime.removeSandbox(sandbox.id);
        await expect(runtime.inspectContainer(id)).rejects.toMatchObject({ code: 'not-found' });
        expect(await runtime.listContainers({ sandboxId: sandbox.id })).toEqual([]);
      });
    });

    describe('containers', () => {
      it('are created, started, listed and inspected', async () => {
        const { runtime, image, quirks } = subjectOf();
        const { id, config, sandbox } = await create(workloads.waits);
        expect((await runtime.inspectContainer(id)).state).toBe('created');
        await runtime.startContainer(id);
        const seen = await runtime.inspectContainer(id, { verbose: true });
        expect(seen).toMatchObject({
          id,
          metadata: { name: 'main', attempt: 0 },
          state: 'running',
          image,
          labels: config.labels,
          annotations: config.annotations,
          exitCode: 0,
          finishedAtMs: 0,
        });
        expect(seen.startedAtMs).toBeGreaterThanOrEqual(seen.createdAtMs);
        expect(seen.imageRef).not.toBe('');
        expect(seen.logPath).toBe(`${subjectOf().logDirectory}/${config.logPath}`);
        expect(seen.resources).toMatchObject({ cpuShares: 102, memoryLimitInBytes: 64 * 1024 * 1024 });
        expect(seen.pid).toBeGreaterThan(1);
        if (!quirks.includes('no-user-in-status')) expect(seen.user).toMatchObject({ uid: 0, gid: 0 });

        const summary = expect.objectContaining({
          id,
          sandboxId: sandbox.id,
          metadata: config.metadata,
          state: 'running',
          labels: config.labels,
        });
        const podUid = sandbox.config.metadata.uid;
        expect(await runtime.listContainers({ podUid })).toEqual([summary]);
        expect(await runtime.listContainers({ sandboxId: sandbox.id })).toEqual([summary]);
        expect(await runtime.listContainers({ id })).toEqual([summary]);
        expect(await runtime.listContainers({ podUid: randomUUID() })).toEqual([]);
        expect(await runtime.listContainers()).toContainEqual(summary);
      });

      it('start once', async () => {
        const { id } = await start(workloads.waits);
        await expect(subjectOf().runtime.startContainer(id)).rejects.toMatchObject({ name: 'RuntimeError' });
      });

      it('have a name only once in their sandbox', async () => {
        const { runtime } = subjectOf();
        const { id, config, sandbox } = await create(workloads.waits);
        await expect(runtime.createContainer(sandbox.id, config, sandbox.config)).rejects.toMatchObject({
          code: 'already-exists',
        });
        await runtime.removeContainer(id);
        await runtime.createContainer(sandbox.id, config, sandbox.config);
      });

      it.each([
        ['succeeds', workloads.succeeds, 0, 'Completed'],
        ['fails', workloads.fails, 3, 'Error'],
      ])('tell how they ended: one that %s', async (_, command, exitCode, reason) => {
        const { id } = await start(command);
        const seen = await exited(id);
        expect(seen).toMatchObject({ exitCode, reason });
        expect(seen.finishedAtMs).toBeGreaterThanOrEqual(seen.startedAtMs);
      });

      it('that cannot start say why and count as ended', async () => {
        const { runtime } = subjectOf();
        const { id } = await create(workloads.cannotStart);
        await expect(runtime.startContainer(id)).rejects.toMatchObject({
          detail: expect.stringContaining('/no/such/program'),
        });
        expect(await exited(id)).toMatchObject({
          reason: 'StartError',
          message: expect.stringContaining('/no/such/program'),
          exitCode: 128,
        });
      });

      it('need an image and a sandbox', async () => {
        const { runtime } = subjectOf();
        const { id, config } = await runSandbox();
        const absent = containerConfig(workloads.waits, { image: { image: 'localhost/no/such:1' } });
        await expect(runtime.createContainer(id, absent, config)).rejects.toMatchObject({ code: 'not-found' });
        const gone = 'f'.repeat(64) as SandboxId;
        await expect(runtime.createContainer(gone, containerConfig(workloads.waits), config)).rejects.toMatchObject({
          code: 'not-found',
        });
      });

      it('stop on the signal, long before their grace is over', async () => {
        const { runtime } = subjectOf();
        const { id } = await start(workloads.waits);
        await subjectOf().pass(200);
        await passing(runtime.stopContainer(id, 25));
        const seen = await runtime.inspectContainer(id);
        expect(seen).toMatchObject({ state: 'exited', exitCode: 0 });
        expect(seen.finishedAtMs - seen.startedAtMs).toBeLessThan(10_000);
        await runtime.stopContainer(id, 1);
        await runtime.removeContainer(id);
        await runtime.stopContainer(id, 1);
        await runtime.removeContainer(id);
      });

      it('are killed when their grace is over', async () => {
        const { runtime } = subjectOf();
        const { id } = await start(workloads.ignoresTerm);
        await subjectOf().pass(200);
        await passing(runtime.stopContainer(id, 1));
        const seen = await runtime.inspectContainer(id);
        expect(seen).toMatchObject({ state: 'exited', exitCode: 137 });
        expect(seen.finishedAtMs - seen.startedAtMs).toBeGreaterThanOrEqual(1_000);
      });

      it('take other limits while they run', async () => {
        const { runtime } = subjectOf();
        const { id } = await start(workloads.waits);
        await runtime.updateContainerResources(id, {
          cpuPeriod: 100_000,
          cpuQuota: 20_000,
          cpuShares: 204,
          memoryLimitInBytes: 96 * 1024 * 1024,
        });
        expect((await runtime.inspectContainer(id)).resources).toMatchObject({
          cpuQuota: 20_000,
          cpuShares: 204,
          memoryLimitInBytes: 96 * 1024 * 1024,
        });
      });

      it('have statistics while they run', async () => {
        const { runtime } = subjectOf();
        const { id, sandbox } = await start(workloads.waits);
        await subjectOf().pass(100);
        const stats = await runtime.containerStats(id);
        expect(stats.id).toBe(id);
        expect(stats.cpu?.usageCoreNanoSeconds).toBeGreaterThan(0);
        expect(stats.memory?.workingSetBytes).toBeGreaterThan(0);
        const listed = await runtime.listContainerStats({ podUid: sandbox.config.metadata.uid });
        expect(listed.map((entry) => entry.metadata.name)).toEqual(['main']);
      });

      it('that nobody knows are not found', async () => {
        const { runtime } = subjectOf();
        const id = 'e'.repeat(64) as ContainerId;
        await expect(runtime.inspectContainer(id)).rejects.toMatchObject({ code: 'not-found' });
        await expect(runtime.startContainer(id)).rejects.toMatchObject({ code: 'not-found' });
        await expect(runtime.execSync(id, ['true'], { timeoutMs: 1_000 })).rejects.toMatchObject({ code: 'not-found' });
        await runtime.stopContainer(id, 1);
        await runtime.removeContainer(id);
      });
    });

    describe('commands inside', () => {
      it('give their output and exit code, whatever it is', async () => {
        const { runtime } = subjectOf();
        const { id } = await start(workloads.waits);
        const result = await runtime.execSync(id, commands.speaks, { timeoutMs: 10_000 });
        expect(Buffer.from(result.stdout).toString()).toBe('out\n');
        expect(Buffer.from(result.stderr).toString()).toBe('err\n');
        expect(result.exitCode).toBe(7);
      });

      it('are ended when their time is up', async () => {
        const { runtime } = subjectOf();
        const { id } = await start(workloads.waits);
        await expect(passing(runtime.execSync(id, commands.hangs, { timeoutMs: 1_000 }))).rejects.toMatchObject({
          code: 'deadline',
        });
      });

      it('can be given up', async () => {
        const { runtime } = subjectOf();
        const { id } = await start(workloads.waits);
        const controller = new AbortController();
        const running = runtime.execSync(id, commands.hangs, { timeoutMs: 30_000, signal: controller.signal });
        running.catch(() => undefined);
        await subjectOf().pass(100);
        controller.abort();
        await expect(running).rejects.toMatchObject({ code: 'aborted' });
      });

      it('need a container that runs', async () => {
        const { runtime } = subjectOf();
        const { id } = await start(workloads.succeeds);
        await exited(id);
        await expect(runtime.execSync(id, commands.speaks, { timeoutMs: 5_000 })).rejects.toMatchObject({
          name: 'RuntimeError',
        });
      });

      it('and streams have an endpoint', async () => {
        const { runtime } = subjectOf();
        const { id, sandbox } = await start(workloads.waits);
        const streams = { containerId: id, tty: false, stdin: false, stdout: true, stderr: true };
        for (const endpoint of [
          await runtime.exec({ ...streams, command: ['true'] }),
          await runtime.attach(streams),
          await runtime.portForward(sandbox.id, [8080]),
        ])
          expect(endpoint.kind === 'url' ? endpoint.url : endpoint.open).toBeTruthy();
      });
    });

    describe('images', () => {
      it('are found by name and by id, and listed', async () => {
        const { runtime, image } = subjectOf();
        const found = await runtime.imageStatus({ image });
        expect(found?.repoTags).toContain(image);
        expect(found?.sizeBytes).toBeGreaterThan(0);
        expect((await runtime.imageStatus({ image: found?.id ?? '' }))?.id).toBe(found?.id);
        expect((await runtime.listImages()).map(({ id }) => id)).toContain(found?.id);
      });

      it('that are absent are undefined, and gone already when they are removed', async () => {
        const { runtime } = subjectOf();
        expect(await runtime.imageStatus({ image: 'localhost/no/such:1' })).toBeUndefined();
        await runtime.removeImage({ image: 'localhost/no/such:1' });
      });

      it('that no registry has cannot be pulled', async () => {
        const pulling = subjectOf().runtime.pullImage({ image: 'localhost:1/no/such:1' }, undefined, undefined);
        await expect(pulling).rejects.toMatchObject({
          name: 'RuntimeError',
          detail: expect.stringContaining('localhost:1/no/such:1'),
        });
      });
    });

    describe('events', () => {
      it('begin with lost, tell of a container’s life, and come when the runtime agrees', async () => {
        const { runtime, quirks } = subjectOf();
        const controller = new AbortController();
        const events: { event: RuntimeEvent; state?: string }[] = [];
        const reading = (async () => {
          for await (const event of runtime.events(controller.signal)) {
            const entry: { event: RuntimeEvent; state?: string } = { event };
            events.push(entry);
            if (event.kind === 'stopped')
              entry.state = await runtime.inspectContainer(event.containerId as ContainerId).then(
                ({ state }) => state,
                () => 'gone',
              );
          }
        })();
        await until('the stream to stand', () => events.length > 0);
        expect(events[0]?.event).toEqual({ kind: 'lost' });
        const { id, sandbox } = await start(workloads.succeeds);
        const about = (kind: string) =>
          events.find(({ event }) => event.kind === kind && 'containerId' in event && event.containerId === id);
        await until('the container to stop', () => about('stopped')?.state !== undefined);
        expect(about('created')).toBeDefined();
        expect(about('started')).toBeDefined();
        expect(about('stopped')?.state).toBe('exited');
        const podUid = sandbox.config.metadata.uid;
        expect(about('stopped')?.event).toMatchObject({ podUid });
        if (!quirks.includes('no-pod-in-events')) expect(about('created')?.event).toMatchObject({ podUid });
        await runtime.removeContainer(id);
        await until('the container to be deleted', () => about('deleted') !== undefined);
        controller.abort();
        await reading;
      });

      it('end at once for a signal that is aborted', async () => {
        const seen: RuntimeEvent[] = [];
        for await (const event of subjectOf().runtime.events(AbortSignal.abort())) seen.push(event);
        expect(seen.length).toBeLessThanOrEqual(1);
      });
    });
  });
}
