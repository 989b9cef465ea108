// The header block of a SPDY/3 frame: a count, then names and values, each after its length; deflated with one context for each direction.
import { constants, createInflate } from 'node:zlib';
import { headerDictionary } from './dictionary.ts';
import { SpdyError } from './errors.ts';

/** Names in lower case. Several values of one name are joined by NUL, as the wire has them. */
export type SpdyHeaders = Readonly<Record<string, string>>;

const maxBlockBytes = 256 * 1024;
const maxHeaders = 1000;

export function encodeHeaderBlock(headers: SpdyHeaders): Buffer {
  const entries = Object.entries(headers);
  const parts: Buffer[] = [];
  const number = (value: number): void => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(value);
    parts.push(bytes);
  };
  number(entries.length);
  for (const pair of entries) {
    for (const text of [pair[0].toLowerCase(), pair[1]]) {
      const bytes = Buffer.from(text, 'utf8');
      number(bytes.length);
      parts.push(bytes);
    }
  }
  return Buffer.concat(parts);
}

/** Throws a SpdyError where the block lies about its lengths, or names a header twice. */
export function decodeHeaderBlock(block: Buffer): SpdyHeaders {
  let at = 0;
  const number = (): number => {
    if (at + 4 > block.length) throw new SpdyError('protocol', 'a header block ends too early');
    at += 4;
    return block.readUInt32BE(at - 4);
  };
  const text = (): string => {
    const length = number();
    if (at + length > block.length) throw new SpdyError('protocol', 'a header is longer than its block');
    at += length;
    return block.toString('utf8', at - length, at);
  };
  const count = number();
  if (count > maxHeaders) throw new SpdyError('protocol', `a header block of ${count} headers`);
  const headers: Record<string, string> = Object.create(null);
  for (let index = 0; index < count; index++) {
    const name = text().toLowerCase();
    if (name === '' || name in headers)
      throw new SpdyError('protocol', `header ${JSON.stringify(name)} is empty or comes twice`);
    headers[name] = text();
  }
  return headers;
}

/** An empty stored block: what a sync flush leaves. Go's reader hands out what it has only when it sees one. */
const flushMark = Buffer.from([0x00, 0x00, 0x00, 0xff, 0xff]);

export interface HeaderDeflater {
  deflate(block: Buffer): Buffer;
}

/**
 * Deflates into stored blocks: valid to every reader, which keeps its context all the same. The few headers that we send would gain nothing,
 * and a real compressor costs each connection a quarter of a megabyte.
 */
export function createHeaderDeflater(): HeaderDeflater {
  let begun = false;
  return {
    deflate(block) {
      const parts: Buffer[] = begun ? [] : [Buffer.from([0x78, 0x01])];
      begun = true;
      for (let at = 0; at < block.length || at === 0; at += 0xffff) {
        const piece = block.subarray(at, at + 0xffff);
        const head = Buffer.alloc(5);
        head.writeUInt16LE(piece.length, 1);
        head.writeUInt16LE(piece.length ^ 0xffff, 3);
        parts.push(head, piece);
      }
      parts.push(flushMark);
      return Buffer.concat(parts);
    },
  };
}

export interface HeaderInflater {
  /** One call at a time: each block needs what the one before left. Rejects with a SpdyError. */
  inflate(compressed: Buffer): Promise<Buffer>;
  close(): void;
}

export function createHeaderInflater(): HeaderInflater {
  const inflate = createInflate({ dictionary: headerDictionary, finishFlush: constants.Z_SYNC_FLUSH });
  let parts: Buffer[] = [];
  let bytes = 0;
  let fail: ((error: SpdyError) => void) | undefined;
  let broken: SpdyError | undefined;
  const breakOff = (detail: string, cause?: unknown): void => {
    broken ??= new SpdyError('compression', detail, cause);
    inflate.destroy();
    fail?.(broken);
  };
  inflate.on('data', (part: Buffer) => {
    bytes += part.length;
    if (bytes > maxBlockBytes) breakOff(`a header block of more than ${maxBlockBytes} bytes`);
    else parts.push(part);
  });
  inflate.on('error', (error) => breakOff('a header block cannot be inflated', error));
  return {
    inflate: (compressed) =>
      new Promise((resolve, reject) => {
        if (broken) {
          reject(broken);
          return;
        }
        fail = reject;
        inflate.write(compressed, () => {
          fail = undefined;
          if (broken) return;
          const block = Buffer.concat(parts);
          parts = [];
          bytes = 0;
          resolve(block);
        });
      }),
    close: () => {
      broken ??= new SpdyError('closed', 'the session is closed');
      inflate.destroy();
    },
  };
}
