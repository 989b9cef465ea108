// What is written into a cgroup's files, or set as properties of a systemd slice, for given resources.
import { type CgroupResources, cpuWeight } from './linux-resources.ts';

export interface CgroupWrite {
  /** Version 1: whose hierarchy. */
  readonly controller: string;
  readonly file: string;
  readonly value: string;
  /** The kernel may not have the file. */
  readonly optional: boolean;
}

const whole = (amount: number): string => (Number.isFinite(amount) && amount >= 0 ? String(amount) : '-1');
const orMax = (amount: number): string => (Number.isFinite(amount) && amount >= 0 ? String(amount) : 'max');

/** Version 1. Limits of 0 are none given, and left alone. */
export function writesV1(resources: CgroupResources): CgroupWrite[] {
  const writes: CgroupWrite[] = [];
  const write = (controller: string, file: string, value: string, optional = false): void => {
    writes.push({ controller, file, value, optional });
  };
  if (resources.cpuShares !== undefined) write('cpu', 'cpu.shares', String(resources.cpuShares));
  if (resources.cpuPeriod !== undefined) write('cpu', 'cpu.cfs_period_us', String(resources.cpuPeriod));
  if (resources.cpuQuota) write('cpu', 'cpu.cfs_quota_us', whole(resources.cpuQuota));
  if (resources.memoryLimit) write('memory', 'memory.limit_in_bytes', whole(resources.memoryLimit));
  if (resources.pidsLimit) write('pids', 'pids.max', orMax(resources.pidsLimit));
  for (const [size, limit] of Object.entries(resources.hugepageLimits ?? {})) {
    write('hugetlb', `hugetlb.${size}.limit_in_bytes`, whole(limit));
    write('hugetlb', `hugetlb.${size}.rsvd.limit_in_bytes`, whole(limit), true);
  }
  return writes;
}

/** Version 2. */
export function writesV2(resources: CgroupResources): CgroupWrite[] {
  const writes: CgroupWrite[] = [];
  const write = (controller: string, file: string, value: string, optional = false): void => {
    writes.push({ controller, file, value, optional });
  };
  if (resources.cpuShares !== undefined) write('cpu', 'cpu.weight', String(cpuWeight(resources.cpuShares)));
  if (resources.cpuQuota) {
    const period = resources.cpuPeriod === undefined ? '' : ` ${resources.cpuPeriod}`;
    write('cpu', 'cpu.max', `${orMax(resources.cpuQuota)}${period}`);
  }
  if (resources.memoryLimit) write('memory', 'memory.max', orMax(resources.memoryLimit));
  if (resources.pidsLimit) write('pids', 'pids.max', orMax(resources.pidsLimit));
  for (const [size, limit] of Object.entries(resources.hugepageLimits ?? {})) {
    write('hugetlb', `hugetlb.${size}.max`, orMax(limit));
    write('hugetlb', `hugetlb.${size}.rsvd.max`, orMax(limit), true);
  }
  for (const [file, value] of Object.entries(resources.unified ?? {}))
    write(file.split('.')[0] ?? '', file, value, false);
  return writes;
}

/** A property of a systemd unit: name, D-Bus type, value. */
export type UnitProperty = readonly [name: string, type: string, value: string];

const infinity = '18446744073709551615';

/** What systemd must know, since it writes a slice's files again when it pleases. Huge pages it does not manage. */
export function sliceProperties(resources: CgroupResources, version: 1 | 2): UnitProperty[] {
  const properties: UnitProperty[] = [];
  const amount = (value: number): string => (Number.isFinite(value) && value >= 0 ? String(value) : infinity);
  if (resources.cpuShares !== undefined)
    properties.push(
      version === 2
        ? ['CPUWeight', 't', String(cpuWeight(resources.cpuShares))]
        : ['CPUShares', 't', String(resources.cpuShares)],
    );
  if (resources.cpuQuota) {
    const period = resources.cpuPeriod ?? 100_000;
    properties.push(['CPUQuotaPeriodUSec', 't', String(period)]);
    // systemd rounds to 10 ms per second; rounding up never takes away what was asked for.
    const perSecond = Math.ceil((resources.cpuQuota * 1_000_000) / period / 10_000) * 10_000;
    properties.push(['CPUQuotaPerSecUSec', 't', resources.cpuQuota > 0 ? String(perSecond) : infinity]);
  }
  if (resources.memoryLimit)
    properties.push([version === 2 ? 'MemoryMax' : 'MemoryLimit', 't', amount(resources.memoryLimit)]);
  if (resources.pidsLimit) properties.push(['TasksMax', 't', amount(resources.pidsLimit)]);
  const low = resources.unified?.['memory.low'];
  const min = resources.unified?.['memory.min'];
  if (version === 2 && low !== undefined) properties.push(['MemoryLow', 't', low]);
  if (version === 2 && min !== undefined) properties.push(['MemoryMin', 't', min]);
  return properties;
}
