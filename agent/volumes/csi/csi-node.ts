// Tells the control plane which CSI drivers this node has: the CSINode object, and on the Node an annotation and topology labels.
import type { KubeClient } from '../../../kube/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../../../kube/errors.ts';
import { resources } from '../../../kube/resources.ts';
import type { Node } from '../../../kube/types/core.ts';
import type { CsiNode } from '../../../kube/types/volume.ts';

export interface DriverOnNode {
  readonly name: string;
  readonly nodeId: string;
  /** 0: the driver does not say. */
  readonly maxVolumes: bigint;
  readonly topology: Readonly<Record<string, string>>;
}

export interface CsiNodeRecord {
  /** Makes the CSINode where there is none; a driver-less node has one too. */
  ensure(signal: AbortSignal): Promise<void>;
  install(driver: DriverOnNode, signal: AbortSignal): Promise<void>;
  uninstall(driverName: string, signal: AbortSignal): Promise<void>;
}

const nodeIdAnnotation = 'csi.volume.kubernetes.io/nodeid';
const maxCount = 2n ** 31n - 1n;

export function createCsiNodeRecord(client: KubeClient, nodeName: string): CsiNodeRecord {
  const name = { name: nodeName };
  // Two drivers that register at once must not overwrite each other.
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const mine = turn.then(work, work);
    turn = mine.catch(() => undefined);
    return mine;
  };

  const current = async (signal: AbortSignal): Promise<CsiNode> => {
    const node = await client.get(resources.nodes, name, { signal });
    try {
      const found = await client.get(resources.csiNodes, name, { signal });
      const owner = found.metadata.ownerReferences?.find((each) => each.kind === 'Node');
      if (owner?.uid === node.metadata.uid) return found;
      // Of a Node that had this name before.
      await client.delete(resources.csiNodes, name, { signal });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    const made: CsiNode = {
      apiVersion: 'storage.k8s.io/v1',
      kind: 'CSINode',
      metadata: {
        name: nodeName,
        ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: nodeName, uid: node.metadata.uid ?? '' }],
      },
      spec: { drivers: [] },
    };
    return await client.create(resources.csiNodes, made, { signal });
  };

  const change = async (
    edit: (drivers: CsiNode['spec']['drivers']) => CsiNode['spec']['drivers'] | undefined,
    signal: AbortSignal,
  ): Promise<void> => {
    for (let attempt = 1; ; attempt++) {
      try {
        const found = await current(signal);
        const drivers = edit(found.spec.drivers);
        if (drivers) await client.update(resources.csiNodes, { ...found, spec: { drivers } }, { signal });
        return;
      } catch (error) {
        if (attempt >= 5 || !(isConflict(error) || isAlreadyExists(error))) throw error;
      }
    }
  };

  const patchNode = async (
    edit: (ids: Record<string, string>, node: Node) => { labels?: Record<string, string> } | undefined,
    signal: AbortSignal,
  ): Promise<void> => {
    const node = await client.get(resources.nodes, name, { signal });
    const ids = parseIds(node.metadata.annotations?.[nodeIdAnnotation]);
    const before = JSON.stringify(ids);
    const more = edit(ids, node);
    const labels = more?.labels ?? {};
    const changed = Object.entries(labels).some(([key, value]) => node.metadata.labels?.[key] !== value);
    if (JSON.stringify(ids) === before && !changed) return;
    const text = Object.keys(ids).length > 0 ? JSON.stringify(ids) : null;
    const patch = { metadata: { annotations: { [nodeIdAnnotation]: text }, ...(changed ? { labels } : {}) } };
    await client.patch(resources.nodes, name, patch, { type: 'merge', signal });
  };

  return {
    ensure: (signal) => inTurn(() => change(() => undefined, signal)),
    install: (driver, signal) =>
      inTurn(async () => {
        if (driver.nodeId === '') throw new Error('error adding CSI driver node info: driverNodeID must not be empty');
        await patchNode((ids, node) => {
          ids[driver.name] = driver.nodeId;
          for (const [key, value] of Object.entries(driver.topology)) {
            const existing = node.metadata.labels?.[key];
            if (existing !== undefined && existing !== value)
              throw new Error(
                `detected topology value collision: driver reported "${key}":"${value}" but existing label is "${key}":"${existing}"`,
              );
          }
          return { labels: { ...driver.topology } };
        }, signal);
        const count = driver.maxVolumes > maxCount ? maxCount : driver.maxVolumes;
        const entry = {
          name: driver.name,
          nodeID: driver.nodeId,
          topologyKeys: Object.keys(driver.topology).sort(),
          ...(count > 0n ? { allocatable: { count: Number(count) } } : {}),
        };
        await change((drivers) => {
          const others = drivers.filter((each) => each.name !== driver.name);
          const existing = drivers.find((each) => each.name === driver.name);
          const same =
            existing?.nodeID === entry.nodeID &&
            existing.allocatable?.count === entry.allocatable?.count &&
            JSON.stringify([...(existing.topologyKeys ?? [])].sort()) === JSON.stringify(entry.topologyKeys);
          return same ? undefined : [...others, entry];
        }, signal);
      }),
    uninstall: (driverName, signal) =>
      inTurn(async () => {
        await change((drivers) => {
          const others = drivers.filter((each) => each.name !== driverName);
          return others.length === drivers.length ? undefined : others;
        }, signal);
        await patchNode((ids) => {
          delete ids[driverName];
          return undefined;
        }, signal);
      }),
  };
}

function parseIds(text: string | undefined): Record<string, string> {
  if (!text) return {};
  try {
    return JSON.parse(text) as Record<string, string>;
  } catch {
    // Somebody else's scribble: what this node knows is written anew.
    return {};
  }
}
