// Removes images that nobody uses when their disk fills up, or when they are too old, and says what it could not free and why.
import { statfs } from 'node:fs/promises';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerId } from '../../cri/types.ts';
import { isNotFound } from '../../cri/errors.ts';
import type { EventRecorder, EventTarget } from '../../kube/events.ts';
import type { Clock } from '../../lib/clock.ts';
import { canonicalImageName, parseImageReference } from '../../lib/image-reference.ts';
import { describeError, type Log } from '../../lib/log.ts';
import type { Counter } from '../../lib/metrics.ts';
import {
  bytesToFree,
  candidates,
  type DiskUse,
  formatSize,
  type GcPolicy,
  type ImageRecord,
  type KeptImage,
  tooOld,
  usedPercent,
} from './gc-plan.ts';
import type { PullRecords } from './pull-records.ts';

export interface ImageGcDeps {
  readonly runtime: Pick<
    Runtime,
    'status' | 'listImages' | 'listContainers' | 'inspectContainer' | 'removeImage' | 'imageFilesystem'
  >;
  readonly clock: Clock;
  readonly log: Log;
  readonly events?: EventRecorder;
  /** What the Events are about: the own Node. */
  readonly node: EventTarget;
  readonly records?: Pick<PullRecords, 'prune'>;
  /** `kubelet_image_garbage_collected_total`. */
  readonly collected?: Counter<'reason'>;
  /** Of the file system that holds a path. Default: statfs. */
  diskUse?(path: string): Promise<DiskUse>;
}

export interface ImageGcResult {
  readonly removed: readonly ImageRecord[];
  readonly freedBytes: number;
  readonly wantedBytes: number;
  readonly kept: readonly KeptImage[];
  readonly failed: readonly { readonly image: ImageRecord; readonly error: unknown }[];
}

export interface ImageGc {
  /** Looks every five minutes until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
  /** One look: frees what the policy asks for. Rejects where that was not enough, with what to look at. */
  collect(signal?: AbortSignal): Promise<ImageGcResult>;
  /** Every image that may go: what eviction calls for under disk pressure. */
  removeUnused(signal?: AbortSignal): Promise<ImageGcResult>;
}

const periodMs = 5 * 60_000;
/** The runtime frees the space of what was removed a moment later. */
const settleMs = 1_000;
const maxRounds = 3;

const statDisk = async (path: string): Promise<DiskUse> => {
  const { blocks, bavail, bsize } = await statfs(path);
  return { capacityBytes: blocks * bsize, availableBytes: bavail * bsize };
};

const nothing: ImageGcResult = { removed: [], freedBytes: 0, wantedBytes: 0, kept: [], failed: [] };

const fullName = (name: string): string => {
  try {
    return canonicalImageName(parseImageReference(name));
  } catch {
    return name;
  }
};

