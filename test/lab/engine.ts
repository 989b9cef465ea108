// The container runtime of a test, whichever it is: what tests do to one behind the agent's back, in the same words for each.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openRuntime } from '../../cli/open-runtime.ts';
import { pauseImage } from '../../cri/local-images.ts';
import type { Runtime } from '../../cri/runtime.ts';
import { systemClock } from '../../lib/clock.ts';
import { type Log, silentLog } from '../../lib/log.ts';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { type Containerd, hasContainerd2, startContainerd } from './containerd.ts';
import { type Dockerd, startDockerd } from './dockerd.ts';

/** Versions of containerd by their number. */
export type EngineKind = '1.6' | '2.x' | 'docker';

export interface Engine {
  readonly kind: EngineKind;
  /** For the titles of tests. */
  readonly title: string;
  readonly endpoint: string;
  readonly socket: string;
  readonly containerd: Containerd | undefined;
  readonly dockerd: Dockerd | undefined;
  /** Loads a docker archive. */
  loadImage(archive: Uint8Array): Promise<void>;
  /** The port on it, as a node opens it. What Docker's adapter remembers is kept under `rootDir`. */
  openRuntime(rootDir: string, log?: Log): Promise<Runtime>;
  /** Kills the process of a container, as an accident would. */
  kill(id: string): Promise<void>;
  /** Ids of the containers and sandboxes whose process runs. */
  running(): Promise<readonly string[]>;
  /** Ids of all containers and sandboxes that it knows. */
  containers(): Promise<readonly string[]>;
  /** Ends the daemon and starts it again. */
  restart(signal?: NodeJS.Signals): Promise<void>;
  stop(): Promise<void>;
  tailLog(): Promise<string>;
}

export interface EngineOptions {
  readonly kind: EngineKind;
  readonly dir: string;
  readonly netns?: string;
  readonly podCidr?: string;
  /** Docker's containers run on while it is away. Default false. */
  readonly liveRestore?: boolean;
  /** Pods are on Docker's own bridge: no CNI. Default false. */
  readonly ownBridge?: boolean;
}

export const titleOf = (kind: EngineKind): string => (kind === 'docker' ? 'Docker Engine' : `containerd ${kind}`);

const onDocker = (): boolean => process.env.STEVEDORE_TEST_RUNTIME === 'docker';

/** What a suite runs on that has one run for each runtime: Docker alone where STEVEDORE_TEST_RUNTIME names it, else each containerd that is here. */
export const engineKinds = (): readonly EngineKind[] =>
  onDocker() ? ['docker'] : hasContainerd2() ? ['1.6', '2.x'] : ['1.6'];

/** What a test runs on that needs one runtime. */
export const engineKind = (): EngineKind =>
  onDocker() ? 'docker' : process.env.STEVEDORE_TEST_CONTAINERD === '2.x' && hasContainerd2() ? '2.x' : '1.6';

/** The runtime's own id of a container, from `docker://…` or `containerd://…`. */
export const runtimeId = (containerId: string | undefined): string => containerId?.replace(/^\w+:\/\//, '') ?? '';

export async function startEngine(options: EngineOptions): Promise<Engine> {
  return options.kind === 'docker' ? onDockerd(options) : onContainerd(options, options.kind);
}

const lines = (text: string): string[] => text.split('\n').filter((line) => line.trim() !== '');

async function onContainerd(
  { dir, netns, podCidr }: EngineOptions,
  binary: Exclude<EngineKind, 'docker'>,
): Promise<Engine> {
  const containerd = await startContainerd({
    dir,
    binary,
    ...(netns === undefined ? {} : { netns }),
    ...(podCidr === undefined ? {} : { podCidr }),
  });
  return {
    kind: binary,
    title: titleOf(binary),
    endpoint: containerd.endpoint,
    socket: containerd.socket,
    containerd,
    dockerd: undefined,
    async loadImage(archive) {
      const tar = join(dir, 'load.tar');
      await writeFile(tar, archive);
      await containerd.importImage(tar);
    },
    openRuntime: (rootDir, log) => open(containerd.endpoint, dir, rootDir, log),
    kill: async (id) => void (await containerd.ctr(['tasks', 'kill', '-s', 'SIGKILL', id])),
    running: async () =>
      lines(await containerd.ctr(['tasks', 'ls']))
        .filter((line) => line.includes('RUNNING'))
        .map((line) => line.split(/\s+/)[0] ?? ''),
    containers: async () => lines(await containerd.ctr(['containers', 'ls', '-q'])).map((line) => line.trim()),
    restart: containerd.restart,
    stop: containerd.stop,
    tailLog: containerd.tailLog,
  };
}

async function onDockerd({ dir, netns, podCidr, liveRestore, ownBridge }: EngineOptions): Promise<Engine> {
  const dockerd = await startDockerd({
    dir,
    ...(netns === undefined ? {} : { netns }),
    ...(podCidr === undefined ? {} : { podCidr }),
    ...(liveRestore === undefined ? {} : { liveRestore }),
    ...(ownBridge === undefined ? {} : { ownBridge }),
  });
  await dockerd.loadImage(imageArchive([pauseImage(imageArchitecture())]));
  const ids = async (query: string): Promise<string[]> => {
    const { status, body } = await dockerd.api('GET', `/containers/json${query}`);
    if (status !== 200) throw new Error(`Docker lists no containers: ${status} ${body}`);
    return (JSON.parse(body) as { Id: string }[]).map(({ Id }) => Id);
  };
  return {
    kind: 'docker',
    title: titleOf('docker'),
    endpoint: dockerd.endpoint,
    socket: dockerd.socket,
    containerd: undefined,
    dockerd,
    loadImage: dockerd.loadImage,
    openRuntime: (rootDir, log) => open(dockerd.endpoint, ownBridge ? undefined : dir, rootDir, log),
    async kill(id) {
      const { body } = await dockerd.api('GET', `/containers/${id}/json`);
      const { Pid = 0 } = (JSON.parse(body) as { State?: { Pid?: number } }).State ?? {};
      if (Pid <= 1) throw new Error(`container ${id} does not run: ${body}`);
      process.kill(Pid, 'SIGKILL');
    },
    running: () => ids(''),
    containers: () => ids('?all=1'),
    restart: dockerd.restart,
    stop: dockerd.stop,
    tailLog: dockerd.tailLog,
  };
}

async function open(
  endpoint: string,
  dir: string | undefined,
  rootDir: string,
  log: Log = silentLog,
): Promise<Runtime> {
  await mkdir(rootDir, { recursive: true });
  return openRuntime(
    { log, clock: systemClock },
    {
      endpoint,
      runtimeRequestTimeoutMs: 60_000,
      rootDir,
      cni:
        dir === undefined ? { confDir: '', binDir: '' } : { confDir: join(dir, 'net.d'), binDir: join(dir, 'cni-bin') },
    },
  );
}
