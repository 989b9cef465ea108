// Containers of sandboxes: made, started, stopped, looked at.
import { mkdir, stat } from 'node:fs/promises';
import type Docker from 'dockerode';
import type { Clock } from '../../lib/clock.ts';
import { isNotFound, RuntimeError } from '../errors.ts';
import type { CallOptions, Runtime } from '../runtime.ts';
import type * as t from '../types.ts';
import { abortable, type DockerConnection, statusOf } from './connection.ts';
import type { Facts } from './facts.ts';
import { imageOf, imagePath } from './images.ts';
import type { Layers } from './layers.ts';
import {
  type ContainerRecord,
  containerRecord,
  kindLabel,
  podUidLabel,
  sandboxIdLabel,
  sandboxRecord,
} from './labels.ts';
import type { ContainerLogs } from './logs.ts';
import { type Making, removeForGood } from './making.ts';
import { limitsOf, resourcesOf } from './resources.ts';
import { seccompText } from './seccomp.ts';
import { containerSpec } from './specs.ts';
import { statsOf } from './stats.ts';
import { writeUnified } from './unified.ts';

export interface ContainersDeps {
  readonly connection: DockerConnection;
  readonly clock: Clock;
  readonly facts: Facts;
  readonly making: Making;
  readonly logs: ContainerLogs;
  readonly layers: Layers;
}

export type Containers = Pick<
  Runtime,
  | 'createContainer'
  | 'startContainer'
  | 'stopContainer'
  | 'removeContainer'
  | 'listContainers'
  | 'inspectContainer'
  | 'updateContainerResources'
  | 'containerStats'
  | 'listContainerStats'
> & {
  /** Goes on copying the logs of the containers that are there. After a restart of the agent or of Docker. */
  adopt(signal: AbortSignal): Promise<void>;
};

const quickMs = 30_000;
const changeMs = 120_000;
/** How long an ended container is kept back for the last of its output. */
const drainMs = 2_000;

