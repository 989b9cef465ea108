// Writes tar archives (ustar, with pax records for what ustar cannot hold) byte for byte the same from the same entries.

export interface TarEntry {
  /** Relative to the archive's root, without a leading slash. */
  readonly path: string;
  /** Default `file`. */
  readonly type?: 'file' | 'directory' | 'symlink' | 'hardlink';
  /** Of a file. */
  readonly data?: Uint8Array | string;
  /** Of a link: where it points; a hard link's target is relative to the archive's root. */
  readonly target?: string;
  /** Default 0755 for directories, 0644 for files. */
  readonly mode?: number;
  readonly uid?: number;
  readonly gid?: number;
  /** Seconds since the epoch. Default 0, so that the same content gives the same archive. */
  readonly mtimeSeconds?: number;
}

const block = 512;
const flags = { file: '0', hardlink: '1', symlink: '2', directory: '5' } as const;
const encoder = new TextEncoder();

const octal = (value: number, width: number): string => `${value.toString(8).padStart(width - 1, '0')}\0`;

function header(
  name: string,
  flag: string,
  size: number,
  entry: { mode: number; uid: number; gid: number; mtime: number; link: string },
): Buffer {
  const bytes = Buffer.alloc(block);
  const put = (offset: number, width: number, text: string): void => {
    bytes.set(encoder.encode(text).subarray(0, width), offset);
  };
  put(0, 100, name);
  put(100, 8, octal(entry.mode, 8));
  put(108, 8, octal(entry.uid, 8));
  put(116, 8, octal(entry.gid, 8));
  put(124, 12, octal(size, 12));
  put(136, 12, octal(entry.mtime, 12));
  put(148, 8, '        ');
  put(156, 1, flag);
  put(157, 100, entry.link);
  put(257, 8, 'ustar\x0000');
  const sum = bytes.reduce((total, byte) => total + byte, 0);
  put(148, 8, `${sum.toString(8).padStart(6, '0')}\0 `);
  return bytes;
}

function padded(data: Uint8Array): Uint8Array[] {
  const rest = data.length % block;
  return rest === 0 ? [data] : [data, new Uint8Array(block - rest)];
}

/** One pax record: its length counts itself. */
function paxRecord(key: string, value: string): Buffer {
  const body = Buffer.from(` ${key}=${value}\n`);
  let length = body.length + 1;
  while (String(length).length + body.length !== length) length = String(length).length + body.length;
  return Buffer.concat([Buffer.from(String(length)), body]);
}

/** The archive's bytes. */
export function writeTar(entries: readonly TarEntry[]): Buffer {
  const parts: Uint8Array[] = [];
  for (const entry of entries) {
    const type = entry.type ?? 'file';
    const data =
      type === 'file' ? (typeof entry.data === 'string' ? encoder.encode(entry.data) : entry.data) : undefined;
    const name = type === 'directory' && !entry.path.endsWith('/') ? `${entry.path}/` : entry.path;
    const link = entry.target ?? '';
    const meta = {
      mode: entry.mode ?? (type === 'directory' ? 0o755 : type === 'symlink' ? 0o777 : 0o644),
      uid: entry.uid ?? 0,
      gid: entry.gid ?? 0,
      mtime: entry.mtimeSeconds ?? 0,
    };
    const records: Buffer[] = [];
    if (Buffer.byteLength(name) > 100) records.push(paxRecord('path', name));
    if (Buffer.byteLength(link) > 100) records.push(paxRecord('linkpath', link));
    if (records.length > 0) {
      const pax = Buffer.concat(records);
      parts.push(header('pax', 'x', pax.length, { ...meta, link: '' }), ...padded(pax));
    }
    parts.push(header(name, flags[type], data?.length ?? 0, { ...meta, link }));
    if (data && data.length > 0) parts.push(...padded(data));
  }
  parts.push(new Uint8Array(2 * block));
  return Buffer.concat(parts);
}
