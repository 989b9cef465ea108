// What a volume says of itself, as the summary shows it.
import type { VolumeStats } from '../volumes/pod-volumes.ts';
import type { VolumeUsage } from './filesystems.ts';

export const volumeUsage = (stats: VolumeStats): VolumeUsage => ({
  name: stats.name,
  timeMs: Date.parse(stats.time),
  capacityBytes: stats.capacityBytes ?? 0,
  availableBytes: stats.availableBytes ?? 0,
  usedBytes: stats.usedBytes ?? 0,
  inodes: stats.inodes ?? 0,
  inodesFree: stats.inodesFree ?? 0,
  inodesUsed: stats.inodesUsed ?? 0,
  ephemeral: stats.pvcRef === undefined,
  ...(stats.pvcRef ? { claim: stats.pvcRef } : {}),
  ...(stats.volumeHealthStats ? { abnormal: stats.volumeHealthStats.abnormal } : {}),
});
