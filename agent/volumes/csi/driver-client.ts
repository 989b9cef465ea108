// What a node asks of a CSI driver, over its socket.

import * as csi from './gen/csi.ts';
import { connectPlugin, type PluginConnection } from './grpc-call.ts';

export interface Capabilities {
  readonly stageUnstage: boolean;
  readonly stats: boolean;
  readonly expand: boolean;
  readonly condition: boolean;
  readonly singleNodeMultiWriter: boolean;
  readonly mountGroup: boolean;
}

/** How a pod uses a volume. */
export interface VolumeUse {
  readonly block: boolean;
  /** The PersistentVolume's first access mode. */
  readonly accessMode: string;
  readonly fsType: string;
  readonly mountOptions: readonly string[];
  /** The group that the driver is asked to mount for, where it can. */
  readonly mountGroup?: number | undefined;
}

type Texts = Readonly<Record<string, string>>;

export interface CsiDriverClient {
  readonly name: string;
  nodeInfo(signal: AbortSignal): Promise<csi.NodeGetInfoResponse>;
  capabilities(signal: AbortSignal): Promise<Capabilities>;
  stage(
    volume: {
      handle: string;
      stagingPath: string;
      publishContext: Texts;
      context: Texts;
      secrets: Texts;
      use: VolumeUse;
    },
    signal: AbortSignal,
  ): Promise<void>;
  unstage(volume: { handle: string; stagingPath: string }, signal: AbortSignal): Promise<void>;
  publish(
    volume: {
      handle: string;
      stagingPath: string;
      targetPath: string;
      publishContext: Texts;
      context: Texts;
      secrets: Texts;
      readOnly: boolean;
      use: VolumeUse;
    },
    signal: AbortSignal,
  ): Promise<void>;
  unpublish(volume: { handle: string; targetPath: string }, signal: AbortSignal): Promise<void>;
  /** Resolves with the new size in bytes. */
  expand(
    volume: { handle: string; path: string; stagingPath: string; bytes: bigint; secrets: Texts; use: VolumeUse },
    signal: AbortSignal,
  ): Promise<bigint>;
  stats(volume: { handle: string; path: string; stagingPath: string }): Promise<csi.NodeGetVolumeStatsResponse>;
  close(): void;
}

const timeoutMs = 120_000;
const statsTimeoutMs = 10_000;

const plain: Readonly<Record<string, number>> = {
  ReadWriteOnce: 1,
  ReadOnlyMany: 3,
  ReadWriteMany: 5,
  ReadWriteOncePod: 1,
};
const withMultiWriter: Readonly<Record<string, number>> = { ...plain, ReadWriteOnce: 7, ReadWriteOncePod: 6 };

export function createCsiDriverClient(name: string, socket: string): CsiDriverClient {
  const connection: PluginConnection = connectPlugin(socket);
  let known: Promise<Capabilities> | undefined;

  const fetchCapabilities = async (signal: AbortSignal): Promise<Capabilities> => {
    const answer = await connection.call(
      '/csi.v1.Node/NodeGetCapabilities',
      csi.Empty,
      csi.NodeGetCapabilitiesResponse,
      {},
      { signal, timeoutMs },
    );
    const types = new Set(answer.capabilities.map((each) => each.rpc?.type));
    return {
      stageUnstage: types.has(1),
      stats: types.has(2),
      expand: types.has(3),
      condition: types.has(4),
      singleNodeMultiWriter: types.has(5),
      mountGroup: types.has(6),
    };
  };

  const capabilities = async (signal: AbortSignal): Promise<Capabilities> => {
    known ??= fetchCapabilities(signal);
    try {
      return await known;
    } catch (error) {
      known = undefined;
      throw error;
    }
  };

  const capabilityOf = async (use: VolumeUse, signal: AbortSignal): Promise<csi.VolumeCapability> => {
    const { singleNodeMultiWriter } = await capabilities(signal);
    return {
      accessMode: { mode: (singleNodeMultiWriter ? withMultiWriter : plain)[use.accessMode] ?? 0 },
      block: use.block ? {} : undefined,
      mount: use.block
        ? undefined
        : {
            fsType: use.fsType,
            mountFlags: [...use.mountOptions],
            volumeMountGroup: use.mountGroup === undefined ? '' : String(use.mountGroup),
          },
    };
  };

  return {
    name,
    capabilities,
    nodeInfo: (signal) =>
      connection.call('/csi.v1.Node/NodeGetInfo', csi.Empty, csi.NodeGetInfoResponse, {}, { signal, timeoutMs }),
    async stage(volume, signal) {
      const request: csi.NodeStageVolumeRequest = {
        volumeId: volume.handle,
        publishContext: { ...volume.publishContext },
        stagingTargetPath: volume.stagingPath,
        volumeCapability: await capabilityOf(volume.use, signal),
        secrets: { ...volume.secrets },
        volumeContext: { ...volume.context },
      };
      const options = { signal, timeoutMs };
      await connection.call('/csi.v1.Node/NodeStageVolume', csi.NodeStageVolumeRequest, csi.Empty, request, options);
    },
    async unstage(volume, signal) {
      await connection.call(
        '/csi.v1.Node/NodeUnstageVolume',
        csi.NodeUnstageVolumeRequest,
        csi.Empty,
        { volumeId: volume.handle, stagingTargetPath: volume.stagingPath },
        { signal, timeoutMs },
      );
    },
    async publish(volume, signal) {
      const request: csi.NodePublishVolumeRequest = {
        volumeId: volume.handle,
        publishContext: { ...volume.publishContext },
        stagingTargetPath: volume.stagingPath,
        targetPath: volume.targetPath,
        volumeCapability: await capabilityOf(volume.use, signal),
        readonly: volume.readOnly,
        secrets: { ...volume.secrets },
        volumeContext: { ...volume.context },
      };
      const options = { signal, timeoutMs };
      await connection.call(
        '/csi.v1.Node/NodePublishVolume',
        csi.NodePublishVolumeRequest,
        csi.Empty,
        request,
        options,
      );
    },
    async unpublish(volume, signal) {
      await connection.call(
        '/csi.v1.Node/NodeUnpublishVolume',
        csi.NodeUnpublishVolumeRequest,
        csi.Empty,
        { volumeId: volume.handle, targetPath: volume.targetPath },
        { signal, timeoutMs },
      );
    },
    async expand(volume, signal) {
      const answer = await connection.call(
        '/csi.v1.Node/NodeExpandVolume',
        csi.NodeExpandVolumeRequest,
        csi.NodeExpandVolumeResponse,
        {
          volumeId: volume.handle,
          volumePath: volume.path,
          stagingTargetPath: volume.stagingPath,
          capacityRange: { requiredBytes: volume.bytes, limitBytes: 0n },
          volumeCapability: await capabilityOf(volume.use, signal),
          secrets: { ...volume.secrets },
        },
        { signal, timeoutMs },
      );
      return answer.capacityBytes > 0n ? answer.capacityBytes : volume.bytes;
    },
    stats: (volume) =>
      connection.call(
        '/csi.v1.Node/NodeGetVolumeStats',
        csi.NodeGetVolumeStatsRequest,
        csi.NodeGetVolumeStatsResponse,
        { volumeId: volume.handle, volumePath: volume.path, stagingTargetPath: volume.stagingPath },
        { timeoutMs: statsTimeoutMs },
      ),
    close: () => connection.close(),
  };
}
