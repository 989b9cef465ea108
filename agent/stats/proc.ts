// What /proc says of the host and of a network namespace.
import { parseKeyed, readPseudoFile } from './pseudo-files.ts';

export interface InterfaceCounters {
  readonly name: string;
  readonly rxBytes: number;
  readonly rxPackets: number;
  readonly rxErrors: number;
  readonly rxDropped: number;
  readonly txBytes: number;
  readonly txPackets: number;
  readonly txErrors: number;
  readonly txDropped: number;
}

/** The loopback, and the host's ends of containers' interfaces, which are shown where they lead to. */
const unseen = /^(?:lo$|veth|docker|nerdctl)/i;

/** `/proc/PID/net/dev`, of the interfaces that lead out. */
export function parseNetDev(text: string | undefined): InterfaceCounters[] {
  return (text ?? '').split('\n').flatMap((line) => {
    const colon = line.indexOf(':');
    if (colon < 0) return [];
    const name = line.slice(0, colon).trim();
    const fields = line
      .slice(colon + 1)
      .trim()
      .split(/\s+/)
      .map(Number);
    if (unseen.test(name) || fields.length < 12) return [];
    return [
      {
        name,
        rxBytes: fields[0]!,
        rxPackets: fields[1]!,
        rxErrors: fields[2]!,
        rxDropped: fields[3]!,
        txBytes: fields[8]!,
        txPackets: fields[9]!,
        txErrors: fields[10]!,
        txDropped: fields[11]!,
      },
    ];
  });
}

/** The interfaces of the network namespace that the process is in. */
export const readInterfaces = (proc: string, pid: number | 'self'): InterfaceCounters[] =>
  parseNetDev(readPseudoFile(`${proc}/${pid}/net/dev`));

/** The interface of the host's default route. */
export function defaultInterface(proc: string): string | undefined {
  for (const line of (readPseudoFile(`${proc}/1/net/route`) ?? '').split('\n').slice(1)) {
    const [name, destination, , flags] = line.split('\t');
    if (destination === '00000000' && (Number.parseInt(flags ?? '0', 16) & 1) === 1) return name;
  }
  return undefined;
}

/** Bytes. */
export interface HostMemory {
  readonly total: number;
  readonly free: number;
  readonly available: number;
  readonly inactiveFile: number;
  readonly activeFile: number;
  readonly anonymous: number;
  readonly cached: number;
  readonly mapped: number;
  readonly swapTotal: number;
  readonly swapFree: number;
}

export function parseMeminfo(text: string | undefined): HostMemory {
  const values: Record<string, number> = {};
  for (const line of (text ?? '').split('\n')) {
    const found = /^([\w()]+):\s+(\d+)/.exec(line);
    if (found) values[found[1]!] = Number(found[2]) * 1024;
  }
  const of = (name: string): number => values[name] ?? 0;
  return {
    total: of('MemTotal'),
    free: of('MemFree'),
    available: of('MemAvailable'),
    inactiveFile: of('Inactive(file)'),
    activeFile: of('Active(file)'),
    anonymous: of('AnonPages'),
    cached: of('Cached'),
    mapped: of('Mapped'),
    swapTotal: of('SwapTotal'),
    swapFree: of('SwapFree'),
  };
}

export interface HostFacts {
  readonly memory: HostMemory;
  readonly bootMs: number;
  readonly cpuNs: { readonly user: number; readonly system: number; readonly busy: number };
  readonly processes: number;
  readonly maxPid: number;
  readonly pageFaults: number;
  readonly majorPageFaults: number;
}

const tickNs = 10_000_000;

export function readHost(proc: string): HostFacts {
  const stat = readPseudoFile(`${proc}/stat`) ?? '';
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = (/^cpu +(.*)$/m.exec(stat)?.[1] ?? '')
    .split(' ')
    .map(Number);
  const vmstat = parseKeyed(readPseudoFile(`${proc}/vmstat`));
  const load = /\d+\/(\d+)/.exec(readPseudoFile(`${proc}/loadavg`) ?? '');
  return {
    memory: parseMeminfo(readPseudoFile(`${proc}/meminfo`)),
    bootMs: Number(/^btime (\d+)$/m.exec(stat)?.[1] ?? 0) * 1000,
    cpuNs: {
      user: (user + nice) * tickNs,
      system: (system + irq + softirq) * tickNs,
      busy: (user + nice + system + irq + softirq) * tickNs,
    },
    processes: Number(load?.[1] ?? 0),
    maxPid: Number.parseInt(readPseudoFile(`${proc}/sys/kernel/pid_max`) ?? '0', 10),
    pageFaults: vmstat.pgfault ?? 0,
    majorPageFaults: vmstat.pgmajfault ?? 0,
  };
}