export function createImageGc(deps: ImageGcDeps, policy: GcPolicy): ImageGc {
  const { clock, runtime, log } = deps;
  const beganMs = clock.now();
  const seen = new Map<string, { firstSeenMs: number; lastUsedMs: number }>();
  /** Images that a container mounts; mounts never change. */
  const mounted = new Map<ContainerId, readonly string[]>();

  async function mountedImages(id: ContainerId, signal: AbortSignal | undefined): Promise<readonly string[]> {
    const known = mounted.get(id);
    if (known) return known;
    try {
      const { mounts } = await runtime.inspectContainer(id, signal ? { signal } : {});
      const images = mounts.flatMap(({ image }) => (image ? [image.image] : []));
      mounted.set(id, images);
      return images;
    } catch (error) {
      if (isNotFound(error)) return [];
      throw error;
    }
  }

  async function look(startedMs: number, signal: AbortSignal | undefined): Promise<ImageRecord[]> {
    const options = signal ? { signal } : {};
    // Images first: one that is listed and taken into use meanwhile is then seen in use.
    const images = await runtime.listImages(options);
    const containers = await runtime.listContainers(undefined, options);
    const used = new Set<string>();
    for (const { id, imageId, imageRef, image } of containers) {
      for (const name of [imageId, imageRef, image]) used.add(name);
      for (const name of await mountedImages(id, signal)) used.add(name);
    }
    const alive = new Set(containers.map(({ id }) => id));
    for (const id of mounted.keys()) if (!alive.has(id)) mounted.delete(id);
    // containerd pins its sandbox image since 2.0; before that it is in no container's list either.
    const { sandboxImage } = await runtime.status(options);
    const sandboxName = sandboxImage === undefined ? undefined : fullName(sandboxImage);
    const now = clock.now();
    const records = images.map((image): ImageRecord => {
      const names = [image.id, ...image.repoTags, ...image.repoDigests];
      // A container's image name may be a tag that now means another image, so the id decides where it is told.
      const inUse = used.has(image.id) || names.slice(1).some((name) => used.has(name));
      const known = seen.get(image.id) ?? { firstSeenMs: startedMs, lastUsedMs: 0 };
      if (inUse) known.lastUsedMs = now;
      seen.set(image.id, known);
      const name = image.repoTags[0] ?? image.repoDigests[0] ?? image.id;
      return {
        id: image.id,
        name,
        sizeBytes: image.sizeBytes,
        pinned: image.pinned || (sandboxName !== undefined && names.includes(sandboxName)),
        inUse,
        ...known,
      };
    });
    const present = new Set(images.map(({ id }) => id));
    for (const id of seen.keys()) if (!present.has(id)) seen.delete(id);
    return records;
  }

  async function remove(image: ImageRecord, reason: 'space' | 'age'): Promise<void> {
    log.info('removing an image that nobody uses', { image: image.name, id: image.id, bytes: image.sizeBytes, reason });
    await runtime.removeImage({ image: image.id });
    seen.delete(image.id);
    deps.collected?.inc({ reason });
  }

  async function free(
    images: readonly ImageRecord[],
    wantedBytes: number,
    reason: 'space' | 'age',
    signal: AbortSignal | undefined,
  ): Promise<Pick<ImageGcResult, 'removed' | 'freedBytes' | 'failed'>> {
    const removed: ImageRecord[] = [];
    const failed: { image: ImageRecord; error: unknown }[] = [];
    let freedBytes = 0;
    for (const image of images) {
      if (freedBytes >= wantedBytes) break;
      signal?.throwIfAborted();
      try {
        await remove(image, reason);
        removed.push(image);
        freedBytes += image.sizeBytes;
      } catch (error) {
        failed.push({ image, error });
      }
    }
    return { removed, freedBytes, failed };
  }

  async function prune(
    images: readonly ImageRecord[],
    removed: readonly ImageRecord[],
    startedMs: number,
  ): Promise<void> {
    const gone = new Set(removed.map(({ id }) => id));
    await deps.records?.prune(
      images.filter(({ id }) => !gone.has(id)).map(({ id }) => id),
      startedMs,
    );
  }

  async function imageDisk(): Promise<DiskUse> {
    const { image } = await runtime.imageFilesystem();
    const path = image[0]?.mountpoint;
    if (!path) throw new Error('the runtime does not tell where its images are');
    const disk = await (deps.diskUse ?? statDisk)(path);
    if (disk.capacityBytes > 0) return disk;
    deps.events?.record(deps.node, 'Warning', 'InvalidDiskCapacity', 'invalid capacity 0 on image filesystem');
    throw new Error('invalid capacity 0 on image filesystem');
  }

  async function collect(signal?: AbortSignal): Promise<ImageGcResult> {
    const startedMs = clock.now();
    let images = await look(startedMs, signal);
    const aged = await free(tooOld(images, policy, startedMs, beganMs), Number.POSITIVE_INFINITY, 'age', signal);
    const agedIds = new Set(aged.removed.map(({ id }) => id));
    images = images.filter(({ id }) => !agedIds.has(id));

    let disk = await imageDisk();
    const first = disk;
    const wantedBytes = bytesToFree(disk, policy);
    if (wantedBytes === 0) {
      if (agedIds.size > 0) await prune(images, [], startedMs);
      return { ...nothing, ...aged };
    }
    log.info('the image file system is over its high threshold; unused images go until it is at the low one', {
      usedPercent: usedPercent(disk),
      highThresholdPercent: policy.highThresholdPercent,
      lowThresholdPercent: policy.lowThresholdPercent,
      bytes: wantedBytes,
    });
    const { remove: queue, keep } = candidates(images, policy, startedMs);
    const removed: ImageRecord[] = [];
    const failed = [...aged.failed];
    let left = queue;
    // An image's size is not what its removal frees (layers are shared), so the disk is asked again.
    for (let round = 0, missing = wantedBytes; round < maxRounds && missing > 0 && left.length > 0; round++) {
      const done = await free(left, missing, 'space', signal);
      removed.push(...done.removed);
      failed.push(...done.failed);
      const tried = new Set([...done.removed, ...done.failed.map(({ image }) => image)].map(({ id }) => id));
      left = left.filter(({ id }) => !tried.has(id));
      await clock.sleep(settleMs, signal);
      const before = disk;
      disk = await imageDisk();
      missing = Math.min(
        bytesToFreeTo(disk, policy),
        missing - Math.max(0, disk.availableBytes - before.availableBytes),
      );
    }
    await prune(images, removed, startedMs);
    const result: ImageGcResult = {
      removed: [...aged.removed, ...removed],
      freedBytes: removed.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      wantedBytes,
      kept: keep,
      failed,
    };
    if (bytesToFreeTo(disk, policy) > 0) complain(result, first);
    return result;
  }

  /** Throws: what was wanted could not be freed. */
  function complain(result: ImageGcResult, disk: DiskUse): void {
    const { kept, failed, freedBytes } = result;
    const used = usedPercent(disk);
    const message =
      `Insufficient free disk space on the node's image filesystem (${used}% of ${formatSize(disk.capacityBytes)} used). ` +
      `Failed to free sufficient space by deleting unused images (freed ${freedBytes} bytes). ` +
      'Investigate disk usage, as it could be used by active images, logs, volumes, or other data.';
    deps.events?.record(deps.node, 'Warning', 'FreeDiskSpaceFailed', message);
    const why = new Map<string, number>();
    for (const { why: reason, image } of kept) why.set(reason, (why.get(reason) ?? 0) + image.sizeBytes);
    log.warn('unused images did not free enough of the image file system', {
      wantedBytes: result.wantedBytes,
      freedBytes,
      keptBytes: Object.fromEntries(why),
      failed: failed.map(({ image, error }) => `${image.name}: ${describeError(error)}`),
    });
    throw new Error(message, failed.length > 0 ? { cause: failed[0]?.error } : undefined);
  }

  return {
    collect,
    async removeUnused(signal) {
      const startedMs = clock.now();
      const images = await look(startedMs, signal);
      const { remove: queue, keep } = candidates(images, policy, startedMs);
      const wantedBytes = queue.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
      const done = await free(queue, Number.POSITIVE_INFINITY, 'space', signal);
      await prune(images, done.removed, startedMs);
      return { ...done, wantedBytes, kept: keep };
    },
    async run(signal) {
      let failedBefore = false;
      while (!signal.aborted) {
        try {
          await collect(signal);
          failedBefore = false;
        } catch (error) {
          if (signal.aborted) return;
          // A first failure may be a runtime that is not up yet.
          if (failedBefore) deps.events?.record(deps.node, 'Warning', 'ImageGCFailed', describeError(error));
          log.warn('image collection failed; it is tried again in five minutes', { error });
          failedBefore = true;
        }
        await clock.sleep(periodMs, signal).catch(() => undefined);
      }
    },
  };
}

/** How far the disk is above the low threshold, in bytes. */
const bytesToFreeTo = (disk: DiskUse, policy: GcPolicy): number =>
  Math.max(0, Math.trunc((disk.capacityBytes * (100 - policy.lowThresholdPercent)) / 100) - disk.availableBytes);
