// The runtime port over CRI v1: containerd 1.6 and newer, CRI-O, and whatever else serves it on a unix socket.
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Tracer } from '../../lib/tracing/tracer.ts';
import { isNotFound, isUnavailable, isUnimplemented, RuntimeError } from '../errors.ts';
import type { CallOptions, Runtime } from '../runtime.ts';
import type { ContainerId, SandboxId } from '../types.ts';
import { removeBrokenResults } from './cni-results.ts';
import { openConnection } from './connection.ts';
import { runtimeEvents } from './event-stream.ts';
import * as from from './from-wire.ts';
import * as wire from './gen/cri.ts';
import * as to from './to-wire.ts';

export interface CriRuntimeDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** Where tracing is switched on. */
  readonly tracer?: Tracer | undefined;
}

export interface CriRuntimeOptions {
  /** `unix:///path/of.sock`. */
  readonly endpoint: string;
  /** Of calls that change the runtime. Default 120,000. */
  readonly runtimeRequestTimeoutMs?: number;
}

const quickMs = 30_000;
/** A runtime that honours an exec's own timeout answers within this; one that does not is abandoned. */
const execSlackMs = 500;

type Message<T> = wire.MessageFns<T>;

export function createCriRuntime(deps: CriRuntimeDeps, options: CriRuntimeOptions): Runtime {
  const { runtimeRequestTimeoutMs = 120_000 } = options;
  const connection = openConnection(options.endpoint, { tracer: deps.tracer });
  let facts: from.RuntimeFacts | undefined;

  const caller =
    (service: string) =>
    async <Request, Response>(
      method: string,
      request: Message<Request>,
      response: Message<Response>,
      message: wire.DeepPartial<Request>,
      call: CallOptions | undefined,
      timeoutMs: number,
    ): Promise<Response> => {
      try {
        return await connection.unary(`/runtime.v1.${service}/${method}`, request, response, message, {
          timeoutMs: call?.timeoutMs ?? timeoutMs,
          ...(call?.signal ? { signal: call.signal } : {}),
        });
      } catch (error) {
        // What answers next may be another version with another configuration.
        if (isUnavailable(error)) facts = undefined;
        throw error;
      }
    };
  const runtime = caller('RuntimeService');
  const images = caller('ImageService');
  const gone = (error: unknown): void => {
    if (!isNotFound(error)) throw error;
  };
  const required = <T>(value: T | undefined, call: string, what: string): T => {
    if (value === undefined) throw new RuntimeError('unknown', call, `the runtime’s answer has no ${what}`);
    return value;
  };

  async function readFacts(info: Readonly<Record<string, string>>, call?: CallOptions): Promise<from.RuntimeFacts> {
    try {
      const config = await runtime('RuntimeConfig', wire.Empty, wire.RuntimeConfigResponse, {}, call, quickMs);
      return from.factsFromInfo(info, from.driverFromWire(config));
    } catch (error) {
      if (!isUnimplemented(error)) throw error;
      // The kubelet of 1.37 takes the driver from nowhere else.
      return { ...from.factsFromInfo(info, from.driverFromInfo(info)), losingSupport: '1.37.0' };
    }
  }

  const endSandbox = async (
    method: 'StopPodSandbox' | 'RemovePodSandbox',
    id: SandboxId,
    call: CallOptions | undefined,
  ): Promise<void> => {
    const once = (): Promise<unknown> =>
      runtime(method, wire.SandboxRef, wire.Empty, { podSandboxId: id }, call, runtimeRequestTimeoutMs).catch(gone);
    try {
      await once();
    } catch (error) {
      if (!(await removeBrokenResults(id, error, deps))) throw error;
      await once();
    }
  };

  return {
    async version(call) {
      const { runtimeName, runtimeVersion, runtimeApiVersion } = await runtime(
        'Version',
        wire.VersionRequest,
        wire.VersionResponse,
        { version: 'v1' },
        call,
        quickMs,
      );
      return { runtimeName, runtimeVersion, runtimeApiVersion };
    },

    async status(call) {
      // Verbose costs the runtime a rendering of its whole configuration; it is asked once for each connection.
      // Another call that finds the runtime gone forgets them meanwhile: then an answer that was not asked to be verbose must not take their place.
      const known = facts;
      const verbose = known === undefined;
      const status = await runtime('Status', wire.StatusRequest, wire.StatusResponse, { verbose }, call, quickMs);
      const now = known ?? (await readFacts(status.info, call));
      if (verbose) facts = now;
      return from.statusFromWire(status, now);
    },

    async updatePodCidr(podCidr, call) {
      const message = { runtimeConfig: { networkConfig: { podCidr } } };
      await runtime('UpdateRuntimeConfig', wire.UpdateRuntimeConfigRequest, wire.Empty, message, call, quickMs);
    },

    async runSandbox(config, runtimeHandler, call) {
      const message = { config: to.sandboxConfigToWire(config), runtimeHandler };
      // Network set-up included, it may take twice what other calls may.
      const timeoutMs = 2 * runtimeRequestTimeoutMs;
      const answer = await runtime(
        'RunPodSandbox',
        wire.RunPodSandboxRequest,
        wire.SandboxRef,
        message,
        call,
        timeoutMs,
      );
      if (answer.podSandboxId === '')
        throw new RuntimeError(
          'unknown',
          'RunPodSandbox',
          `PodSandboxId is not set for sandbox "${config.metadata.name}"`,
        );
      return answer.podSandboxId as SandboxId;
    },

    stopSandbox: (id, call) => endSandbox('StopPodSandbox', id, call),
    removeSandbox: (id, call) => endSandbox('RemovePodSandbox', id, call),

    async listSandboxes(filter, call) {
      const { items } = await runtime(
        'ListPodSandbox',
        wire.ListPodSandboxRequest,
        wire.ListPodSandboxResponse,
        { filter: to.sandboxFilterToWire(filter) },
        call,
        quickMs,
      );
      return items.map(from.sandboxFromWire);
    },

    async sandboxStatus(id, call) {
      const answer = await runtime(
        'PodSandboxStatus',
        wire.PodSandboxStatusRequest,
        wire.PodSandboxStatusResponse,
        { podSandboxId: id, verbose: call?.verbose ?? false },
        call,
        quickMs,
      );
      return from.sandboxStatusFromWire(required(answer.status, 'PodSandboxStatus', 'status'), answer.info);
    },

    async createContainer(sandbox, config, sandboxConfig, call) {
      const message = {
        podSandboxId: sandbox,
        config: to.containerConfigToWire(config),
        sandboxConfig: to.sandboxConfigToWire(sandboxConfig),
      };
      const answer = await runtime(
        'CreateContainer',
        wire.CreateContainerRequest,
        wire.ContainerRef,
        message,
        call,
        runtimeRequestTimeoutMs,
      );
      if (answer.containerId === '')
        throw new RuntimeError(
          'unknown',
          'CreateContainer',
          `ContainerId is not set for container "${config.metadata.name}"`,
        );
      return answer.containerId as ContainerId;
    },

    async startContainer(id, call) {
      const message = { containerId: id };
      await runtime('StartContainer', wire.ContainerRef, wire.Empty, message, call, runtimeRequestTimeoutMs);
    },

    async stopContainer(id, graceSeconds, call) {
      const message = { containerId: id, timeout: BigInt(Math.max(0, Math.ceil(graceSeconds))) };
      const timeoutMs = runtimeRequestTimeoutMs + Math.max(0, graceSeconds) * 1000;
      await runtime('StopContainer', wire.StopContainerRequest, wire.Empty, message, call, timeoutMs).catch(gone);
    },

    async removeContainer(id, call) {
      const message = { containerId: id };
      await runtime('RemoveContainer', wire.ContainerRef, wire.Empty, message, call, runtimeRequestTimeoutMs).catch(
        gone,
      );
    },

    async listContainers(filter, call) {
      const { containers } = await runtime(
        'ListContainers',
        wire.ListContainersRequest,
        wire.ListContainersResponse,
        { filter: to.containerFilterToWire(filter) },
        call,
        quickMs,
      );
      return containers.map(from.containerFromWire);
    },

    async inspectContainer(id, call) {
      const answer = await runtime(
        'ContainerStatus',
        wire.ContainerStatusRequest,
        wire.ContainerStatusResponse,
        { containerId: id, verbose: call?.verbose ?? false },
        call,
        quickMs,
      );
      return from.inspectionFromWire(required(answer.status, 'ContainerStatus', 'status'), answer.info);
    },

    async updateContainerResources(id, resources, call) {
      await runtime(
        'UpdateContainerResources',
        wire.UpdateContainerResourcesRequest,
        wire.Empty,
        { containerId: id, linux: to.resourcesToWire(resources) },
        call,
        runtimeRequestTimeoutMs,
      );
    },

    async reopenContainerLog(id, call) {
      const message = { containerId: id };
      await runtime('ReopenContainerLog', wire.ContainerRef, wire.Empty, message, call, runtimeRequestTimeoutMs);
    },

    async checkpointContainer(id, location, call) {
      const timeoutMs = call?.timeoutMs ?? runtimeRequestTimeoutMs;
      const message = { containerId: id, location, timeout: BigInt(Math.ceil(timeoutMs / 1000)) };
      await runtime('CheckpointContainer', wire.CheckpointContainerRequest, wire.Empty, message, call, timeoutMs);
    },

    async execSync(id, command, call) {
      const timeoutMs = call?.timeoutMs ?? 0;
      // The runtime ends the process at its timeout, in whole seconds. It may go on waiting for whoever holds the output open; we do not.
      const answer = await runtime(
        'ExecSync',
        wire.ExecSyncRequest,
        wire.ExecSyncResponse,
        { containerId: id, cmd: [...command], timeout: BigInt(Math.ceil(timeoutMs / 1000)) },
        { ...(call?.signal ? { signal: call.signal } : {}), timeoutMs: timeoutMs > 0 ? timeoutMs + execSlackMs : 0 },
        0,
      );
      return { stdout: answer.stdout, stderr: answer.stderr, exitCode: answer.exitCode };
    },

    async exec(request, call) {
      const { containerId, command, tty, stdin, stdout, stderr } = request;
      const message = { containerId, cmd: [...command], tty, stdin, stdout, stderr };
      const { url } = await runtime(
        'Exec',
        wire.ExecRequest,
        wire.StreamResponse,
        message,
        call,
        runtimeRequestTimeoutMs,
      );
      return { kind: 'url', url };
    },

    async attach(request, call) {
      const message = { ...request };
      const { url } = await runtime(
        'Attach',
        wire.AttachRequest,
        wire.StreamResponse,
        message,
        call,
        runtimeRequestTimeoutMs,
      );
      return { kind: 'url', url };
    },

    async portForward(sandbox, ports, call) {
      const { url } = await runtime(
        'PortForward',
        wire.PortForwardRequest,
        wire.StreamResponse,
        { podSandboxId: sandbox, port: [...ports] },
        call,
        runtimeRequestTimeoutMs,
      );
      return { kind: 'url', url };
    },

    async pullImage(image, auth, sandboxConfig, call) {
      const message = {
        image: to.imageToWire(image),
        auth: to.authToWire(auth),
        sandboxConfig: sandboxConfig && to.sandboxConfigToWire(sandboxConfig),
      };
      // No deadline of ours: a big image takes its time, and the runtime gives up on a pull that makes no progress.
      const answer = await images('PullImage', wire.PullImageRequest, wire.PullImageResponse, message, call, 0);
      if (answer.imageRef === '')
        throw new RuntimeError('unknown', 'PullImage', `imageRef of image "${image.image}" is not set`);
      return answer.imageRef;
    },

    async imageStatus(image, call) {
      const message = { image: to.imageToWire(image) };
      const answer = await images('ImageStatus', wire.ImageRequest, wire.ImageStatusResponse, message, call, quickMs);
      return answer.image && from.imageFromWire(answer.image);
    },

    async listImages(call) {
      const answer = await images('ListImages', wire.Empty, wire.ListImagesResponse, {}, call, quickMs);
      return answer.images.map(from.imageFromWire);
    },

    async removeImage(image, call) {
      const message = { image: to.imageToWire(image) };
      await images('RemoveImage', wire.ImageRequest, wire.Empty, message, call, runtimeRequestTimeoutMs);
    },

    async imageFilesystem(call) {
      const answer = await images('ImageFsInfo', wire.Empty, wire.ImageFsInfoResponse, {}, call, quickMs);
      return {
        image: answer.imageFilesystems.map(from.filesystemFromWire),
        container: answer.containerFilesystems.map(from.filesystemFromWire),
      };
    },

    async containerStats(id, call) {
      const message = { containerId: id };
      const answer = await runtime(
        'ContainerStats',
        wire.ContainerRef,
        wire.ContainerStatsResponse,
        message,
        call,
        quickMs,
      );
      return from.statsFromWire(required(answer.stats, 'ContainerStats', 'stats'));
    },

    async listContainerStats(filter, call) {
      const answer = await runtime(
        'ListContainerStats',
        wire.ListContainerStatsRequest,
        wire.ListContainerStatsResponse,
        { filter: to.containerFilterToWire(filter) },
        call,
        quickMs,
      );
      return answer.stats.map(from.statsFromWire);
    },

    events: (signal) => runtimeEvents({ connection, clock: deps.clock, log: deps.log }, signal),

    async close() {
      connection.close();
    },
  };
}
