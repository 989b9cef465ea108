// Which images the collector removes, in which order, and why the others stay. Pure.

export interface ImageRecord {
  readonly id: string;
  /** Its first name, for people. */
  readonly name: string;
  readonly sizeBytes: number;
  readonly pinned: boolean;
  readonly inUse: boolean;
  readonly firstSeenMs: number;
  /** 0 where it was not used since it was first seen. */
  readonly lastUsedMs: number;
}

export interface GcPolicy {
  /** A use of the disk, in percent, that starts a collection. */
  readonly highThresholdPercent: number;
  /** The use that a collection brings it down to. */
  readonly lowThresholdPercent: number;
  /** Images that are younger stay. */
  readonly minAgeMs: number;
  /** Images that were not used for longer go, however empty the disk is. 0: never. */
  readonly maxAgeMs: number;
}

export interface KeptImage {
  readonly image: ImageRecord;
  readonly why: 'in use' | 'pinned by the runtime' | 'too young';
}

/** Images that may go, the least recently used first, of those the first seen. */
export function candidates(
  images: readonly ImageRecord[],
  policy: Pick<GcPolicy, 'minAgeMs'>,
  nowMs: number,
): { readonly remove: readonly ImageRecord[]; readonly keep: readonly KeptImage[] } {
  const remove: ImageRecord[] = [];
  const keep: KeptImage[] = [];
  for (const image of images) {
    if (image.inUse) keep.push({ image, why: 'in use' });
    else if (image.pinned) keep.push({ image, why: 'pinned by the runtime' });
    else if (nowMs - image.firstSeenMs < policy.minAgeMs) keep.push({ image, why: 'too young' });
    else remove.push(image);
  }
  remove.sort((a, b) => a.lastUsedMs - b.lastUsedMs || a.firstSeenMs - b.firstSeenMs || (a.id < b.id ? -1 : 1));
  return { remove, keep };
}

/** Images past the maximum age; none before the collector itself has watched for that long. */
export function tooOld(
  images: readonly ImageRecord[],
  policy: GcPolicy,
  nowMs: number,
  beganMs: number,
): ImageRecord[] {
  if (policy.maxAgeMs <= 0 || nowMs - beganMs <= policy.maxAgeMs) return [];
  return images.filter(
    ({ inUse, pinned, lastUsedMs, firstSeenMs }) =>
      !inUse && !pinned && nowMs - Math.max(lastUsedMs, firstSeenMs) > policy.maxAgeMs,
  );
}

export interface DiskUse {
  readonly capacityBytes: number;
  readonly availableBytes: number;
}

export const usedPercent = ({ capacityBytes, availableBytes }: DiskUse): number =>
  100 - Math.trunc((Math.min(availableBytes, capacityBytes) * 100) / capacityBytes);

/** How much to free, in bytes: 0 below the high threshold, else down to the low one. */
export function bytesToFree(disk: DiskUse, policy: GcPolicy): number {
  if (usedPercent(disk) < policy.highThresholdPercent) return 0;
  const wanted = Math.trunc((disk.capacityBytes * (100 - policy.lowThresholdPercent)) / 100);
  return Math.max(0, wanted - disk.availableBytes);
}

/** `1.5 GiB`. */
export function formatSize(bytes: number): string {
  if (bytes < 1024) return `${Math.trunc(bytes)} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let size = bytes / 1024;
  let unit = 0;
  while (size >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit++;
  }
  return `${size.toFixed(1)} ${units[unit]}`;
}
