// Whether a process has joined a multicast group of netlink: until it has, what the kernel tells that group does not reach it.
import { readFile } from 'node:fs/promises';

/** `NETLINK_NETFILTER` of linux/netlink.h. */
export const netfilterProtocol = 12;
/** `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h: every change of nf_tables. */
export const nftablesGroup = 7;

/** What /proc/net/netlink says of the process; pure. */
export function hasJoined(table: string, pid: number, protocol: number, group: number): boolean {
  return table.split('\n').some((line) => {
    const [, its, port, groups = '0'] = line.trim().split(/\s+/);
    const joined = (Number.parseInt(groups, 16) >>> (group - 1)) & 1;
    return Number(its) === protocol && Number(port) === pid && joined === 1;
  });
}

/** Undefined where this host does not say, or the process is gone. */
export async function listensToGroup(pid: number, protocol: number, group: number): Promise<boolean | undefined> {
  try {
    return hasJoined(await readFile(`/proc/${pid}/net/netlink`, 'utf8'), pid, protocol, group);
  } catch {
    return undefined;
  }
}