export function createContainers(deps: ContainersDeps): Containers {
  const { connection, making, logs, layers } = deps;
  const { docker } = connection;

  const inspect = (call: string, id: string, from?: CallOptions) =>
    connection.call(call, from, quickMs, (abortSignal) => docker.getContainer(id).inspect({ abortSignal }));

  const ours = (call: string, seen: Docker.ContainerInspectInfo): ContainerRecord => {
    const record = containerRecord(seen.Config.Labels);
    if (!record) throw new RuntimeError('not-found', call, `no such container: ${seen.Id} is none of ours`);
    return record;
  };

  async function list(call: string, filter: t.ContainerFilter | undefined, from: CallOptions | undefined) {
    const label = [
      `${kindLabel}=container`,
      ...(filter?.podUid === undefined ? [] : [`${podUidLabel}=${filter.podUid}`]),
      ...(filter?.sandboxId === undefined ? [] : [`${sandboxIdLabel}=${filter.sandboxId}`]),
    ];
    const found = await connection.call(call, from, quickMs, (abortSignal) =>
      docker.listContainers({ all: true, filters: { label, ...(filter?.id ? { id: [filter.id] } : {}) }, abortSignal }),
    );
    return found.flatMap((info) => {
      const record = containerRecord(info.Labels);
      return record ? [{ info, record }] : [];
    });
  }

  async function stateOfListed(info: Docker.ContainerInfo): Promise<t.ContainerRuntimeState | undefined> {
    if (info.State !== 'created') return listedStates[info.State] ?? 'unknown';
    // One that could not be started looks as if nobody had tried.
    try {
      return stateOf((await inspect('ListContainers', info.Id)).State);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  async function statsFor(
    id: string,
    record: ContainerRecord,
    from: CallOptions | undefined,
    writableLayer: t.FilesystemUsage | undefined,
  ): Promise<t.ContainerStats> {
    const { memoryBytes } = await deps.facts.get(from);
    const stats = await connection.call('ContainerStats', from, quickMs, (abortSignal) =>
      docker.getContainer(id).stats(abortable(abortSignal, { stream: false as const, 'one-shot': true })),
    );
    const limit = stats.memory_stats.limit ?? 0;
    const about = {
      id: id as t.ContainerId,
      metadata: record.metadata,
      labels: record.labels,
      annotations: record.annotations,
    };
    return { ...statsOf(about, stats, limit < memoryBytes ? limit : 0), writableLayer };
  }

  return {
    async createContainer(sandbox, config, sandboxConfig) {
      const call = 'CreateContainer';
      const [facts, pause, image] = await Promise.all([
        deps.facts.get(),
        inspect(call, sandbox).catch((error: unknown) => {
          if (isNotFound(error))
            throw new RuntimeError(
              'not-found',
              call,
              `failed to find sandbox id ${JSON.stringify(sandbox)}: not found`,
              error,
            );
          throw error;
        }),
        connection.call(call, undefined, quickMs, () => docker.getImage(imagePath(config.image.image)).inspect()),
      ]);
      const { repoDigests, id: imageId } = imageOf(image);
      const { unified = {} } = config.resources;
      const record: ContainerRecord = {
        metadata: config.metadata,
        labels: config.labels,
        annotations: config.annotations,
        createdAtMs: deps.clock.now(),
        image: config.image.userSpecifiedImage || config.image.image,
        imageRef: repoDigests[0] ?? imageId,
        mounts: config.mounts,
        logPath:
          config.logPath === '' || sandboxConfig.logDirectory === ''
            ? ''
            : `${sandboxConfig.logDirectory}/${config.logPath}`,
        tty: config.tty,
        ...(Object.keys(unified).length > 0 ? { unified } : {}),
      };
      const spec = containerSpec(sandbox, config, sandboxConfig, record, {
        ...facts,
        runtimeHandler: sandboxRecord(pause.Config.Labels)?.runtimeHandler ?? '',
        seccompText: await seccompText(call, config.security.seccomp),
      });
      // What is not there becomes a folder, as other runtimes have it.
      for (const { hostPath } of config.mounts)
        if (
          await stat(hostPath).then(
            () => false,
            (error: NodeJS.ErrnoException) => error.code === 'ENOENT',
          )
        )
          await mkdir(hostPath, { recursive: true });
      const isHalfMade = async ({ Id, State }: Docker.ContainerInspectInfo): Promise<boolean> =>
        State.Status === 'dead' || (State.Status === 'created' && State.Error === '' && !making.handedOut(Id));
      const id = await making.create(call, spec, isHalfMade, (holder) => removeForGood(connection, call, holder));
      making.handOut(id);
      return id as t.ContainerId;
    },

    async startContainer(id) {
      const call = 'StartContainer';
      const seen = await inspect(call, id);
      const record = ours(call, seen);
      if (seen.State.Status !== 'created')
        throw new RuntimeError('invalid', call, `container is in ${seen.State.Status} state: ${id} was started before`);
      await connection.call(call, undefined, changeMs, async (abortSignal) =>
        docker.getContainer(id).start({ abortSignal }),
      );
      await logs.follow({ id, path: record.logPath, tty: record.tty });
      if (record.unified) await writeUnified((await inspect(call, id)).State.Pid, record.unified);
    },

    async stopContainer(id, graceSeconds) {
      const seconds = Math.max(0, Math.ceil(graceSeconds));
      await connection.call('StopContainer', undefined, changeMs + seconds * 1000, async (abortSignal) => {
        try {
          await docker.getContainer(id).stop({ t: seconds, abortSignal });
        } catch (error) {
          const status = statusOf(error);
          if (status !== 304 && status !== 404) throw error;
        }
      });
      await logs.drained(id, drainMs);
    },

    async removeContainer(id) {
      await removeForGood(connection, 'RemoveContainer', id);
      await logs.forget(id);
      making.forget(id);
      layers.forget(id);
    },

    async listContainers(filter, from) {
      const found = await list('ListContainers', filter, from);
      const all = await Promise.all(
        found.map(async ({ info, record }): Promise<t.ContainerSummary | undefined> => {
          const state = await stateOfListed(info);
          if (state === undefined) return undefined;
          return {
            id: info.Id as t.ContainerId,
            sandboxId: (info.Labels[sandboxIdLabel] ?? '') as t.SandboxId,
            metadata: record.metadata,
            image: record.image,
            imageRef: record.imageRef,
            imageId: info.ImageID,
            state,
            createdAtMs: record.createdAtMs,
            labels: record.labels,
            annotations: record.annotations,
          };
        }),
      );
      return all.filter((summary) => summary !== undefined);
    },

    async inspectContainer(id, from) {
      const call = 'ContainerStatus';
      const seen = await inspect(call, id, from);
      const record = ours(call, seen);
      if (stateOf(seen.State) === 'exited') await logs.drained(id, drainMs);
      return inspectionOf(seen, record, from?.verbose === true);
    },

    async updateContainerResources(id, resources) {
      const call = 'UpdateContainerResources';
      await connection.call(call, undefined, changeMs, (abortSignal) =>
        docker.getContainer(id).update({ ...limitsOf(resources), abortSignal }),
      );
      const { unified = {} } = resources;
      if (Object.keys(unified).length > 0) await writeUnified((await inspect(call, id)).State.Pid, unified);
    },

    async containerStats(id, from) {
      const call = 'ContainerStats';
      const seen = await inspect(call, id, from);
      const record = ours(call, seen);
      if (!seen.State.Running) throw new RuntimeError('not-found', call, `container ${id} is not running`);
      return statsFor(id, record, from, (await layers.usage([id])).get(id));
    },

    async listContainerStats(filter, from) {
      const running = (await list('ListContainerStats', filter, from)).filter(({ info }) => info.State === 'running');
      const written = await layers.usage(running.map(({ info }) => info.Id));
      const all: t.ContainerStats[] = [];
      for (let next = 0; next < running.length; next += 16) {
        const some = running
          .slice(next, next + 16)
          .map(({ info, record }) => statsFor(info.Id, record, from, written.get(info.Id)));
        for (const each of await Promise.allSettled(some)) {
          if (each.status === 'fulfilled') all.push(each.value);
          else if (!isNotFound(each.reason)) throw each.reason;
        }
      }
      return all;
    },

    async adopt(signal) {
      for (const { info, record } of await list('ListContainers', undefined, { signal }))
        if (info.State !== 'created') await logs.follow({ id: info.Id, path: record.logPath, tty: record.tty });
    },
  };
}

const listedStates: Readonly<Record<string, t.ContainerRuntimeState>> = {
  created: 'created',
  running: 'running',
  paused: 'running',
  restarting: 'running',
  removing: 'exited',
  exited: 'exited',
  dead: 'exited',
};

type State = Docker.ContainerInspectInfo['State'];

/** Docker leaves a container that it could not start in the state of one that was never tried; the error tells. */
export const stateOf = (state: State): t.ContainerRuntimeState =>
  state.Status === 'created' && state.Error !== '' ? 'exited' : (listedStates[state.Status] ?? 'unknown');

const msOf = (time: string): number => Math.max(0, Date.parse(time) || 0);

function howItEnded(state: State): Pick<t.ContainerInspection, 'exitCode' | 'reason' | 'message'> {
  if (stateOf(state) !== 'exited') return { exitCode: 0, reason: '', message: '' };
  if (state.Status === 'created') return { exitCode: 128, reason: 'StartError', message: state.Error };
  const reason = state.OOMKilled ? 'OOMKilled' : state.ExitCode === 0 ? 'Completed' : 'Error';
  return { exitCode: state.ExitCode, reason, message: state.Error };
}

export function inspectionOf(
  seen: Docker.ContainerInspectInfo,
  record: ContainerRecord,
  verbose: boolean,
): t.ContainerInspection {
  const state = stateOf(seen.State);
  const failed = seen.State.Status === 'created' && state === 'exited';
  const { StopSignal: stopSignal } = seen.Config as { readonly StopSignal?: string };
  const started = msOf(seen.State.StartedAt);
  return {
    id: seen.Id as t.ContainerId,
    metadata: record.metadata,
    state,
    createdAtMs: record.createdAtMs,
    startedAtMs: started,
    finishedAtMs:
      state === 'exited' ? Math.max(started, msOf(seen.State.FinishedAt), failed ? record.createdAtMs : 0) : 0,
    ...howItEnded(seen.State),
    image: record.image,
    imageRef: record.imageRef,
    imageId: seen.Image,
    labels: record.labels,
    annotations: record.annotations,
    mounts: record.mounts,
    logPath: record.logPath,
    resources: resourcesOf(seen.HostConfig),
    ...(stopSignal ? { stopSignal } : {}),
    ...(verbose && seen.State.Pid > 0 ? { pid: seen.State.Pid } : {}),
  };
}
