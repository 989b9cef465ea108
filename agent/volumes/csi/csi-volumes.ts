// Volumes of CSI drivers: staged once for the node, published for each pod, expanded, and taken down by what is noted on disk.
import { lstat, rmdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { CsiDriver, PersistentVolume } from '../../../kube/types/volume.ts';
import { createBackoff } from '../../../lib/backoff.ts';
import { describeError } from '../../../lib/log.ts';
import { makeFolders } from '../make-folders.ts';
import { giveToGroup } from '../ownership.ts';
import { plugins } from '../paths.ts';
import { linkDevice } from '../persistent.ts';
import { childrenOf, removeEmptyFolder, removeIfEmpty, removeLink } from '../remove-tree.ts';
import type {
  BoundClaim,
  CsiVolumes,
  DriverStats,
  FoundVolume,
  MountedVolume,
  SetUpRequest,
  VolumeHost,
} from '../volume-driver.ts';
import { driverSecrets, podContext, publishContext, tokenContext } from './csi-context.ts';
import type { CsiDrivers } from './csi-drivers.ts';
import { expandIfGrown } from './csi-expand.ts';
import type { CsiNodeRecord } from './csi-node.ts';
import type { CsiDriverClient, VolumeUse } from './driver-client.ts';
import { PluginError } from './grpc-call.ts';
import { type PluginHandler, watchPlugins } from './plugin-watcher.ts';
import {
  attachmentName,
  inlineHandle,
  loadVolData,
  removeVolData,
  saveVolData,
  uniqueVolumeName,
  type VolData,
} from './vol-data.ts';

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

const republishMs = 60_000;

interface Publication {
  readonly handle: string;
  readonly target: string;
  readonly staging: string;
  readonly use: VolumeUse;
  readonly readOnly: boolean;
  readonly attributes: Record<string, string>;
  readonly secretRef: { name?: string; namespace?: string } | undefined;
  readonly attached: Record<string, string>;
  readonly inline: boolean;
}

export function createCsiVolumes(deps: CsiVolumesDeps): CsiVolumes {
  const { drivers, record } = deps;
  // Unique name → when it was first wanted here, and by which pods.
  const inUse = new Map<string, { sinceMs: number; pods: Set<string> }>();
  const staged = new Set<string>();
  const turns = new Map<string, Promise<unknown>>();

  // Staging and unstaging of one volume never overlap, whichever pods ask for them.
  const inTurn = <T>(key: string, work: () => Promise<T>): Promise<T> => {
    const mine = (turns.get(key) ?? Promise.resolve()).then(work, work);
    const settled = mine.catch(() => undefined);
    turns.set(key, settled);
    void settled.then(() => turns.get(key) === settled && turns.delete(key));
    return mine;
  };

  const use = (unique: string, pod: string): number => {
    const known = inUse.get(unique);
    if (known) {
      known.pods.add(pod);
      return known.sinceMs;
    }
    const sinceMs = deps.host().clock.now();
    inUse.set(unique, { sinceMs, pods: new Set([pod]) });
    deps.inUseChanged();
    return sinceMs;
  };

  const letGo = (unique: string): void => {
    if (inUse.delete(unique)) deps.inUseChanged();
  };

  const useOf = (pv: PersistentVolume, block: boolean, mountGroup: number | undefined): VolumeUse => ({
    block,
    accessMode: pv.spec.accessModes?.[0] ?? 'ReadWriteOnce',
    fsType: pv.spec.csi?.fsType ?? '',
    mountOptions: block ? [] : (pv.spec.mountOptions ?? []),
    mountGroup,
  });

  // Notes are written before the driver is asked: what it does can then always be undone by the disk alone.
  const stage = async (
    host: VolumeHost,
    client: CsiDriverClient,
    pv: PersistentVolume,
    staging: string,
    attached: Record<string, string>,
    volumeUse: VolumeUse,
    signal: AbortSignal,
  ): Promise<void> => {
    const source = pv.spec.csi!;
    if (staged.has(staging)) return;
    await makeFolders(staging, 0o750);
    if (!volumeUse.block)
      await saveVolData(dirname(staging), { volumeHandle: source.volumeHandle, driverName: source.driver });
    await host.faultPoint('csi-stage-noted');
    const secrets = await driverSecrets(host, source.nodeStageSecretRef, 'NodeStageSecretRef', signal);
    await client.stage(
      {
        handle: source.volumeHandle,
        stagingPath: staging,
        publishContext: attached,
        context: source.volumeAttributes ?? {},
        secrets,
        use: volumeUse,
      },
      signal,
    );
    await host.faultPoint('csi-staged');
    staged.add(staging);
  };

  const publish = async (
    host: VolumeHost,
    client: CsiDriverClient,
    request: SetUpRequest,
    spec: CsiDriver['spec'] | undefined,
    what: Publication,
  ): Promise<number | undefined> => {
    const { signal } = request;
    const secrets = await driverSecrets(host, what.secretRef, 'NodePublishSecretRef', signal);
    const tokens = await tokenContext(host, request, spec);
    const inSecrets = (spec as { serviceAccountTokenInSecrets?: boolean } | undefined)?.serviceAccountTokenInSecrets;
    await client.publish(
      {
        handle: what.handle,
        stagingPath: what.staging,
        targetPath: what.target,
        publishContext: what.attached,
        context: {
          ...what.attributes,
          ...podContext(request, spec, what.inline),
          ...(inSecrets ? {} : tokens.texts),
        },
        secrets: { ...secrets, ...(inSecrets ? tokens.texts : {}) },
        readOnly: what.readOnly,
        use: what.use,
      },
      signal,
    );
    await host.faultPoint('csi-published');
    return tokens.refreshAtMs;
  };

  const mountGroupOf = async (client: CsiDriverClient, request: SetUpRequest): Promise<number | undefined> =>
    (await client.capabilities(request.signal)).mountGroup ? request.pod.spec.securityContext?.fsGroup : undefined;

  const giveIfWanted = async (
    request: SetUpRequest,
    spec: CsiDriver['spec'] | undefined,
    what: Publication,
    modes: readonly string[] | undefined,
  ): Promise<void> => {
    const { fsGroup, fsGroupChangePolicy } = request.pod.spec.securityContext ?? {};
    if (fsGroup === undefined || what.use.mountGroup !== undefined || what.readOnly) return;
    const policy = spec?.fsGroupPolicy ?? 'ReadWriteOnceWithFSType';
    if (policy === 'None') return;
    const single = modes === undefined ? what.inline : modes.some((mode) => mode.startsWith('ReadWriteOnce'));
    if (policy !== 'File' && (what.use.fsType === '' || !single)) return;
    const options = {
      fsGroup,
      readOnly: false,
      policy: fsGroupChangePolicy ?? 'Always',
      signal: request.signal,
    } as const;
    await giveToGroup(what.target, options);
  };

  const isMounted = async (host: VolumeHost, path: string): Promise<boolean> =>
    (await host.mounter.table()).at(path) !== undefined;

  // A driver that refused for good leaves nothing behind, so the folder must not either.
  const afterFailure = async (host: VolumeHost, error: unknown, target: string, fresh: boolean): Promise<void> => {
    if (fresh && error instanceof PluginError && error.final && !(await isMounted(host, target)))
      await removeIfEmpty(target).catch(() => false);
  };

  const refreshAt = (
    host: VolumeHost,
    spec: CsiDriver['spec'] | undefined,
    tokensAtMs: number | undefined,
    watchSize: boolean,
  ): { refreshAtMs?: number } => {
    const nowMs = host.clock.now();
    if (spec?.requiresRepublish) return { refreshAtMs: Math.min(nowMs + republishMs, tokensAtMs ?? Infinity) };
    return watchSize ? { refreshAtMs: nowMs + republishMs * (1 + Math.random() / 2) } : {};
  };

  const setUpInline: CsiVolumes['setUpInline'] = async (request) => {
    const host = deps.host();
    const { pod, uid, volume, signal } = request;
    const source = volume.csi!;
    const client = drivers.client(source.driver, uid);
    const spec = await drivers.spec(source.driver, signal);
    const modes = spec?.volumeLifecycleModes ?? ['Persistent'];
    if (!spec)
      throw new Error(`volume mode "Ephemeral" not supported by driver ${source.driver} (no CSIDriver object)`);
    if (!modes.includes('Ephemeral'))
      throw new Error(
        `volume mode "Ephemeral" not supported by driver ${source.driver} (only supports ${JSON.stringify(modes)})`,
      );
    const folder = host.paths.volume(uid, plugins.csi, volume.name);
    const target = join(folder, 'mount');
    const handle = inlineHandle(uid, volume.name);
    const mounted = await isMounted(host, target);
    const again = request.mounted !== undefined && mounted;
    const mountGroup = await mountGroupOf(client, request);
    const what: Publication = {
      handle,
      target,
      staging: '',
      readOnly: source.readOnly ?? false,
      use: { block: false, accessMode: 'ReadWriteOnce', fsType: source.fsType ?? '', mountOptions: [], mountGroup },
      attributes: { ...source.volumeAttributes },
      secretRef: source.nodePublishSecretRef && {
        ...source.nodePublishSecretRef,
        namespace: pod.metadata.namespace ?? 'default',
      },
      attached: {},
      inline: true,
    };
    await makeFolders(folder, 0o750);
    await note(host, folder, volume.name, { driver: source.driver, handle, mode: 'Ephemeral' });
    const tokensAtMs = await published(host, client, request, spec, what, mounted);
    if (!again) await giveIfWanted(request, spec, what, undefined);
    return {
      plugin: plugins.csi,
      path: target,
      readOnly: what.readOnly,
      managed: !what.readOnly,
      measure: 'driver',
      csi: { driver: source.driver, handle, stagingPath: '' },
      ...refreshAt(host, spec, tokensAtMs, false),
    };
  };

  const published = async (
    host: VolumeHost,
    client: CsiDriverClient,
    request: SetUpRequest,
    spec: CsiDriver['spec'] | undefined,
    what: Publication,
    mountedBefore: boolean,
  ): Promise<number | undefined> => {
    try {
      return await publish(host, client, request, spec, what);
    } catch (error) {
      if (request.signal.aborted) throw request.signal.reason;
      await afterFailure(host, error, what.target, !mountedBefore);
      throw error;
    }
  };

  const note = async (
    host: VolumeHost,
    folder: string,
    specName: string,
    volume: { driver: string; handle: string; mode: 'Persistent' | 'Ephemeral' },
  ): Promise<void> => {
    const data: VolData = {
      specVolID: specName,
      volumeHandle: volume.handle,
      driverName: volume.driver,
      nodeName: host.nodeName,
      volumeLifecycleMode: volume.mode,
      attachmentID: attachmentName(volume.handle, volume.driver, host.nodeName),
    };
    const known = await loadVolData(folder);
    if (known?.volumeHandle !== data.volumeHandle || known.driverName !== data.driverName)
      await saveVolData(folder, data);
    await host.faultPoint('csi-noted');
  };

  const setUpPersistent: CsiVolumes['setUpPersistent'] = async (request, bound) => {
    const host = deps.host();
    const { uid, signal } = request;
    const { pv } = bound;
    const source = pv.spec.csi!;
    const unique = uniqueVolumeName(source.driver, source.volumeHandle);
    const sinceMs = use(unique, uid);
    const client = drivers.client(source.driver, uid);
    const spec = await drivers.spec(source.driver, signal);
    const attached = spec?.attachRequired === false ? {} : await publishContext(host, pv, sinceMs, signal);
    return await inTurn(unique, async () => {
      use(unique, uid);
      return await bringUp(client, request, bound, spec, attached);
    });
  };

  const bringUp = async (
    driver: CsiDriverClient,
    request: SetUpRequest,
    bound: BoundClaim,
    driverSpec: CsiDriver['spec'] | undefined,
    attachment: Record<string, string>,
  ): Promise<MountedVolume> => {
    const host = deps.host();
    const { uid, signal } = request;
    const { pv, block } = bound;
    const source = pv.spec.csi!;
    const capabilities = await driver.capabilities(signal);
    const specName = pv.metadata.name;
    const mountGroup = block ? undefined : await mountGroupOf(driver, request);
    const volumeUse = useOf(pv, block, mountGroup);
    const blockRoot = join(host.paths.csi, 'volumeDevices');
    const staging = block
      ? join(blockRoot, 'staging', specName)
      : host.paths.csiStaging(source.driver, source.volumeHandle);
    const folder = block ? join(blockRoot, specName, 'data') : host.paths.volume(uid, plugins.csi, specName);
    const target = block ? join(blockRoot, 'publish', specName, uid) : join(folder, 'mount');
    const link = host.paths.volumeDevice(uid, plugins.csi, specName);
    const mounted = await isMounted(host, target);
    const again = request.mounted !== undefined && mounted;
    const stagedAt = capabilities.stageUnstage ? staging : '';
    await makeFolders(folder, 0o750);
    await note(host, folder, specName, { driver: source.driver, handle: source.volumeHandle, mode: 'Persistent' });
    // The pod's own link comes first too: by it the device is found when the pod is taken down.
    if (block) {
      await makeFolders(dirname(target), 0o750);
      await linkDevice(link, target);
    }
    if (capabilities.stageUnstage) await stage(host, driver, pv, staging, attachment, volumeUse, signal);
    const what: Publication = {
      handle: source.volumeHandle,
      target,
      staging: stagedAt,
      readOnly: bound.readOnly,
      use: volumeUse,
      attributes: { ...source.volumeAttributes },
      secretRef: source.nodePublishSecretRef,
      attached: attachment,
      inline: false,
    };
    let tokensAtMs: number | undefined;
    if (!again || driverSpec?.requiresRepublish)
      tokensAtMs = await published(host, driver, request, driverSpec, what, mounted);
    if (!again && !block) await giveIfWanted(request, driverSpec, what, pv.spec.accessModes ?? []);
    if (capabilities.expand) await expandIfGrown(host, driver, request, bound, { ...what, stagingPath: stagedAt });
    return {
      plugin: plugins.csi,
      ...(block ? { device: link } : { path: target }),
      readOnly: bound.readOnly,
      managed: !block && !bound.readOnly,
      measure: 'driver',
      csi: { driver: source.driver, handle: source.volumeHandle, stagingPath: stagedAt },
      ...refreshAt(host, driverSpec, tokensAtMs, capabilities.expand),
    };
  };

  /** Folders of other pods, and devices, that note the same volume. */
  const usedElsewhere = async (host: VolumeHost, data: VolData, except: string): Promise<boolean> => {
    for (const pod of await childrenOf(host.paths.pods))
      for (const { path } of await childrenOf(join(host.paths.volumes(pod.name), 'kubernetes.io~csi'))) {
        if (path === except) continue;
        const other = await loadVolData(path);
        if (other?.volumeHandle === data.volumeHandle && other.driverName === data.driverName) return true;
      }
    return false;
  };

  const unstage = async (
    host: VolumeHost,
    data: VolData,
    staging: string,
    waiter: string,
    signal: AbortSignal,
  ): Promise<void> => {
    const client = drivers.client(data.driverName, waiter);
    const there = await lstat(staging).then(
      () => true,
      () => false,
    );
    if (!there) return;
    const { stageUnstage } = await client.capabilities(signal);
    staged.delete(staging);
    if (stageUnstage) await client.unstage({ handle: data.volumeHandle, stagingPath: staging }, signal);
    await host.faultPoint('csi-unstaged');
    if (await isMounted(host, staging)) throw new Error(`${staging} is still mounted after NodeUnstageVolume`);
    await removeEmptyFolder(staging);
  };

  const unpublish = async (
    host: VolumeHost,
    data: VolData,
    target: string,
    waiter: string,
    signal: AbortSignal,
  ): Promise<void> => {
    const client = drivers.client(data.driverName, waiter);
    await client.unpublish({ handle: data.volumeHandle, targetPath: target }, signal);
    await host.faultPoint('csi-unpublished');
    // Drivers should remove their target; some do not.
    if (await isMounted(host, target)) throw new Error(`${target} is still mounted after NodeUnpublishVolume`);
  };

  const tearDown = async (found: FoundVolume): Promise<void> => {
    const host = deps.host();
    const target = join(found.path, 'mount');
    const data = await loadVolData(found.path);
    if (!data) {
      // Nothing was published without its note; what is mounted without one is somebody's mistake, and only the mount goes.
      await host.mounter.unmount(target, found.signal);
      await removeEmptyFolder(target);
      await removeVolData(found.path);
      await removeEmptyFolder(found.path);
      return;
    }
    const unique = uniqueVolumeName(data.driverName, data.volumeHandle);
    await inTurn(unique, async () => {
      await unpublish(host, data, target, found.uid, found.signal);
      await removeEmptyFolder(target);
      if (data.volumeLifecycleMode !== 'Ephemeral') {
        if (!(await usedElsewhere(host, data, found.path))) {
          const staging = host.paths.csiStaging(data.driverName, data.volumeHandle);
          await unstage(host, data, staging, found.uid, found.signal);
          await removeVolData(dirname(staging));
          await removeIfEmpty(dirname(staging));
          letGo(unique);
        } else inUse.get(unique)?.pods.delete(found.uid);
      }
      await host.faultPoint('csi-before-note-removed');
      await removeVolData(found.path);
      await removeEmptyFolder(found.path);
    });
  };

  const tearDownBlock = async (found: FoundVolume): Promise<void> => {
    const host = deps.host();
    const root = join(host.paths.csi, 'volumeDevices');
    const specName = basename(found.path);
    const data = await loadVolData(join(root, specName, 'data'));
    if (!data) return await removeLink(found.path);
    const unique = uniqueVolumeName(data.driverName, data.volumeHandle);
    await inTurn(unique, async () => {
      const target = join(root, 'publish', specName, found.uid);
      await unpublish(host, data, target, found.uid, found.signal);
      await removeIfEmpty(join(root, 'publish', specName));
      const others = await childrenOf(join(root, 'publish', specName));
      if (others.length === 0) {
        const staging = join(root, 'staging', specName);
        await unstage(host, data, staging, found.uid, found.signal);
        await removeVolData(join(root, specName, 'data'));
        await rmdir(join(root, specName, 'data'));
        await removeIfEmpty(join(root, specName, 'dev'));
        await removeIfEmpty(join(root, specName));
        letGo(unique);
      }
      await removeLink(found.path);
    });
  };

  // After a restart: what is noted on disk is in use until it is taken down.
  const reconstruct = async (): Promise<void> => {
    const host = deps.host();
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
  };

  const stats: CsiVolumes['stats'] = async (volume) => {
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
  };

  return {
    setUpInline,
    setUpPersistent,
    tearDown,
    tearDownBlock,
    inUse: () => [...inUse.keys()],
    stats,
    async run(signal) {
      const host = deps.host();
      await reconstruct().catch((error: unknown) =>
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
      const handlers = { ...deps.pluginHandlers, CSIPlugin: drivers.handler };
      try {
        await Promise.all([
          ensureNode().catch((error: unknown) => {
            if (!signal.aborted) throw error;
          }),
          watchPlugins({ clock: host.clock, log: host.log, handlers }, host.paths.registry, signal),
        ]);
      } finally {
        drivers.closeAll();
      }
    },
  };
}
