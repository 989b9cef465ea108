// containerd of our own: its root, state and socket apart from the host's.
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createCriRuntime } from '../../cri/containerd/cri-runtime.ts';
import { demoImage, pauseImage, pauseImageName, readBusybox } from '../../cri/local-images.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { Clock } from '../../lib/clock.ts';
import { exec } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { type Child, startChild } from './child.ts';
import type { DevFolders } from './folders.ts';
import { type HostTools, mayLowerOomScore } from './host.ts';

export interface DevRuntimeDeps {
  readonly clock: Clock;
  readonly log: Log;
}

const text = (value: string): string => JSON.stringify(value);

// Version 2 of the configuration is read by containerd 1.6 to 2.x.
const configuration = (folders: DevFolders, tools: HostTools, restrictOom: boolean): string => `version = 2
root = ${text(folders.containerdRoot)}
state = ${text(folders.containerdState)}
[grpc]
  address = ${text(folders.containerdSocket)}
[plugins."io.containerd.internal.v1.opt"]
  path = ${text(join(folders.data, 'opt'))}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = ${text(pauseImageName)}
  restrict_oom_score_adj = ${restrictOom}
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = ${text(tools.cniBin)}
  conf_dir = ${text(folders.cniConf)}
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
`;

export async function startDevContainerd(deps: DevRuntimeDeps, folders: DevFolders, tools: HostTools): Promise<Child> {
  await mkdir(folders.run, { recursive: true });
  await mkdir(folders.data, { recursive: true });
  await rm(folders.containerdSocket, { force: true });
  await writeFile(folders.containerdConfig, configuration(folders, tools, !(await mayLowerOomScore())));
  return startChild(deps.clock, {
    command: tools.containerd,
    args: ['--config', folders.containerdConfig],
    logPath: folders.containerdLog,
    pidPath: folders.containerdPid,
  });
}

const patienceMs = 30_000;

/** The runtime at an endpoint, once it answers. */
export async function openRuntime(deps: DevRuntimeDeps, endpoint: string): Promise<{ runtime: Runtime; name: string }> {
  const runtime = createCriRuntime(deps, { endpoint });
  const startedMs = deps.clock.monotonicMs();
  for (;;) {
    try {
      const version = await runtime.version();
      return { runtime, name: `${version.runtimeName} ${version.runtimeVersion}` };
    } catch (error) {
      if (deps.clock.monotonicMs() - startedMs > patienceMs) {
        await runtime.close();
        throw new Error(`no container runtime answers at ${endpoint} within ${patienceMs / 1000} s`, { cause: error });
      }
      await deps.clock.sleep(100);
    }
  }
}

/** Builds the pause and demo images from the host's busybox and imports them. */
export async function loadImages(folders: DevFolders, tools: HostTools, socket: string): Promise<void> {
  const architecture = imageArchitecture();
  await mkdir(folders.images, { recursive: true });
  const path = join(folders.images, 'dev.tar');
  await writeFile(path, imageArchive([pauseImage(architecture), demoImage(architecture, await readBusybox())]));
  await exec(tools.ctr, ['--address', socket, '--namespace', 'k8s.io', 'images', 'import', path], {
    timeoutMs: 120_000,
  });
}

/** Removes every pod there is. The control plane begins empty, so none of them is anybody's. */
export async function removeAllPods(runtime: Runtime): Promise<void> {
  for (const { id } of await runtime.listSandboxes()) {
    await runtime.stopSandbox(id).catch(() => undefined);
    await runtime.removeSandbox(id);
  }
}
