import { expect, it } from 'vitest';
import { growCommand } from './grow-local.ts';

it.each([
  ['ext4', 'resize2fs /dev/sdb1'],
  ['ext3', 'resize2fs /dev/sdb1'],
  ['xfs', 'xfs_growfs -d /mnt/x'],
  ['btrfs', 'btrfs filesystem resize max /mnt/x'],
  ['ext2', undefined],
  ['vfat', undefined],
])('%s grows by %s', (fsType, command) => {
  expect(growCommand(fsType, '/dev/sdb1', '/mnt/x')?.join(' ')).toBe(command);
});
