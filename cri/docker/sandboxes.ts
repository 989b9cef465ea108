// Sandboxes: a pause container whose namespaces the pod's containers join, and a network that CNI gives it.
//
//   create ─▶ start ─▶ resolv.conf ─▶ CNI ADD ─▶ ready ──pause ended──▶ notready ──stop (CNI DEL), remove──▶ gone
//      └─────────┴──────────┴────────────┴──────── failed: taken back
import type Docker from 'dockerode';
import type { Clock } from '../../lib/clock.ts';
import { describeError, type Log } from '../../lib/log.ts';
import { isNotFound, RuntimeError } from '../errors.ts';
import type { Runtime } from '../runtime.ts';
import type * as t from '../types.ts';
import type { Cni } from './cni.ts';
import type { DockerConnection } from './connection.ts';
import type { Facts } from './facts.ts';
import { kindLabel, podUidLabel, type SandboxRecord, sandboxIdLabel, sandboxRecord } from './labels.ts';
import { killForGood, type Making, removeForGood } from './making.ts';
import { provideImage } from './pause-image.ts';
import { writeResolvConf } from './resolv-conf.ts';
import { seccompText } from './seccomp.ts';
import { sandboxSpec } from './specs.ts';

export interface SandboxesDeps {
  readonly connection: DockerConnection;
  readonly clock: Clock;
  readonly log: Log;
  readonly facts: Facts;
  readonly making: Making;
  /** Undefined: pods are put on Docker's own bridge. */
  readonly cni: Cni | undefined;
  readonly podCidr: () => string;
  /** Lets go of what holds the sandbox's namespaces, and of its containers' logs. */
  released(sandbox: string): void;
  removeContainer(id: t.ContainerId): Promise<void>;
}

export interface SandboxesOptions {
  readonly sandboxImage: string;
  readonly resolvConf: string;
}

export type Sandboxes = Pick<
  Runtime,
  'runSandbox' | 'stopSandbox' | 'removeSandbox' | 'listSandboxes' | 'sandboxStatus'
> & {
  /** Takes away networks of sandboxes that no longer are, and has CNI check those that are. After a restart of the agent. */
  adopt(signal: AbortSignal): Promise<void>;
};

const quickMs = 30_000;
const call = 'RunPodSandbox';
const netnsOf = (pid: number): string => (pid > 0 ? `/proc/${pid}/ns/net` : '');

