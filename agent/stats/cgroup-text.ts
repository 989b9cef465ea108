// Reads the texts of a cgroup's files.
import type { DeviceIo, Psi, PsiLine } from './cgroup-sample.ts';

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
    return [{ device, readBytes: of('rbytes'), writeBytes: of('wbytes'), reads: of('rios'), writes: of('wios') }];
  });
}

/** `blkio.throttle.io_service_bytes` and `…io_serviced` of cgroup v1: `8:0 Read 1` lines. */
export function parseBlkio(bytes: string | undefined, counts: string | undefined): DeviceIo[] {
  const devices = new Map<string, { readBytes: number; writeBytes: number; reads: number; writes: number }>();
  const note = (text: string | undefined, read: 'readBytes' | 'reads', write: 'writeBytes' | 'writes'): void => {
    for (const line of (text ?? '').split('\n')) {
      const [device = '', kind, value] = line.split(' ');
      if (value === undefined || (kind !== 'Read' && kind !== 'Write')) continue;
      const entry = devices.get(device) ?? { readBytes: 0, writeBytes: 0, reads: 0, writes: 0 };
      entry[kind === 'Read' ? read : write] = Number(value);
      devices.set(device, entry);
    }
  };
  note(bytes, 'readBytes', 'writeBytes');
  note(counts, 'reads', 'writes');
  return [...devices].map(([device, values]) => ({ device, ...values }));
}
