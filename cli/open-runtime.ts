// The container runtime behind `containerRuntimeEndpoint`: Docker Engine where the socket is its own, else whatever serves the CRI there.
import { join } from 'node:path';
import { createCriRuntime } from '../cri/containerd/cri-runtime.ts';
import type { Runtime } from '../cri/runtime.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { Tracer } from '../lib/tracing/tracer.ts';

export interface OpenRuntimeOptions {
  /** `unix:///path/of.sock`. */
  readonly endpoint: string;
  /** Of calls that change the runtime, in milliseconds. */
  readonly runtimeRequestTimeoutMs?: number;
  /** Under it Docker's adapter keeps what the engine cannot remember. */
  readonly rootDir: string;
  /** With Docker CNI is called by us. An empty confDir puts pods on Docker's own bridge. */
  readonly cni: { readonly confDir: string; readonly binDir: string };
}

export const isDockerEndpoint = (endpoint: string): boolean => /(^|\/)docker\.sock$/.test(endpoint);

export async function openRuntime(
  deps: { readonly log: Log; readonly clock: Clock; readonly tracer?: Tracer | undefined },
  options: OpenRuntimeOptions,
): Promise<Runtime> {
  const { endpoint, runtimeRequestTimeoutMs, cni } = options;
  if (!isDockerEndpoint(endpoint))
    return createCriRuntime(deps, {
      endpoint,
      ...(runtimeRequestTimeoutMs === undefined ? {} : { runtimeRequestTimeoutMs }),
    });
  // Loaded only here: who runs containerd need not carry Docker's client in memory.
  const { createDockerRuntime } = await import('../cri/docker/docker-runtime.ts');
  return createDockerRuntime(deps, {
    socketPath: endpoint.replace(/^unix:\/\//, ''),
    cniConfDir: cni.confDir === '' ? undefined : cni.confDir,
    cniBinDirs: [...new Set([cni.binDir, '/usr/lib/cni'])],
    stateDir: join(options.rootDir, 'docker'),
  });
}
