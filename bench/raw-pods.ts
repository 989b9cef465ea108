// The floor of bench/pods.ts: a pod's life in raw calls, by the same client, image and network as the node's. One for the CRI, one for Docker
// Engine, whose calls are a pause container, CNI and a container that joins it, and nothing kept or told.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import Docker from 'dockerode';
import { leastContainer, leastSandbox } from '../cri/configs.fixture.ts';
import { demoImageName, pauseImageName } from '../cri/local-images.ts';
import type { ContainerConfig, SandboxConfig, SandboxId } from '../cri/types.ts';
import { exec } from '../lib/exec.ts';
import { removeCgroups } from '../test/lab/cgroups.ts';
import type { Engine } from '../test/lab/engine.ts';

export interface RawPod {
  readonly sandbox: string;
  readonly container: string;
  readonly at: number;
}

export interface RawPods {
  /** Sandbox, network, and a container that runs. */
  up(at: number): Promise<RawPod>;
  /** One more container in it. */
  again(pod: RawPod): Promise<string>;
  endAgain(container: string): Promise<void>;
  down(pod: RawPod): Promise<void>;
  pidOf(container: string): Promise<number>;
  close(): Promise<void>;
}

// Ends on TERM at once, so that a deletion measures the machinery and not the program.
export const command = ['/bin/sh', '-c', 'trap "exit 0" TERM; sleep 100000 & wait'];

export interface RawPodsOptions {
  readonly engine: Engine;
  readonly cgroupParent: string;
  /** Path of the network namespace in which CNI is to be called. */
  readonly netns: string;
  readonly stateDir: string;
}

export const rawPods = (options: RawPodsOptions): Promise<RawPods> =>
  options.engine.kind === 'docker' ? onDocker(options) : onCri(options);

const rawSandbox = (at: number, cgroupParent: string): SandboxConfig =>
  leastSandbox({
    metadata: { name: `raw-${at}`, uid: `raw-uid-${at}`, namespace: 'bench', attempt: 0 },
    logDirectory: `/tmp/stevedore-bench-logs/${at}`,
    cgroupParent,
  });

const rawContainer = (name: string, image: string): ContainerConfig =>
  leastContainer(image, command, { metadata: { name, attempt: 0 }, logPath: 'c.log' });

async function onCri({ engine, cgroupParent, stateDir }: RawPodsOptions): Promise<RawPods> {
  const runtime = await engine.openRuntime(stateDir);
  const image = (await runtime.imageStatus({ image: demoImageName }))!.id;
  const start = async (at: number, name: string, sandbox: SandboxId): Promise<string> => {
    const container = await runtime.createContainer(sandbox, rawContainer(name, image), rawSandbox(at, cgroupParent));
    await runtime.startContainer(container);
    return container;
  };
  return {
    async up(at) {
      const sandbox = await runtime.runSandbox(rawSandbox(at, cgroupParent), '');
      return { sandbox, container: await start(at, 'c', sandbox), at };
    },
    again: ({ sandbox, at }) => start(at, 'd', sandbox as SandboxId),
    async endAgain(container) {
      await runtime.stopContainer(container as never, 0);
      await runtime.removeContainer(container as never);
    },
    async down({ sandbox, container }) {
      await runtime.stopContainer(container as never, 30);
      await runtime.stopSandbox(sandbox as SandboxId);
      await runtime.removeSandbox(sandbox as SandboxId);
    },
    pidOf: async (container) => (await runtime.inspectContainer(container as never, { verbose: true })).pid!,
    async close() {
      await runtime.close();
      await removeCgroups(cgroupParent);
    },
  };
}

interface Conflist {
  readonly name: string;
  readonly cniVersion: string;
  readonly plugins: readonly (Record<string, unknown> & { readonly type: string })[];
}

async function onDocker({ engine, cgroupParent, netns }: RawPodsOptions): Promise<RawPods> {
  const { dockerd } = engine;
  if (!dockerd) throw new Error('not on Docker');
  const docker = new Docker({ socketPath: dockerd.socket });
  const list = JSON.parse(await readFile(join(dockerd.cniConfDir, '10-bridge.conflist'), 'utf8')) as Conflist;

  async function cni(verb: 'ADD' | 'DEL', id: string, pid: number): Promise<void> {
    let prevResult: unknown;
    for (const plugin of verb === 'ADD' ? list.plugins : list.plugins.toReversed()) {
      const { capabilities: _, ...own } = plugin;
      const input = { ...own, name: list.name, cniVersion: list.cniVersion, ...(prevResult ? { prevResult } : {}) };
      const path = join(dockerd!.cniBinDir, plugin.type);
      // The node calls its plugins in its own network; the benchmark has to go there.
      const { stdout } = await exec('nsenter', [`--net=${netns}`, '--', path], {
        input: JSON.stringify(input),
        env: {
          CNI_COMMAND: verb,
          CNI_CONTAINERID: id,
          CNI_NETNS: pid > 0 ? `/proc/${pid}/ns/net` : '',
          CNI_IFNAME: 'eth0',
          CNI_PATH: dockerd!.cniBinDir,
        },
      });
      if (verb === 'ADD') prevResult = JSON.parse(stdout);
    }
  }
  const pidOf = async (id: string): Promise<number> => (await docker.getContainer(id).inspect()).State.Pid;
  const start = async (name: string, sandbox: string): Promise<string> => {
    const made = await docker.createContainer({
      name,
      Image: demoImageName,
      Entrypoint: command,
      HostConfig: {
        NetworkMode: `container:${sandbox}`,
        IpcMode: `container:${sandbox}`,
        CgroupParent: cgroupParent,
      },
    });
    await made.start();
    return made.id;
  };
  return {
    async up(at) {
      const pause = await docker.createContainer({
        name: `raw-${at}`,
        Image: pauseImageName,
        Hostname: `raw-${at}`,
        HostConfig: { NetworkMode: 'none', IpcMode: 'shareable', CgroupParent: cgroupParent },
      });
      await pause.start();
      await cni('ADD', pause.id, await pidOf(pause.id));
      return { sandbox: pause.id, container: await start(`raw-${at}-c`, pause.id), at };
    },
    again: ({ sandbox, at }) => start(`raw-${at}-d`, sandbox),
    endAgain: (container) => docker.getContainer(container).remove({ force: true }) as Promise<void>,
    async down({ sandbox, container }) {
      await docker.getContainer(container).stop({ t: 30 });
      await cni('DEL', sandbox, await pidOf(sandbox));
      await docker.getContainer(sandbox).kill();
      await docker.getContainer(container).remove();
      await docker.getContainer(sandbox).remove();
    },
    pidOf,
    close: () => removeCgroups(cgroupParent),
  };
}
