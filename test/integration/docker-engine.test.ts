// The Docker adapter on a real dockerd, and what only a real one can show: the traps of Docker as a runtime, each with its test.
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, onTestFailed } from 'vitest';
import { workloads } from '../../cri/contract.ts';
import { createDockerRuntime } from '../../cri/docker/docker-runtime.ts';
import { demoImage, demoImageName, pauseImageName, readBusybox } from '../../cri/local-images.ts';
import type { Runtime } from '../../cri/runtime.ts';
import { leastContainer, leastSandbox } from '../../cri/configs.fixture.ts';
import type {
  ContainerConfig,
  ContainerId,
  RuntimeEvent,
  SandboxConfig,
  SandboxId,
  StreamChannels,
} from '../../cri/types.ts';
import { systemClock } from '../../lib/clock.ts';
import { exec } from '../../lib/exec.ts';
import { silentLog } from '../../lib/log.ts';
import { buildImage, imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { removeCgroups } from '../lab/cgroups.ts';
import { type Dockerd, startDockerd } from '../lab/dockerd.ts';
import { startRegistry } from '../lab/registry.ts';

describe('Docker Engine', () => {
  let dockerd: Dockerd;
  let runtime: Runtime;
  let folder: string;
  let number = 0;
  const open = (): Runtime =>
    createDockerRuntime(
      { log: silentLog, clock: systemClock },
      {
        socketPath: dockerd.socket,
        cniConfDir: dockerd.cniConfDir,
        cniBinDirs: [dockerd.cniBinDir],
        stateDir: join(folder, 'state'),
      },
    );

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sv-de-'));
    await mkdir(join(folder, 'logs'));
    dockerd = await startDockerd({ dir: join(folder, 'd'), liveRestore: true });
    await dockerd.loadImage(imageArchive([demoImage(imageArchitecture(), await readBusybox())]));
    runtime = open();
  });

  afterAll(async () => {
    await runtime?.close();
    await dockerd?.stop();
    await removeCgroups('stevedore-engine');
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  const sandboxConfig = (over: Partial<SandboxConfig> = {}): SandboxConfig => {
    const uid = `engine-${number++}`;
    return leastSandbox({
      metadata: { name: 'real', uid, namespace: 'default', attempt: 0 },
      logDirectory: join(folder, 'logs'),
      dns: { servers: ['192.0.2.53'], searches: ['example.test'], options: ['ndots:5'] },
      labels: { 'io.kubernetes.pod.uid': uid },
      cgroupParent: '/stevedore-engine',
      sysctls: { 'net.ipv4.ip_local_port_range': '20000 30000' },
      security: { ...leastSandbox().security, seccomp: { type: 'RuntimeDefault' } },
      ...over,
    });
  };
  const containerConfig = (
    { labels, metadata, security }: SandboxConfig,
    command: readonly string[],
    over: Partial<ContainerConfig> = {},
  ): ContainerConfig =>
    leastContainer(demoImageName, command, {
      labels,
      logPath: `${metadata.uid}.log`,
      security: { ...leastContainer('', []).security, namespaces: security.namespaces },
      ...over,
    });
  const logPath = (sandbox: SandboxConfig): string => join(folder, 'logs', `${sandbox.metadata.uid}.log`);

  async function run(command: readonly string[], over: Partial<ContainerConfig> = {}, spec = sandboxConfig()) {
    onTestFailed(async () => console.error(await dockerd.tailLog()));
    const sandbox = await runtime.runSandbox(spec, '');
    const id = await runtime.createContainer(sandbox, containerConfig(spec, command, over), spec);
    await runtime.startContainer(id);
    return { id, sandbox, spec, path: logPath(spec), remove: () => remove(sandbox) };
  }
  async function remove(sandbox: SandboxId): Promise<void> {
    await runtime.stopSandbox(sandbox);
    await runtime.removeSandbox(sandbox);
  }
  const inside = async (id: string, script: string): Promise<string> =>
    Buffer.from((await runtime.execSync(id, ['/bin/sh', '-c', script], { timeoutMs: 10_000 })).stdout)
      .toString()
      .trim();
  async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
    for (let turn = 0; turn < 400; turn++) {
      if (await holds()) return;
      await sleep(25);
    }
    throw new Error(`waited 10 s in vain for: ${what}`);
  }
  const text = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
  const addresses = async (): Promise<string[]> =>
    (await readdir(join(dockerd.dir, 'ipam', dockerd.bridge))).filter((name) => /^[\d.]+$/.test(name));

  it('gives the process what its configuration says', async () => {
    const data = join(folder, 'data');
    await mkdir(data, { recursive: true });
    const base = { readonly: true, recursiveReadOnly: false, selinuxRelabel: false, propagation: 'private' } as const;
    const plain = containerConfig(sandboxConfig(), []).security;
    const {
      id,
      sandbox,
      remove: away,
    } = await run(workloads.waits, {
      workingDir: '/tmp',
      envs: [{ key: 'GREETING', value: 'hello' }],
      mounts: [
        { ...base, containerPath: '/data', hostPath: data },
        { ...base, containerPath: '/made', hostPath: join(folder, 'made/here'), readonly: false },
      ],
      devices: [{ hostPath: '/dev/zero', containerPath: '/dev/nothing', permissions: 'r' }],
      stopSignal: 'SIGUSR1',
      resources: { cpuShares: 512, memoryLimitInBytes: 64 * 2 ** 20, oomScoreAdj: -997 },
      security: {
        ...plain,
        capabilities: { add: [], drop: ['ALL'] },
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
    expect(await inside(id, 'id -u; id -g; id -G')).toBe('1234\n4321\n4321 77');
    expect(await inside(id, 'echo $GREETING; pwd; hostname')).toBe('hello\n/tmp\nreal');
    expect(await inside(id, 'cat /etc/resolv.conf')).toBe(
      'search example.test\nnameserver 192.0.2.53\noptions ndots:5',
    );
    expect(await inside(id, 'grep -E "^(CapEff|NoNewPrivs|Seccomp):" /proc/1/status')).toMatch(
      /CapEff:\s+0+\nNoNewPrivs:\s+1\nSeccomp:\s+2/,
    );
    expect(await inside(id, 'touch /x 2>&1; touch /data/x 2>&1; head -c1 /dev/nothing | wc -c')).toMatch(
      /Read-only.*\n.*Read-only.*\n1$/,
    );
    expect(await inside(id, 'cat /proc/sys/net/ipv4/ip_local_port_range')).toBe('20000\t30000');
    expect(await readdir(join(folder, 'made'))).toEqual(['here']);
    const seen = await runtime.inspectContainer(id, { verbose: true });
    // Swap is not given on top of the memory.
    expect(seen.resources).toMatchObject({ memoryLimitInBytes: 64 * 2 ** 20, memorySwapLimitInBytes: 64 * 2 ** 20 });
    expect(seen.stopSignal).toBe('SIGUSR1');
    expect(await readFile(`/proc/${seen.pid}/cgroup`, 'utf8')).toContain('/stevedore-engine/');
    const pause = await runtime.sandboxStatus(sandbox, { verbose: true });
    for (const kind of ['net', 'ipc'])
      expect(await exec('readlink', [`/proc/${seen.pid}/ns/${kind}`])).toEqual(
        await exec('readlink', [`/proc/${pause.pid}/ns/${kind}`]),
      );
    await away();
  });

  it('starts no health check, and no restart of Docker’s', async () => {
    const { id, remove: away } = await run(workloads.fails);
    const { body } = await dockerd.api('GET', `/containers/${id}/json`);
    const seen = JSON.parse(body) as { Config: { Healthcheck: unknown }; HostConfig: { RestartPolicy: unknown } };
    expect(seen.Config.Healthcheck).toEqual({ Test: ['NONE'] });
    expect(seen.HostConfig.RestartPolicy).toMatchObject({ Name: 'no' });
    await away();
  });

  it('shares the process namespace where the pod does, and reaches a privileged container’s devices', async () => {
    const namespaces = { network: 'pod', pid: 'pod', ipc: 'pod' } as const;
    const spec = sandboxConfig();
    const security = { ...containerConfig(spec, []).security, namespaces, privileged: true };
    const { id, remove: away } = await run(
      workloads.waits,
      { security },
      { ...spec, security: { ...spec.security, namespaces } },
    );
    expect(await inside(id, 'cat /proc/1/comm')).toBe('pause');
    expect(await inside(id, 'ls /dev/vda /dev/kmsg; mkdir -p /m && mount -t tmpfs none /m && echo mounted')).toMatch(
      /mounted$/,
    );
    await away();
  });

  it('makes the sandbox’s image where it was pruned away', async () => {
    for (const { id } of await runtime.listSandboxes()) await remove(id);
    await dockerd.api('DELETE', `/images/${pauseImageName}?force=1`);
    expect(await runtime.imageStatus({ image: pauseImageName })).toBeUndefined();
    await remove(await runtime.runSandbox(sandboxConfig(), ''));
  });

  it.each([
    [
      'a user namespace',
      (spec: SandboxConfig): SandboxConfig => ({
        ...spec,
        security: {
          ...spec.security,
          namespaces: { ...spec.security.namespaces, userns: { mode: 'pod', uids: [], gids: [] } },
        },
      }),
      /user namespace/,
    ],
    [
      'Strict groups',
      (spec: SandboxConfig): SandboxConfig => ({
        ...spec,
        security: { ...spec.security, supplementalGroupsPolicy: 'Strict' },
      }),
      /Strict/,
    ],
  ])('refuses %s', async (_, change, words) => {
    await expect(runtime.runSandbox(change(sandboxConfig()), '')).rejects.toMatchObject({
      code: 'invalid',
      detail: expect.stringMatching(words),
    });
  });

  it('refuses image volumes, recursive read-only mounts and CDI devices, and tells of no such feature', async () => {
    const spec = sandboxConfig();
    const sandbox = await runtime.runSandbox(spec, '');
    const mount = {
      containerPath: '/v',
      hostPath: folder,
      readonly: true,
      recursiveReadOnly: false,
      selinuxRelabel: false,
      propagation: 'private',
    } as const;
    for (const over of [
      { mounts: [{ ...mount, image: { image: demoImageName } }] },
      { mounts: [{ ...mount, recursiveReadOnly: true }] },
      { cdiDevices: [{ name: 'vendor/class=dev' }] },
    ])
      await expect(runtime.createContainer(sandbox, containerConfig(spec, ['true'], over), spec)).rejects.toMatchObject(
        { code: 'invalid' },
      );
    const { runtimeHandlers, supplementalGroupsPolicy } = await runtime.status();
    expect(runtimeHandlers.some((handler) => handler.userNamespaces || handler.recursiveReadOnlyMounts)).toBe(false);
    expect(supplementalGroupsPolicy).toBe(false);
    await remove(sandbox);
  });

  it('takes over the names of half-made containers and sandboxes', async () => {
    const spec = sandboxConfig();
    const first = await runtime.runSandbox(spec, '');
    await runtime.createContainer(first, containerConfig(spec, ['true']), spec);
    // Another process of the agent's was told of neither; the container never ran, the sandbox lost its network's file.
    await runtime.close();
    await runtime.close();
    runtime = open();
    const id = await runtime.createContainer(first, containerConfig(spec, ['true']), spec);
    expect((await runtime.listContainers({ sandboxId: first })).map((each) => each.id)).toEqual([id]);
    await runtime.close();
    await rm(join(folder, 'state/networks', `${first}.json`));
    runtime = open();
    expect((await runtime.sandboxStatus(first)).state).toBe('notready');
    const second = await runtime.runSandbox(spec, '');
    await expect(runtime.sandboxStatus(first)).rejects.toMatchObject({ code: 'not-found' });
    await remove(second);
  });

  it('a dead pause container means a sandbox that is not ready; its network is taken away all the same, by another process too', async () => {
    const { sandbox, spec } = await run(workloads.waits);
    const before = await addresses();
    const { pid } = await runtime.sandboxStatus(sandbox, { verbose: true });
    process.kill(pid!, 'SIGKILL');
    await until(
      'the sandbox to be not ready',
      async () => (await runtime.listSandboxes({ id: sandbox }))[0]?.state === 'notready',
    );
    await runtime.close();
    runtime = open();
    await remove(sandbox);
    expect((await addresses()).length).toBe(before.length - 1);
    const again = await runtime.runSandbox({ ...spec, metadata: { ...spec.metadata, attempt: 1 } }, '');
    await remove(again);
  });

  it('takes back the network of a sandbox that somebody else removed', async () => {
    const { sandbox } = await run(workloads.waits);
    const before = await addresses();
    for (const { id } of await runtime.listContainers({ sandboxId: sandbox }))
      await dockerd.api('DELETE', `/containers/${id}?force=1`);
    await dockerd.api('DELETE', `/containers/${sandbox}?force=1`);
    await runtime.close();
    runtime = open();
    const controller = new AbortController();
    const reading = drain(runtime.events(controller.signal));
    await until('its address to be given back', async () => (await addresses()).length === before.length - 1);
    controller.abort();
    await reading;
  });

  it('says why there is no network, and fails pods without leaving anything', async () => {
    const conf = join(dockerd.cniConfDir, '10-bridge.conflist');
    const content = await readFile(conf, 'utf8');
    await rm(conf);
    const { conditions } = await runtime.status();
    expect(conditions).toContainEqual(
      expect.objectContaining({ type: 'NetworkReady', status: false, reason: 'NetworkPluginNotReady' }),
    );
    await writeFile(conf, content.replace('"host-local"', '"no-such-ipam"'));
    const spec = sandboxConfig();
    try {
      await expect(runtime.runSandbox(spec, '')).rejects.toMatchObject({
        detail: expect.stringContaining('no-such-ipam'),
      });
      expect(await runtime.listSandboxes({ podUid: spec.metadata.uid })).toEqual([]);
    } finally {
      await writeFile(conf, content);
    }
    await remove(await runtime.runSandbox(spec, ''));
  });

  it('ends a command whose time is up, and what it started', async () => {
    const { id, remove: away } = await run(workloads.waits);
    const hang = runtime.execSync(id, ['/bin/sh', '-c', 'sleep 4321 & sleep 4322'], { timeoutMs: 500 });
    await expect(hang).rejects.toMatchObject({ code: 'deadline' });
    await until('the processes to be gone', async () => !(await inside(id, 'ps')).includes('sleep 432'));
    await expect(runtime.execSync(id, ['/no/such'], { timeoutMs: 5_000 })).rejects.toMatchObject({
      code: 'invalid',
      detail: expect.stringContaining('/no/such'),
    });
    // Exit codes come a little after the output's end.
    for (let code = 0; code < 12; code++)
      expect((await runtime.execSync(id, ['/bin/sh', '-c', `exit ${code}`], { timeoutMs: 10_000 })).exitCode).toBe(
        code,
      );
    await away();
  });

  describe('logs', () => {
    const lines = (content: string): string[] =>
      content
        .split('\n')
        .filter((line) => line !== '')
        .map((line) => line.split(' ').slice(3).join(' '));
    const counting =
      'i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo "line $i"; [ $((i % 20)) = 0 ] && sleep 0.1; done; sleep 600';
    const expected = Array.from({ length: 400 }, (_, index) => `line ${index + 1}`);

    it('are in CRI’s format: both streams, parts of long lines, and the last words', async () => {
      const {
        id,
        path,
        remove: away,
      } = await run([
        '/bin/sh',
        '-c',
        'echo out; sleep 0.1; echo err >&2; head -c 40000 /dev/zero | tr "\\0" x; echo; echo -n last',
      ]);
      await until('the end', async () => (await runtime.inspectContainer(id)).state === 'exited');
      const stamp = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z`;
      const content = await text(path);
      expect(content).toMatch(new RegExp(`^${stamp} stdout F out$`, 'm'));
      expect(content).toMatch(new RegExp(`^${stamp} stderr F err$`, 'm'));
      expect(content).toMatch(
        new RegExp(`^${stamp} stdout P x{16384}\n${stamp} stdout P x{16384}\n${stamp} stdout F x{7232}\n`, 'm'),
      );
      expect(content).toMatch(/ stdout P last\n$/);
      await away();
    });

    it('lose and repeat nothing over restarts of the agent and of Docker, and over rotations', async () => {
      const { id, path, remove: away } = await run(['/bin/sh', '-c', counting]);
      const follow = async (): Promise<() => Promise<void>> => {
        const controller = new AbortController();
        const reading = drain(runtime.events(controller.signal));
        return async () => {
          controller.abort();
          await reading;
        };
      };
      let unfollow = await follow();
      const at = (line: number) => until(`line ${line}`, async () => (await all()).includes(`line ${line}`));
      const all = async (): Promise<string[]> => [...lines(await text(`${path}.1`)), ...lines(await text(path))];
      await at(60);
      await unfollow();
      await runtime.close();
      await sleep(300);
      runtime = open();
      unfollow = await follow();
      await at(140);
      await rename(path, `${path}.1`);
      await runtime.reopenContainerLog(id);
      await at(200);
      await dockerd.restart('SIGKILL');
      await at(400);
      expect(await all()).toEqual(expected);
      expect(lines(await text(path)).length).toBeGreaterThan(50);
      expect((await runtime.inspectContainer(id)).state).toBe('running');
      await unfollow();
      await away();
    });

    it('of a crashed agent go on where the file ends, without the line that was half written', async () => {
      const { id, path, remove: away } = await run(['/bin/sh', '-c', counting.replace('sleep 600', 'exit 0')]);
      await until('some lines', async () => lines(await text(path)).length > 60);
      // As a crash leaves it: the cursor is of the start, and the file ends within a line.
      const cursor = join(folder, 'state/logs', `${id}.json`);
      const old = await readFile(cursor, 'utf8');
      await runtime.close();
      await writeFile(cursor, old);
      const content = await text(path);
      await writeFile(path, content.slice(0, -7));
      runtime = open();
      const controller = new AbortController();
      const reading = drain(runtime.events(controller.signal));
      await until('the last line', async () => lines(await text(path)).includes('line 400'));
      expect(lines(await text(path))).toEqual(expected);
      controller.abort();
      await reading;
      await away();
    });

    it('of a terminal keep every byte', async () => {
      const {
        id,
        path,
        remove: away,
      } = await run(['/bin/sh', '-c', 'head -c 20000 /dev/zero | tr "\\0" y; echo; echo end'], { tty: true });
      await until('the end', async () => (await runtime.inspectContainer(id)).state === 'exited');
      const content = await text(path);
      expect(content).toMatch(/ stdout P y{16384}\n\S+ stdout F y{3616}\r\n\S+ stdout F end\r\n$/);
      await away();
    });
  });

  describe('streams', () => {
    function channels(stdin?: string) {
      const said = { out: '', err: '' };
      const into = (key: 'out' | 'err') =>
        new WritableStream<Uint8Array>({
          write(chunk) {
            said[key] += Buffer.from(chunk).toString();
          },
        });
      const of: StreamChannels = {
        stdin: stdin === undefined ? undefined : new Blob([stdin]).stream(),
        stdout: into('out'),
        stderr: into('err'),
        resize: (async function* () {
          yield { width: 91, height: 33 };
        })(),
      };
      return { said, of };
    }
    const opener = async (id: ContainerId, command: readonly string[], tty = false, stdin = false) => {
      const endpoint = await runtime.exec({ containerId: id, command, tty, stdin, stdout: true, stderr: !tty });
      if (endpoint.kind !== 'duplex') throw new Error('no duplex');
      return endpoint.open;
    };

    it('exec takes input to its end, keeps the streams apart and tells the code', async () => {
      const { id, remove: away } = await run(workloads.waits);
      const { said, of } = channels('a\nb\n');
      const open = await opener(id, ['/bin/sh', '-c', 'wc -l; echo err >&2; exit 5'], false, true);
      expect(await open(of, new AbortController().signal)).toBe(5);
      expect(said).toEqual({ out: '2\n', err: 'err\n' });
      const big = channels('x'.repeat(3_000_000));
      expect(await (await opener(id, ['cat'], false, true))(big.of, new AbortController().signal)).toBe(0);
      expect(big.said.out.length).toBe(3_000_000);
      await away();
    });

    it('exec in a terminal has its size, and ctrl-p is the shell’s', async () => {
      const { id, remove: away } = await run(workloads.waits);
      const { said, of } = channels('\u0010\u0010\n');
      const open = await opener(
        id,
        ['/bin/sh', '-c', 'stty raw -echo; sleep 0.4; stty size; head -c 2 | od -An -tx1'],
        true,
        true,
      );
      expect(await open(of, new AbortController().signal)).toBe(0);
      expect(said.out).toContain('33 91');
      expect(said.out).toContain('10 10');
      await away();
    });

    it('attach sees what is said from then on, and what is typed arrives', async () => {
      const { id, remove: away } = await run(['/bin/sh', '-c', 'read line; echo "got $line"'], {
        stdin: true,
        stdinOnce: true,
      });
      const endpoint = await runtime.attach({ containerId: id, tty: false, stdin: true, stdout: true, stderr: true });
      if (endpoint.kind !== 'duplex') throw new Error('no duplex');
      const { said, of } = channels('hello\n');
      expect(await endpoint.open(of, new AbortController().signal)).toBe(0);
      expect(said.out).toBe('got hello\n');
      await away();
    });

    it('a client that goes away frees the stream', async () => {
      const { id, remove: away } = await run(workloads.waits);
      const controller = new AbortController();
      const open = await opener(id, ['sleep', '600']);
      const running = open(channels().of, controller.signal);
      setTimeout(() => controller.abort(new Error('gone')), 200);
      await expect(running).rejects.toThrow('gone');
      await away();
    });

    it('ports inside are reached on both families, and what refuses says so', async () => {
      const {
        id,
        sandbox,
        remove: away,
      } = await run(['/bin/sh', '-c', 'httpd -f -p 127.0.0.1:8080 -h /www & exec httpd -f -p [::1]:8081 -h /www']);
      await until('the servers', async () => (await inside(id, 'netstat -ltn')).split('LISTEN').length > 2);
      const endpoint = await runtime.portForward(sandbox, []);
      if (endpoint.kind !== 'duplex') throw new Error('no duplex');
      const signal = new AbortController().signal;
      const get = async (port: number): Promise<string> => {
        const { readable, writable } = await endpoint.open(port, signal);
        const writer = writable.getWriter();
        await writer.write(Buffer.from('GET /healthz HTTP/1.0\r\n\r\n'));
        return new Response(readable).text();
      };
      expect(await Promise.all([get(8080), get(8081), get(8080)])).toEqual(
        Array(3).fill(expect.stringMatching(/200 OK[\s\S]*ok\n$/)),
      );
      await expect(endpoint.open(9, signal)).rejects.toMatchObject({ detail: expect.stringContaining('ECONNREFUSED') });
      await away();
    });
  });

  it('statistics leave out what the kernel can drop at once', async () => {
    const { id, remove: away } = await run([
      '/bin/sh',
      '-c',
      'head -c 40000000 /dev/zero >/f; cat /f >/f2; sync; sleep 600',
    ]);
    await until(
      'the page cache to fill',
      async () => ((await runtime.containerStats(id)).memory?.usageBytes ?? 0) > 30_000_000,
    );
    const { memory } = await runtime.containerStats(id);
    expect(memory!.workingSetBytes).toBeLessThan(memory!.usageBytes! - 20_000_000);
    await away();
  });

  it('pulls with credentials, and tells a refusal from an absence', async () => {
    const registry = await startRegistry({ auth: { username: 'user', password: 'secret:word' } });
    try {
      const image = registry.publish(
        'team/app',
        'v1',
        buildImage({
          names: [],
          architecture: imageArchitecture(),
          config: { user: '1000:1' },
          layers: [[{ path: 'a', data: 'a' }]],
        }),
      );
      await expect(runtime.pullImage({ image }, undefined, undefined)).rejects.toMatchObject({ code: 'unauthorized' });
      const auth = Buffer.from('user:secret:word').toString('base64');
      const id = await runtime.pullImage({ image }, { auth }, undefined);
      const found = await runtime.imageStatus({ image });
      expect(found).toMatchObject({
        id,
        repoTags: [image],
        uid: 1000,
        repoDigests: [expect.stringMatching(/^127\.0\.0\.1:\d+\/team\/app@sha256:/)],
      });
      // By its digest, and with both: the same image.
      const digest = found!.repoDigests[0]!.split('@')[1]!;
      expect((await runtime.imageStatus({ image: `${image}@${digest}` }))?.id).toBe(id);
      await expect(runtime.pullImage({ image: image.replace('v1', 'v2') }, { auth }, undefined)).rejects.toMatchObject({
        code: 'not-found',
      });
      await runtime.removeImage({ image: id });
      expect(await runtime.imageStatus({ image: id })).toBeUndefined();
    } finally {
      await registry.stop();
    }
  });

  it('a daemon that is killed and comes back: pods run on, events say lost', async () => {
    const { id, remove: away } = await run(workloads.waits);
    const events: RuntimeEvent[] = [];
    const controller = new AbortController();
    const reading = drain(runtime.events(controller.signal), events);
    await until('the stream to stand', () => events.length > 0);
    const before = await runtime.inspectContainer(id, { verbose: true });
    const count = events.length;
    await dockerd.restart('SIGKILL');
    await until('lost', () => events.slice(count).some(({ kind }) => kind === 'lost'));
    expect(await runtime.inspectContainer(id, { verbose: true })).toMatchObject({ state: 'running', pid: before.pid });
    await runtime.stopContainer(id, 5);
    await until('stopped', () => events.some((event) => event.kind === 'stopped' && event.containerId === id));
    controller.abort();
    await reading;
    await away();
  });
});

async function drain(events: AsyncIterable<RuntimeEvent>, into: RuntimeEvent[] = []): Promise<void> {
  for await (const event of events) into.push(event);
}
