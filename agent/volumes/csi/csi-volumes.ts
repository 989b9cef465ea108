// Volumes of CSI drivers: staged once for the node, published for each pod, expanded, measured, and taken down by what is noted on disk.
import { join } from 'node:path';
import { createBackoff } from '../../../lib/backoff.ts';
import { describeError } from '../../../lib/log.ts';
import { childrenOf } from '../remove-tree.ts';
import type { CsiVolumes, DriverStats, MountedVolume, VolumeHost } from '../volume-driver.ts';
import type { CsiDrivers } from './csi-drivers.ts';
import { type CsiLimits, createCsiLimits } from './csi-limits.ts';
import type { CsiNodeRecord } from './csi-node.ts';
import { setUpInline, setUpPersistent } from './csi-set-up.ts';
import { type CsiState, createCsiState } from './csi-state.ts';
import { tearDownBlock, tearDownMount } from './csi-tear-down.ts';
import { type PluginHandler, watchPlugins } from './plugin-watcher.ts';
import { loadVolData, uniqueVolumeName } from './vol-data.ts';

export interface CsiVolumesDeps {
  /** Made later than this; asked for when it is needed. */
  host(): VolumeHost;
  readonly drivers: CsiDrivers;
  readonly record: CsiNodeRecord;
  /** Handlers of other plugin types that register in the same folder. */
  readonly pluginHandlers: Readonly<Record<string, PluginHandler>>;
  /** volumesInUse changed: the node's status should be written. */
  inUseChanged(): void;
}

export function createCsiVolumes(deps: CsiVolumesDeps): CsiVolumes {
  const { drivers, record } = deps;
  const state = createCsiState(deps);
  let limits: CsiLimits | undefined;
  return {
    exhausted: (driver) => limits?.exhausted(driver) ?? false,
    setUpInline: (request) => setUpInline(state, request),
    setUpPersistent: (request, bound) => setUpPersistent(state, request, bound),
    tearDown: (found) => tearDownMount(state, found),
    tearDownBlock: (found) => tearDownBlock(state, found),
    forgetPod: (uid) => state.letGo(uid),
    inUse: state.inUse,
    stats: (volume) => statsOf(state, volume),
    async run(signal) {
      const host = deps.host();
      await reconstruct(state).catch((error: unknown) =>
        host.log.warn('CSI volumes on disk could not be read; those in use are reported as they are met', { error }),
      );
      const backoff = createBackoff({ initialMs: 500, maxMs: 60_000 });
      const ensureNode = async (): Promise<void> => {
        for (;;) {
          try {
            return await record.ensure(signal);
          } catch (error) {
            if (signal.aborted) return;
            const retryInMs = backoff.next('csinode', host.clock.now());
            host.log.debug('the CSINode could not be made; it is tried again', {
              error: describeError(error),
              retryInMs,
            });
            await host.clock.sleep(retryInMs, signal);
          }
        }
      };
      const { client, clock, log } = host;
      const own = createCsiLimits({ client, clock, log, has: drivers.has, ask: drivers.ask });
      limits = own;
      const handlers = { ...deps.pluginHandlers, CSIPlugin: telling(drivers.handler, own.changed) };
      try {
        await Promise.all([
          ensureNode().catch((error: unknown) => {
            if (!signal.aborted) throw error;
          }),
          own.run(signal),
          watchPlugins({ clock: host.clock, log: host.log, handlers }, host.paths.registry, signal),
        ]);
      } finally {
        drivers.closeAll();
      }
    },
  };
}

const telling = (handler: PluginHandler, changed: (driver: string) => void): PluginHandler => ({
  async register(plugin, signal) {
    await handler.register(plugin, signal);
    changed(plugin.name);
  },
  async deregister(name, endpoint, signal) {
    await handler.deregister(name, endpoint, signal);
    changed(name);
  },
});

// After a restart: what is noted on disk is in use until it is taken down.
async function reconstruct(state: CsiState): Promise<void> {
  const { host, use } = state;
  for (const pod of await childrenOf(host.paths.pods)) {
    for (const { path } of await childrenOf(join(host.paths.volumes(pod.name), 'kubernetes.io~csi'))) {
      const data = await loadVolData(path);
      if (data && data.volumeLifecycleMode !== 'Ephemeral')
        use(uniqueVolumeName(data.driverName, data.volumeHandle), pod.name);
    }
    for (const { name } of await childrenOf(join(host.paths.volumeDevices(pod.name), 'kubernetes.io~csi'))) {
      const data = await loadVolData(join(host.paths.csi, 'volumeDevices', name, 'data'));
      if (data) use(uniqueVolumeName(data.driverName, data.volumeHandle), pod.name);
    }
  }
}

async function statsOf({ drivers }: CsiState, volume: MountedVolume): Promise<DriverStats | undefined> {
  const path = volume.path ?? volume.device;
  if (!volume.csi || path === undefined) return undefined;
  const client = drivers.client(volume.csi.driver, undefined);
  const capabilities = await client.capabilities(AbortSignal.timeout(10_000));
  if (!capabilities.stats) return undefined;
  const answer = await client.stats({ handle: volume.csi.handle, path, stagingPath: volume.csi.stagingPath });
  const bytes = answer.usage.find((usage) => usage.unit === 1);
  const inodes = answer.usage.find((usage) => usage.unit === 2);
  const known: DriverStats = {
    ...(bytes
      ? {
          availableBytes: Number(bytes.available),
          capacityBytes: Number(bytes.total),
          usedBytes: Number(bytes.used),
        }
      : {}),
    ...(inodes
      ? { inodesFree: Number(inodes.available), inodes: Number(inodes.total), inodesUsed: Number(inodes.used) }
      : {}),
    ...(capabilities.condition ? { abnormal: answer.volumeCondition?.abnormal ?? false } : {}),
  };
  return known;
}
