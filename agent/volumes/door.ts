// What the pods' workers, the node's server and its status ask of this room.
import type { Device, Mount } from '../../cri/types.ts';
import type { Container, ContainerStatus, Pod } from '../../kube/types/pod.ts';

export type VolumeMountStatus = NonNullable<ContainerStatus['volumeMounts']>[number];

export interface ContainerMounts {
  readonly mounts: readonly Mount[];
  readonly devices: readonly Device[];
  /** As for `status.containerStatuses[].volumeMounts`. */
  readonly statuses: readonly VolumeMountStatus[];
}

/** One volume as `/stats/summary` shows it (`podStats.volume[]`). Sizes in bytes. */
export interface VolumeStats {
  readonly name: string;
  readonly time: string;
  readonly pvcRef?: { readonly name: string; readonly namespace: string };
  readonly availableBytes?: number;
  readonly capacityBytes?: number;
  readonly usedBytes?: number;
  readonly inodesFree?: number;
  readonly inodes?: number;
  readonly inodesUsed?: number;
  readonly volumeHealthStats?: { readonly abnormal: boolean };
}

export interface PodVolumes {
  /**
   * Brings all volumes of the pod up, side by side. Idempotent: called again after a failure, and when the pod or an object it mounts has
   * changed (then files are refreshed). Resolves when containers may start. Rejects with a VolumeError, or with the signal's reason.
   */
  setUp(pod: Pod, signal: AbortSignal): Promise<void>;
  /** True when everything that setUp does is done for this pod, in the form it has now. */
  isUp(pod: Pod): boolean;
  /** What goes on for the pod's volumes now, in words: one line for each volume that is being brought up. */
  waitingFor(pod: Pod): readonly string[];
  /** Mounts and devices of one container, after setUp; `env` is the container's own, for subPathExpr. Not /etc/hosts, not the termination log. */
  mountsFor(
    pod: Pod,
    container: Container,
    env: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<ContainerMounts>;
  /** Supplemental groups that the pod's mounted PersistentVolumes ask for (annotation pv.beta.kubernetes.io/gid). */
  supplementalGroups(pod: Pod): number[];
  /**
   * The pod's containers are all gone: unmounts and removes what setUp made, and nothing else. Idempotent; works too for a pod known
   * only by its uid, after a restart. Rejects with a VolumeError where something could not be taken down; call again. Folders that a hidden
   * mount holds (hidden-mounts.ts) stay and are no failure.
   */
  tearDown(uid: string, signal: AbortSignal): Promise<void>;
  /** The uids of all pods that have anything on disk or mounted under the root directory, but those whose rest a hidden mount still holds. */
  known(): Promise<string[]>;
  /** Where mounts are hidden below the pod's folder: it cannot be removed yet, nor can what leads there. */
  held(uid: string): Promise<readonly string[]>;
  /** For `node.status.volumesInUse`: unique names of attachable volumes, sorted. */
  volumesInUse(): string[];
  stats(pod: Pod): Promise<readonly VolumeStats[]>;
  /** Each volume that is wanted, and each that is up, by the name of its plugin (for CSI with the driver's); for a metric. */
  counts(): { readonly desired: readonly string[]; readonly actual: readonly string[] };
  /** The loops that keep volumes fresh (tokens, republishing, driver registration). Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}
