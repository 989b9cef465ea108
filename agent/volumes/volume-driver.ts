// What the files of this room share: what a kind of volume is given, and what it gives back.
import type { ImageSpec } from '../../cri/types.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { EventRecorder } from '../../kube/events.ts';
import type { ObjectCache } from '../../kube/object-cache.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod, PullPolicy } from '../../kube/types/pod.ts';
import type { PersistentVolume, PersistentVolumeClaim, Volume } from '../../kube/types/volume.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { PluginHandler } from './csi/plugin-watcher.ts';
import type { SELinux } from './csi/selinux-context.ts';
import type { Mounter } from './mounter.ts';
import type { VolumePaths } from './paths.ts';
import type { PodCertificates } from './pod-certificates.ts';
import type { ServiceAccountTokens } from './service-account-tokens.ts';

/** Objects that pods hold, each watched as long as anyone holds it. */
export type ObjectSource = Pick<ObjectCache, 'get' | 'release' | 'subscribe'>;

export interface VolumeDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly client: KubeClient;
  readonly objects: ObjectSource;
  /** The own Node as last seen; undefined before it is known. */
  node(): Node | undefined;
  /** Something a pod waited for has come: look at it again. */
  wake(uid: string): void;
  /** Pulls the image of an image volume as its policy says, and tells how the runtime knows it. Absent: image volumes are refused. */
  ensureImage?(
    pod: Pod,
    reference: string,
    pullPolicy: PullPolicy | undefined,
    signal: AbortSignal,
  ): Promise<ImageSpec>;
  /** Whether the runtime of this pod can mount recursively read-only. Default: what the Node's status says. */
  supportsRecursiveReadOnly?(pod: Pod): boolean;
  /** volumesInUse changed: the node's status should say so soon, as attached volumes wait for it. */
  volumesInUseChanged?(): void;
  /** Other plugin types whose sockets register in `plugins_registry`, for example `DevicePlugin`. */
  readonly pluginHandlers?: Readonly<Record<string, PluginHandler>>;
  /** The pod is being ended: that what it names goes too is no news. Default: no pod is. */
  ending?(uid: string): boolean;
  /** A volume was brought up or taken down, or could not be; for a metric. `plugin` is as in its path, for CSI with the driver's name. */
  operated?(operation: VolumeOperation, plugin: string, tookMs: number, error: unknown): void;
  /** For what happens when no call of setUp is there to reject. */
  readonly events?: EventRecorder;
  /** Default: mount(8). */
  readonly mounter?: Mounter;
  /** Default: what this host says, asked once. */
  selinux?(): Promise<SELinux | undefined>;
  /** A place where tests let the process die. */
  faultPoint?(name: string): void | Promise<void>;
}

export type VolumeOperation = 'volume_mount' | 'volume_unmount' | 'map_volume' | 'unmap_volume';

/** The deps with what the room makes of them. */
export interface VolumeHost extends Omit<VolumeDeps, 'mounter' | 'faultPoint' | 'selinux'> {
  readonly nodeName: string;
  readonly paths: VolumePaths;
  readonly mounter: Mounter;
  /** Undefined on a host without SELinux. */
  selinux(): Promise<SELinux | undefined>;
  readonly tokens: ServiceAccountTokens;
  readonly certificates: PodCertificates;
  readonly csi: CsiVolumes;
  /** Whether another pod of this node has the PersistentVolume up. */
  mountedElsewhere(pvName: string, uid: string): boolean;
  faultPoint(name: string): Promise<void>;
}

/** A claim and what it is bound to. */
export interface BoundClaim {
  readonly claim: PersistentVolumeClaim;
  readonly pv: PersistentVolume;
  /** The pod asks for it read-only. */
  readonly readOnly: boolean;
  readonly block: boolean;
  readonly gid?: number;
}

/** Volumes of CSI drivers (csi/csi-volumes.ts). */
export interface CsiVolumes {
  setUpPersistent(request: SetUpRequest, bound: BoundClaim): Promise<MountedVolume>;
  setUpInline(request: SetUpRequest): Promise<MountedVolume>;
  tearDown(found: FoundVolume): Promise<void>;
  tearDownBlock(found: FoundVolume): Promise<void>;
  /** The pod is taken down: what it only waited for is no longer in use. */
  forgetPod(uid: string): void;
  /** Unique names of volumes that are, or are about to be, in use. */
  inUse(): string[];
  stats(volume: MountedVolume): Promise<DriverStats | undefined>;
  /** A volume of the driver could not be attached, for this node has no room for more. False where the cluster does not want that looked at. */
  exhausted(driver: string): boolean;
  run(signal: AbortSignal): Promise<void>;
}

/** Sizes in bytes. */
export interface DriverStats {
  readonly availableBytes?: number;
  readonly capacityBytes?: number;
  readonly usedBytes?: number;
  readonly inodesFree?: number;
  readonly inodes?: number;
  readonly inodesUsed?: number;
  readonly abnormal?: boolean;
}

/** One volume found below `pods/UID/volumes/PLUGIN/NAME`, or a device below `volumeDevices`. */
export interface FoundVolume {
  readonly uid: string;
  readonly plugin: string;
  readonly name: string;
  readonly path: string;
  readonly signal: AbortSignal;
}

export interface SetUpRequest {
  readonly pod: Pod;
  readonly uid: string;
  readonly volume: Volume;
  /** The volume as this agent brought it up before; undefined the first time. */
  readonly mounted: MountedVolume | undefined;
  /** Told which PersistentVolume is behind the volume: messages name it. */
  named(pvName: string): void;
  readonly signal: AbortSignal;
}

/** A volume that is up. */
export interface MountedVolume {
  readonly plugin: string;
  /** Where it is on this host; undefined for a block device or an image. */
  readonly path?: string;
  /** A link to the block device, for volumeDevices. */
  readonly device?: string;
  /** Containers may mount it read-only at most. */
  readonly readOnly: boolean;
  /** Made for this pod alone: the runtime may give it the pod's SELinux label. */
  readonly managed: boolean;
  readonly image?: ImageSpec;
  /** Of what is behind a claim. */
  readonly pvName?: string;
  readonly claim?: { readonly namespace: string; readonly name: string };
  /** Of the PersistentVolume's annotation pv.beta.kubernetes.io/gid. */
  readonly gid?: number;
  /** How the driver of a CSI volume knows it. */
  readonly csi?: { readonly driver: string; readonly handle: string; readonly stagingPath: string };
  /** When the content should be made anew, in milliseconds since the epoch. */
  readonly refreshAtMs?: number;
  /** How to count its bytes: by its own file system (`memory` never hangs), by asking its driver, by walking it, or not at all. */
  readonly measure?: 'statfs' | 'memory' | 'driver' | 'walk';
}

/** One kind of volume. */
export type SetUpVolume = (host: VolumeHost, request: SetUpRequest) => Promise<MountedVolume>;

/** What must come first is not there yet; `setUp` rejects with `waiting: true`. */
export class NotYetError extends Error {
  override name = 'NotYetError';
  readonly reason: 'FailedMount' | 'FailedAttachVolume' | 'FailedMapVolume';
  /** True: nothing tells when it comes, so the pod is woken again and again. */
  readonly polled: boolean;
  constructor(
    message: string,
    reason: NotYetError['reason'] = 'FailedMount',
    options: { cause?: unknown; polled?: boolean } = {},
  ) {
    super(message, { cause: options.cause });
    this.reason = reason;
    this.polled = options.polled ?? false;
  }
}