export function createSandboxes(deps: SandboxesDeps, options: SandboxesOptions): Sandboxes {
  const { connection, making, cni } = deps;
  const { docker } = connection;

  const inspect = (name: string, id: string, from?: Parameters<Sandboxes['sandboxStatus']>[1]) =>
    connection.call(name, from, quickMs, (abortSignal) => docker.getContainer(id).inspect({ abortSignal }));

  const networkUp = async (id: string, record: SandboxRecord): Promise<boolean> =>
    record.network !== 'cni' || cni === undefined || (await cni.addresses(id)) !== undefined;

  async function isHalfMade(holder: Docker.ContainerInspectInfo): Promise<boolean> {
    const record = sandboxRecord(holder.Config.Labels);
    if (!record || making.handedOut(holder.Id)) return false;
    const { Status, Running } = holder.State;
    if (Status === 'created' || Status === 'dead') return true;
    return Running && !(await networkUp(holder.Id, record));
  }

  async function takeBack(id: string): Promise<void> {
    deps.released(id);
    if (cni) {
      const seen = await inspect(call, id).catch(() => undefined);
      await cni.detach(id, netnsOf(seen?.State.Pid ?? 0));
    }
    await removeForGood(connection, call, id);
    making.forget(id);
  }

  async function create(
    config: t.SandboxConfig,
    runtimeHandler: string,
  ): Promise<{ id: string; record: SandboxRecord }> {
    const facts = await deps.facts.get();
    if (runtimeHandler !== '' && !facts.runtimes.includes(runtimeHandler))
      throw new RuntimeError('invalid', call, `no runtime for ${JSON.stringify(runtimeHandler)} is configured`);
    const onHost = config.security.namespaces.network === 'node';
    const record: SandboxRecord = {
      metadata: config.metadata,
      labels: config.labels,
      annotations: config.annotations,
      createdAtMs: deps.clock.now(),
      namespaces: config.security.namespaces,
      runtimeHandler,
      logDirectory: config.logDirectory,
      network: onHost ? 'host' : cni ? 'cni' : 'bridge',
    };
    const spec = sandboxSpec(config, record, options.sandboxImage, {
      ...facts,
      seccompText: await seccompText(call, config.security.seccomp),
    });
    const make = (): Promise<string> => making.create(call, spec, isHalfMade, takeBack);
    try {
      return { id: await make(), record };
    } catch (error) {
      if (!isNotFound(error)) throw error;
      await provideImage(connection, options.sandboxImage);
      return { id: await make(), record };
    }
  }

  async function connect(id: string, record: SandboxRecord, config: t.SandboxConfig): Promise<void> {
    await connection.call(call, undefined, 120_000, (abortSignal) => docker.getContainer(id).start({ abortSignal }));
    const { State, ResolvConfPath } = await inspect(call, id);
    if (!State.Running) throw new RuntimeError('unknown', call, `the sandbox’s process ended at once: ${State.Error}`);
    await writeResolvConf(ResolvConfPath, config.dns, options.resolvConf);
    if (record.network !== 'cni' || !cni) return;
    await cni.attach(id, config.metadata, netnsOf(State.Pid), {
      portMappings: config.portMappings,
      annotations: config.annotations,
      podCidr: deps.podCidr(),
      ...(config.dns ? { dns: config.dns } : {}),
    });
  }

  const containersOf = (name: string, id: string) =>
    connection.call(name, undefined, quickMs, (abortSignal) =>
      docker.listContainers({ all: true, filters: { label: [`${sandboxIdLabel}=${id}`] }, abortSignal }),
    );

  async function stop(id: t.SandboxId): Promise<void> {
    const name = 'StopPodSandbox';
    deps.released(id);
    const seen = await inspect(name, id).catch((error: unknown) => {
      if (isNotFound(error)) return undefined;
      throw error;
    });
    const containers = await containersOf(name, id);
    await Promise.all(
      containers
        .filter(({ State }) => State !== 'created' && State !== 'exited' && State !== 'dead')
        .map(({ Id }) => killForGood(connection, name, Id)),
    );
    await cni?.detach(id, netnsOf(seen?.State.Running ? seen.State.Pid : 0));
    if (seen) await killForGood(connection, name, id);
  }

  const list = async (filter: t.SandboxFilter | undefined, from: Parameters<Sandboxes['listSandboxes']>[1]) => {
    const label = [
      `${kindLabel}=sandbox`,
      ...(filter?.podUid === undefined ? [] : [`${podUidLabel}=${filter.podUid}`]),
    ];
    const found = await connection.call('ListPodSandbox', from, quickMs, (abortSignal) =>
      docker.listContainers({ all: true, filters: { label, ...(filter?.id ? { id: [filter.id] } : {}) }, abortSignal }),
    );
    const summaries = await Promise.all(
      found.map(async ({ Id, Labels, State }): Promise<t.SandboxSummary | undefined> => {
        const record = sandboxRecord(Labels);
        if (!record) return undefined;
        const ready = State === 'running' && (await networkUp(Id, record));
        return summaryOf(Id, record, ready ? 'ready' : 'notready');
      }),
    );
    return summaries.filter((summary) => summary !== undefined);
  };

  return {
    async runSandbox(config, runtimeHandler) {
      const { id, record } = await create(config, runtimeHandler);
      try {
        await connect(id, record, config);
      } catch (error) {
        await takeBack(id).catch((undoing: unknown) =>
          deps.log.warn('a half-made sandbox could not be removed; it is when its name is wanted again', {
            sandbox: id,
            error: describeError(undoing),
          }),
        );
        throw error;
      }
      making.handOut(id);
      return id as t.SandboxId;
    },

    stopSandbox: stop,

    async removeSandbox(id) {
      await stop(id);
      const name = 'RemovePodSandbox';
      for (const { Id } of await containersOf(name, id)) await deps.removeContainer(Id as t.ContainerId);
      await removeForGood(connection, name, id);
      making.forget(id);
    },

    listSandboxes: list,

    async sandboxStatus(id, from) {
      const name = 'PodSandboxStatus';
      const seen = await inspect(name, id, from);
      const record = sandboxRecord(seen.Config.Labels);
      if (!record) throw new RuntimeError('not-found', name, `container ${id} is no sandbox`);
      const { Running, Pid } = seen.State;
      const ready = Running && (await networkUp(id, record));
      return {
        ...summaryOf(id, record, ready ? 'ready' : 'notready'),
        ips: await addresses(cni, seen, record),
        namespaces: record.namespaces,
        ...(from?.verbose && Running ? { pid: Pid, networkNamespace: netnsOf(Pid) } : {}),
      };
    },

    async adopt(signal) {
      if (!cni) return;
      const there = await list(undefined, { signal });
      for (const id of await cni.known()) {
        const summary = there.find((each) => each.id === id);
        if (!summary && !making.handedOut(id)) {
          const gone = await inspect('StopPodSandbox', id).then(() => false, isNotFound);
          if (gone)
            await cni
              .detach(id, '')
              .catch((error: unknown) =>
                deps.log.warn(
                  'the network of a sandbox that is gone could not be taken away; it is tried again at the next start',
                  { sandbox: id, error: describeError(error) },
                ),
              );
        } else if (summary?.state === 'ready') {
          const { State } = await inspect('PodSandboxStatus', id);
          await cni.check(id, netnsOf(State.Pid)).catch((error: unknown) =>
            deps.log.warn(
              'CNI says that a running pod’s network is not as it was made; the pod may have to be deleted',
              {
                sandbox: id,
                pod: `${summary.metadata.namespace}/${summary.metadata.name}`,
                error: describeError(error),
              },
            ),
          );
        }
      }
    },
  };
}

const summaryOf = (id: string, record: SandboxRecord, state: t.SandboxState): t.SandboxSummary => ({
  id: id as t.SandboxId,
  metadata: record.metadata,
  state,
  createdAtMs: record.createdAtMs,
  labels: record.labels,
  annotations: record.annotations,
  runtimeHandler: record.runtimeHandler,
});

async function addresses(
  cni: Cni | undefined,
  seen: Docker.ContainerInspectInfo,
  record: SandboxRecord,
): Promise<readonly string[]> {
  if (record.network === 'host') return [];
  if (record.network === 'cni') return (await cni?.addresses(seen.Id)) ?? [];
  const { IPAddress, GlobalIPv6Address } = seen.NetworkSettings.Networks.bridge ?? {};
  return [IPAddress, GlobalIPv6Address].flatMap((address) => (address ? [address] : []));
}
