// What this host lets the daemon's containers have, read from /proc once.
import { access, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { HostLimits } from './resources.ts';

// By number, as include/uapi/linux/capability.h has them.
const capabilities =
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'.split(
    ' ',
  );

/** `mask` is a bounding set in hexadecimal, `last` the kernel's last capability. Undefined where the set is whole. */
export function missingFrom(mask: string, last: number): readonly string[] | undefined {
  const bits = BigInt(`0x${mask.trim()}`);
  const known = capabilities.slice(0, last + 1);
  const there = known.filter((_, bit) => (bits >> BigInt(bit)) & 1n);
  return there.length === known.length ? undefined : there;
}

const oomScore = async (proc: string, pid: string): Promise<number> =>
  Number(await readFile(join(proc, pid, 'oom_score_adj'), 'utf8').catch(() => '0')) || 0;

async function daemonScore(proc: string): Promise<number> {
  const scores: number[] = [];
  for (const pid of (await readdir(proc)).filter((name) => /^\d+$/.test(name))) {
    const comm = await readFile(join(proc, pid, 'comm'), 'utf8').catch(() => '');
    if (comm.trim() === 'dockerd') scores.push(await oomScore(proc, pid));
  }
  return scores.length > 0 ? Math.max(...scores) : oomScore(proc, 'self');
}

/** Without CAP_SYS_RESOURCE (some virtual machines) no process may be given a lower score than the daemon has: runc would fail. */
export async function readHostLimits(proc = '/proc'): Promise<HostLimits> {
  const status = await readFile(join(proc, '1/status'), 'utf8').catch(() => '');
  const mask = /^CapBnd:\s*([0-9a-f]+)/m.exec(status)?.[1];
  const last = Number(await readFile(join(proc, 'sys/kernel/cap_last_cap'), 'utf8').catch(() => '40'));
  const ipv6 = await access(join(proc, 'sys/net/ipv6')).then(
    () => true,
    () => false,
  );
  const present = mask === undefined ? undefined : missingFrom(mask, Math.min(last, capabilities.length - 1));
  if (present === undefined || present.includes('SYS_RESOURCE'))
    return { oomScoreFloor: -1000, capabilities: present, ipv6 };
  return { oomScoreFloor: await daemonScore(proc), capabilities: present, ipv6 };
}
