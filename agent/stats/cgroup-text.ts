// Reads the texts of a cgroup's files.
import type { DeviceIo, Psi, PsiLine, SchedulerCount } from './cgroup-sample.ts';

const noStall: PsiLine = { totalUs: 0, avg10: 0, avg60: 0, avg300: 0 };
const noPressure: Psi = { some: noStall, full: noStall };

export function parsePsi(text: string | undefined): Psi | undefined {
  if (!text) return undefined;
  const found: { some: PsiLine; full: PsiLine } = { ...noPressure };
  for (const [, name, avg10, avg60, avg300, total] of text.matchAll(
    /^(some|full) avg10=([\d.]+) avg60=([\d.]+) avg300=([\d.]+) total=(\d+)/gm,
  ))
    found[name as 'some' | 'full'] = {
      totalUs: Number(total),
      avg10: Number(avg10),
      avg60: Number(avg60),
      avg300: Number(avg300),
    };
  return found;
}

/** Nothing waits, and nothing has for five minutes. */
export const isCalm = (psi: Psi | undefined): boolean =>
  psi === undefined || [psi.some, psi.full].every(({ avg10, avg60, avg300 }) => avg10 + avg60 + avg300 === 0);

/** The value of one key in lines of `key value`; undefined where it is not there. A stat file has fifty keys, of which a few are wanted. */
export function keyed(text: string | undefined, key: string): number | undefined {
  if (text === undefined) return undefined;
  const head = `${key} `;
  let at = text.startsWith(head) ? 0 : -1;
  if (at < 0) {
    at = text.indexOf(`\n${head}`);
    if (at < 0) return undefined;
    at++;
  }
  const end = text.indexOf('\n', at);
  const value = Number(text.slice(at + head.length, end < 0 ? undefined : end));
  return Number.isNaN(value) ? undefined : value;
}

/** `io.stat` of cgroup v2: `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`. */
export function parseIoStat(text: string | undefined): DeviceIo[] {
  return (text ?? '').split('\n').flatMap((line) => {
    const [device, ...fields] = line.split(' ');
    if (!device || fields.length === 0) return [];
    const values = new Map(fields.map((field) => field.split('=') as [string, string]));
    const of = (name: string): number => Number(values.get(name) ?? 0);
    const [readBytes, writeBytes] = [of('rbytes'), of('wbytes')];
    const cost = {
      usageUs: of('cost.usage'),
      waitUs: of('cost.wait'),
      indebtUs: of('cost.indebt'),
      indelayUs: of('cost.indelay'),
    };
    return [
      {
        device,
        readBytes,
        writeBytes,
        reads: of('rios'),
        writes: of('wios'),
        byOperation: [
          ['Read', readBytes],
          ['Write', writeBytes],
        ] as const,
        ...(values.has('cost.usage') ? { cost } : {}),
      },
    ];
  });
}

/** The files of the blkio controller that say what a cgroup did, by the end of their names. */
export type BlkioTexts = Readonly<
  Partial<
    Record<
      'io_service_bytes' | 'io_serviced' | 'sectors' | 'io_service_time' | 'io_merged' | 'io_queued',
      string | undefined
    >
  >
>;

type Operations = ReadonlyMap<string, number>;

/** Lines of `8:0 Read 1`, or of `8:0 1` where there is but one number; the last line, of all devices, is left out. */
function parseBlkioFile(text: string | undefined): Map<string, Operations> {
  const devices = new Map<string, Map<string, number>>();
  for (const line of (text ?? '').split('\n')) {
    const [device = '', ...rest] = line.split(' ');
    if (rest.length === 0 || !/^\d+:\d+$/.test(device)) continue;
    const [operation, value] = rest.length === 1 ? ['Count', rest[0]] : rest;
    const entry = devices.get(device) ?? new Map<string, number>();
    entry.set(operation!, Number(value));
    devices.set(device, entry);
  }
  return devices;
}

/** Whether a blkio file names any device: it has a line of all of them in any case. */
export const hasDevices = (text: string | undefined): boolean => text !== undefined && /^\d+:\d+ /.test(text);

const schedulerCounts: readonly (readonly [SchedulerCount, keyof BlkioTexts, operation: string])[] = [
  ['sectorsRead', 'sectors', 'Read'],
  ['sectorsWritten', 'sectors', 'Write'],
  ['readsMerged', 'io_merged', 'Read'],
  ['writesMerged', 'io_merged', 'Write'],
  ['readNs', 'io_service_time', 'Read'],
  ['writeNs', 'io_service_time', 'Write'],
  ['serviceNs', 'io_service_time', 'Total'],
  ['queued', 'io_queued', 'Total'],
];

/** What a cgroup of version 1 did, by the devices that bytes went to or came from. */
export function parseBlkio(texts: BlkioTexts): DeviceIo[] {
  const of = new Map(Object.entries(texts).map(([file, text]) => [file, parseBlkioFile(text)]));
  const serviced = of.get('io_serviced');
  return [...(of.get('io_service_bytes') ?? [])].map(([device, bytes]) => {
    const scheduler: Partial<Record<SchedulerCount, number>> = {};
    for (const [name, file, operation] of schedulerCounts) {
      const found = of.get(file)?.get(device);
      // Sectors are one number without an operation: it is of no use to who asks for reads, who then is told 0.
      if (found) scheduler[name] = found.get(operation) ?? 0;
    }
    return {
      device,
      readBytes: bytes.get('Read') ?? 0,
      writeBytes: bytes.get('Write') ?? 0,
      reads: serviced?.get(device)?.get('Read') ?? 0,
      writes: serviced?.get(device)?.get('Write') ?? 0,
      byOperation: [...bytes],
      ...(Object.keys(scheduler).length > 0 ? { scheduler } : {}),
    };
  });
}
