// The runtime port: all that the agent asks of a container runtime. Implementations: containerd/ (any CRI v1 socket), docker/, and
// fake-runtime.ts for tests; contract.ts is the suite that every one of them passes.
import type * as t from './types.ts';

export interface CallOptions {
  /**
   * Abandons the wait. Give it only to calls that change nothing (and to pulls, exec and streams): a call that changes the runtime and
   * is cut short leaves reserved names and half-made namespaces behind.
   */
  readonly signal?: AbortSignal;
  /** For a call that may wait for its turn before it is made: aborted while it waits, it is not made and rejects; afterwards it changes nothing. */
  readonly beginUnless?: AbortSignal;
  /** Default 120,000; listing and status 30,000. A runtime that does not answer rejects with code `deadline`. */
  readonly timeoutMs?: number;
}

/** Every call rejects with a RuntimeError (errors.ts). */
export interface Runtime {
  version(options?: CallOptions): Promise<t.RuntimeVersion>;
  status(options?: CallOptions): Promise<t.RuntimeStatus>;
  updatePodCidr(podCidr: string, options?: CallOptions): Promise<void>;

  runSandbox(config: t.SandboxConfig, runtimeHandler: string, options?: CallOptions): Promise<t.SandboxId>;
  /** Stopping what is stopped or gone succeeds. */
  stopSandbox(id: t.SandboxId, options?: CallOptions): Promise<void>;
  /** Removing what is gone succeeds. */
  removeSandbox(id: t.SandboxId, options?: CallOptions): Promise<void>;
  listSandboxes(filter?: t.SandboxFilter, options?: CallOptions): Promise<t.SandboxSummary[]>;
  sandboxStatus(id: t.SandboxId, options?: CallOptions & { verbose?: boolean }): Promise<t.SandboxStatus>;

  createContainer(
    sandbox: t.SandboxId,
    config: t.ContainerConfig,
    sandboxConfig: t.SandboxConfig,
    options?: CallOptions,
  ): Promise<t.ContainerId>;
  startContainer(id: t.ContainerId, options?: CallOptions): Promise<void>;
  /** Sends the stop signal, waits `graceSeconds`, then kills; resolves when it stopped. Stopping what is stopped or gone succeeds. */
  stopContainer(id: t.ContainerId, graceSeconds: number, options?: CallOptions): Promise<void>;
  removeContainer(id: t.ContainerId, options?: CallOptions): Promise<void>;
  listContainers(filter?: t.ContainerFilter, options?: CallOptions): Promise<t.ContainerSummary[]>;
  inspectContainer(id: t.ContainerId, options?: CallOptions & { verbose?: boolean }): Promise<t.ContainerInspection>;
  updateContainerResources(id: t.ContainerId, resources: t.LinuxResources, options?: CallOptions): Promise<void>;
  reopenContainerLog(id: t.ContainerId, options?: CallOptions): Promise<void>;
  checkpointContainer(id: t.ContainerId, location: string, options?: CallOptions): Promise<void>;

  /** Runs a command to its end; a command that exits non-zero is a result, not an error. Rejects with `deadline` after `timeoutMs`. */
  execSync(id: t.ContainerId, command: readonly string[], options?: CallOptions): Promise<t.ExecSyncResult>;
  exec(request: t.ExecRequest, options?: CallOptions): Promise<t.StreamEndpoint>;
  attach(request: t.AttachRequest, options?: CallOptions): Promise<t.StreamEndpoint>;
  portForward(sandbox: t.SandboxId, ports: readonly number[], options?: CallOptions): Promise<t.PortForwardEndpoint>;

  /** The image's reference: its id, by which it can be found whatever its tags do. */
  pullImage(
    image: t.ImageSpec,
    auth: t.RegistryAuth | undefined,
    sandboxConfig: t.SandboxConfig | undefined,
    options?: CallOptions,
  ): Promise<string>;
  /** Undefined where the runtime has no such image. */
  imageStatus(image: t.ImageSpec, options?: CallOptions): Promise<t.Image | undefined>;
  listImages(options?: CallOptions): Promise<t.Image[]>;
  removeImage(image: t.ImageSpec, options?: CallOptions): Promise<void>;
  imageFilesystem(
    options?: CallOptions,
  ): Promise<{ readonly image: readonly t.FilesystemUsage[]; readonly container: readonly t.FilesystemUsage[] }>;

  containerStats(id: t.ContainerId, options?: CallOptions): Promise<t.ContainerStats>;
  listContainerStats(filter?: t.ContainerFilter, options?: CallOptions): Promise<t.ContainerStats[]>;

  /**
   * What happens in the runtime from now on. Reconnects by itself and says `lost` when it did; ends when the signal aborts. The first item
   * is `lost`, once the stream stands.
   */
  events(signal: AbortSignal): AsyncIterable<t.RuntimeEvent>;

  close(): Promise<void>;
}
