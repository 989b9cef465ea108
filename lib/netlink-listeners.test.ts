// Reading /proc/net/netlink.
import { expect, it } from 'vitest';
import { hasJoined, netfilterProtocol, nftablesGroup } from './netlink-listeners.ts';

const table = `sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000077ba6cb8 12  0          00000000 0        0        0     2        0        11879539
00000000d4d8c880 12  27241      00000140 0        0        0     2        0        11879625
00000000d4d8c881 12  27242      00000100 0        0        0     2        0        11879626
00000000d4d8c882 0   27243      00000040 0        0        0     2        0        11879627
`;

it.each([
  [27241, true],
  [27242, false],
  [27243, false],
  [27244, false],
])('process %i', (pid, joined) => expect(hasJoined(table, pid, netfilterProtocol, nftablesGroup)).toBe(joined));
