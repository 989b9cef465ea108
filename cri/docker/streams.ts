// Docker's framing of output: eight bytes (stream, three zeroes, length), then the bytes. Terminals have no frames.
export interface Frame {
  readonly stream: 'stdout' | 'stderr';
  readonly data: Buffer;
}

export interface FrameParser {
  push(chunk: Uint8Array): Frame[];
  /** Whether what came so far ends between two frames. */
  complete(): boolean;
}

const headerBytes = 8;

export function createFrameParser(): FrameParser {
  let chunks: Buffer[] = [];
  let size = 0;
  const take = (bytes: number): Buffer => {
    const all = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks);
    const taken = all.subarray(0, bytes);
    const rest = all.subarray(bytes);
    chunks = rest.length > 0 ? [rest] : [];
    size = rest.length;
    return taken;
  };
  let stream: Frame['stream'] | undefined;
  let wanted = headerBytes;
  return {
    push(chunk) {
      chunks.push(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength));
      size += chunk.byteLength;
      const frames: Frame[] = [];
      while (size >= wanted) {
        if (stream === undefined) {
          const header = take(headerBytes);
          stream = header[0] === 2 ? 'stderr' : 'stdout';
          wanted = header.readUInt32BE(4);
          if (wanted > 0) continue;
        } else frames.push({ stream, data: take(wanted) });
        stream = undefined;
        wanted = headerBytes;
      }
      return frames;
    },
    complete: () => size === 0 && stream === undefined,
  };
}
