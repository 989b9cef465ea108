// The CSI drivers that are registered on this node, and what the cluster says of each (its CSIDriver object).
import type { KubeClient } from '../../../kube/client.ts';
import { isNotFound } from '../../../kube/errors.ts';
import { resources } from '../../../kube/resources.ts';
import type { CsiDriver } from '../../../kube/types/volume.ts';
import type { Clock } from '../../../lib/clock.ts';
import type { Log } from '../../../lib/log.ts';
import { NotYetError } from '../volume-driver.ts';
import type { CsiNodeRecord } from './csi-node.ts';
import { type CsiDriverClient, createCsiDriverClient } from './driver-client.ts';
import type { PluginHandler } from './plugin-watcher.ts';

export interface CsiDrivers {
  /** For the watcher of plugin sockets. */
  readonly handler: PluginHandler;
  /** Throws a NotYetError where the driver is not registered; `waiter`, a pod's uid, is woken when it is. */
  client(driver: string, waiter: string | undefined): CsiDriverClient;
  /** The CSIDriver object's spec; undefined where the cluster has none. */
  spec(driver: string, signal: AbortSignal): Promise<CsiDriver['spec'] | undefined>;
  has(driver: string): boolean;
  /** Asks the driver what the node is to it, and tells the cluster. Rejects where it is not registered, or does not answer. */
  ask(driver: string, signal: AbortSignal): Promise<void>;
  closeAll(): void;
}

export interface CsiDriversDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  readonly record: CsiNodeRecord;
  wake(uid: string): void;
}

const specLifeMs = 10_000;

export function createCsiDrivers(deps: CsiDriversDeps): CsiDrivers {
  const { clock, log } = deps;
  const registered = new Map<string, { endpoint: string; client: CsiDriverClient }>();
  const waiting = new Map<string, Set<string>>();
  const specs = new Map<string, { atMs: number; spec: CsiDriver['spec'] | undefined }>();

  const record = async (name: string, client: CsiDriverClient, signal: AbortSignal): Promise<void> => {
    const info = await client.nodeInfo(signal);
    const { nodeId, maxVolumesPerNode: maxVolumes } = info;
    const topology = info.accessibleTopology?.segments ?? {};
    await deps.record.install({ name, nodeId, maxVolumes, topology }, signal);
  };

  const handler: PluginHandler = {
    async register({ name, endpoint, versions }, signal) {
      if (!versions.some((version) => /^v?1(\.|$)/.test(version)))
        throw new Error(
          `CSI driver ${name} at ${endpoint} supports ${versions.join(', ') || 'no version'}; this node speaks v1`,
        );
      const client = createCsiDriverClient(name, endpoint);
      const before = registered.get(name);
      registered.set(name, { endpoint, client });
      try {
        await record(name, client, signal);
      } catch (error) {
        if (registered.get(name)?.client === client) {
          if (before) registered.set(name, before);
          else registered.delete(name);
        }
        client.close();
        throw error;
      }
      before?.client.close();
      specs.delete(name);
      for (const uid of waiting.get(name) ?? []) deps.wake(uid);
      waiting.delete(name);
    },
    async deregister(name, endpoint, signal) {
      const found = registered.get(name);
      if (found?.endpoint !== endpoint) return;
      registered.delete(name);
      found.client.close();
      log.info('a CSI driver is gone; its volumes wait for its return', { driver: name, endpoint });
      await deps.record.uninstall(name, signal);
    },
  };

  return {
    handler,
    has: (driver) => registered.has(driver),
    async ask(driver, signal) {
      const found = registered.get(driver);
      if (!found) throw new Error(`the CSI driver ${driver} is not registered on this node`);
      await record(driver, found.client, signal);
    },
    client(driver, waiter) {
      const found = registered.get(driver);
      if (found) return found.client;
      if (waiter !== undefined) waiting.set(driver, (waiting.get(driver) ?? new Set()).add(waiter));
      throw new NotYetError(
        `kubernetes.io/csi: failed to get CSI client: driver name ${driver} not found in the list of registered CSI drivers`,
      );
    },
    async spec(driver, signal) {
      const known = specs.get(driver);
      if (known && clock.now() - known.atMs < specLifeMs) return known.spec;
      try {
        const { spec } = await deps.client.get(resources.csiDrivers, { name: driver }, { signal });
        specs.set(driver, { atMs: clock.now(), spec });
        return spec;
      } catch (error) {
        if (isNotFound(error)) {
          specs.set(driver, { atMs: clock.now(), spec: undefined });
          return undefined;
        }
        // What was known is better than nothing while the API server is away.
        if (known && !signal.aborted) return known.spec;
        throw error;
      }
    },
    closeAll() {
      for (const { client } of registered.values()) client.close();
      registered.clear();
    },
  };
}
