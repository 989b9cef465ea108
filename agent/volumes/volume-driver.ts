// What the files of this room share: what a kind of volume is given, and what it gives back.
import type { ImageSpec } from '../../cri/types.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { KubeClient, ObjectName } from '../../kube/client.ts';
import type { EventRecorder } from '../../kube/events.ts';
import type { Resource } from '../../kube/resources.ts';
import type { Node } from '../../kube/types/core.ts';
import type { KubeObject } from '../../kube/types/meta.ts';
import type { Pod, PullPolicy } from '../../kube/types/pod.ts';
import type { Volume } from '../../kube/types/volume.ts';
import type { Mounter } from './mounter.ts';
import type { VolumePaths } from './paths.ts';
import type { ServiceAccountTokens } from './service-account-tokens.ts';

/** Objects that pods hold, each watched as long as anyone holds it (kube/object-cache.ts). */
export interface ObjectSource {
  /** Undefined where the API server has no such object. */
  get<T extends KubeObject>(
    resource: Resource<T>,
    name: ObjectName,
    holder: string,
    signal?: AbortSignal,
  ): Promise<T | undefined>;
  release(holder: string): void;
  subscribe(
    listener: (holder: string, resource: Resource, name: ObjectName, object: KubeObject | undefined) => void,
  ): () => void;
}

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
  /** For what happens when no call of setUp is there to reject. */
  readonly events?: EventRecorder;
  /** Default: mount(8). */
  readonly mounter?: Mounter;
  /** A place where tests let the process die. */
  faultPoint?(name: string): void | Promise<void>;
}

/** The deps with what the room makes of them. */
export interface VolumeHost extends Omit<VolumeDeps, 'mounter' | 'faultPoint'> {
  readonly nodeName: string;
  readonly paths: VolumePaths;
  readonly mounter: Mounter;
  readonly tokens: ServiceAccountTokens;
  faultPoint(name: string): Promise<void>;
}

export interface SetUpRequest {
  readonly pod: Pod;
  readonly uid: string;
  readonly volume: Volume;
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
  readonly claim?: { readonly namespace: string; readonly name: string };
  /** Of the PersistentVolume's annotation pv.beta.kubernetes.io/gid. */
  readonly gid?: number;
  /** Set for what has to be attached: for node.status.volumesInUse. */
  readonly uniqueName?: string;
  /** When the content should be made anew, in milliseconds since the epoch. */
  readonly refreshAtMs?: number;
  /** How to count its bytes: by its own file system, by asking its driver, by walking it, or not at all. */
  readonly measure?: 'statfs' | 'driver' | 'walk';
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
