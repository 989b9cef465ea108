import { connect, createServer, type Socket } from 'node:net';
import type { AddressInfo } from 'node:net';
import { constants, createDeflate } from 'node:zlib';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { headerDictionary } from './dictionary.ts';
import { createFrameParser, encodeFrame, type Frame } from './frames.ts';
import { createHeaderDeflater, createHeaderInflater, decodeHeaderBlock, encodeHeaderBlock } from './headers.ts';
import { createSpdySession, type SpdySession } from './session.ts';

const id = fc.integer({ min: 1, max: 0x7fff_ffff });
const word = fc.nat({ max: 0xffff_ffff });
const bytes = fc.uint8Array({ maxLength: 300 }).map((array) => Buffer.from(array));
const anyFrame: fc.Arbitrary<Frame> = fc.oneof(
  fc.record({ type: fc.constant('data' as const), streamId: id, fin: fc.boolean(), data: bytes }),
  fc.record({
    type: fc.constant('syn-stream' as const),
    streamId: id,
    associatedTo: id,
    fin: fc.boolean(),
    unidirectional: fc.boolean(),
    headers: bytes,
  }),
  fc.record({
    type: fc.constantFrom('syn-reply' as const, 'headers' as const),
    streamId: id,
    fin: fc.boolean(),
    headers: bytes,
  }),
  fc.record({ type: fc.constant('reset' as const), streamId: id, status: word }),
  fc.record({
    type: fc.constant('settings' as const),
    values: fc.array(fc.record({ id: fc.nat({ max: 0xff_ffff }), value: word }), { maxLength: 5 }),
  }),
  fc.record({ type: fc.constant('ping' as const), id: word }),
  fc.record({ type: fc.constant('goaway' as const), lastStreamId: id, status: word }),
  fc.record({ type: fc.constant('window-update' as const), streamId: id, delta: id }),
);

/** Joins the pieces that a data frame came in. */
function whole(frames: readonly Frame[]): Frame[] {
  const joined: Frame[] = [];
  let open: Extract<Frame, { type: 'data' }> | undefined;
  for (const frame of frames) {
    if (frame.type !== 'data') joined.push(frame);
    else if (open) {
      open = { ...frame, data: Buffer.concat([open.data, frame.data]) };
      joined[joined.length - 1] = open;
    } else {
      open = frame;
      joined.push(frame);
    }
  }
  return joined;
}

describe('frames', () => {
  it('come back as they were sent, however the wire cuts them', () => {
    fc.assert(
      fc.property(anyFrame, fc.integer({ min: 1, max: 40 }), (frame, step) => {
        const wire = encodeFrame(frame);
        const parser = createFrameParser();
        const seen: Frame[] = [];
        for (let at = 0; at < wire.length; at += step) seen.push(...parser.push(wire.subarray(at, at + step)));
        expect(whole(seen)).toEqual([frame]);
      }),
    );
  });

  it('follow one another', () => {
    fc.assert(
      fc.property(fc.array(anyFrame, { maxLength: 8 }), (frames) => {
        expect(createFrameParser().push(Buffer.concat(frames.map(encodeFrame)))).toEqual(frames);
      }),
    );
  });

  it('that make no sense are refused, and nothing else is thrown', () => {
    fc.assert(
      fc.property(fc.array(bytes, { maxLength: 20 }), (chunks) => {
        const parser = createFrameParser();
        try {
          for (const chunk of chunks) parser.push(chunk);
        } catch (error) {
          expect((error as Error).name).toBe('SpdyError');
        }
      }),
      { numRuns: 500 },
    );
    expect(() => createFrameParser().push(Buffer.from('8002000100000000', 'hex'))).toThrow('version 2');
    expect(() => createFrameParser().push(Buffer.from('8003000100ffffff', 'hex'))).toThrow('16777215 bytes');
  });
});

describe('headers', () => {
  const names = fc.stringMatching(/^[a-z0-9:-]{1,20}$/);
  const headers = fc.dictionary(names, fc.string({ maxLength: 40 }), { maxKeys: 8, noNullPrototype: false });

  it('come back through our deflater, block after block', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(headers, { minLength: 1, maxLength: 4 }), async (blocks) => {
        const deflater = createHeaderDeflater();
        const inflater = createHeaderInflater();
        for (const block of blocks) {
          const inflated = await inflater.inflate(deflater.deflate(encodeHeaderBlock(block)));
          expect({ ...decodeHeaderBlock(inflated) }).toEqual(block);
        }
        inflater.close();
      }),
      { numRuns: 30 },
    );
  });

  it('come back from a peer that deflates with the dictionary', async () => {
    expect(headerDictionary.length).toBe(1423);
    const deflate = createDeflate({ dictionary: headerDictionary });
    const inflater = createHeaderInflater();
    for (const block of [{ streamtype: 'error' }, { streamtype: 'data', port: '80', requestid: '0' }]) {
      const parts: Buffer[] = [];
      deflate.on('data', (part: Buffer) => parts.push(part));
      deflate.write(encodeHeaderBlock(block));
      await new Promise<void>((resolve) => deflate.flush(constants.Z_SYNC_FLUSH, () => resolve()));
      deflate.removeAllListeners('data');
      expect({ ...decodeHeaderBlock(await inflater.inflate(Buffer.concat(parts))) }).toEqual(block);
    }
    inflater.close();
  });

  it('that are no headers are refused', async () => {
    await fc.assert(
      fc.asyncProperty(bytes, async (rubbish) => {
        const inflater = createHeaderInflater();
        try {
          decodeHeaderBlock(await inflater.inflate(rubbish));
        } catch (error) {
          expect((error as Error).name).toBe('SpdyError');
        }
        inflater.close();
      }),
      { numRuns: 200 },
    );
    fc.assert(
      fc.property(bytes, (rubbish) => {
        try {
          decodeHeaderBlock(rubbish);
        } catch (error) {
          expect((error as Error).name).toBe('SpdyError');
        }
      }),
    );
  });

  it('that inflate to more than anybody needs are refused', async () => {
    const bomb = createDeflate();
    const parts: Buffer[] = [];
    bomb.on('data', (part: Buffer) => parts.push(part));
    bomb.write(Buffer.alloc(1_000_000));
    await new Promise<void>((resolve) => bomb.flush(constants.Z_SYNC_FLUSH, () => resolve()));
    const inflater = createHeaderInflater();
    await expect(inflater.inflate(Buffer.concat(parts))).rejects.toMatchObject({ code: 'compression' });
  });
});

describe('sessions', () => {
  const open: (() => void)[] = [];
  afterEach(() => {
    for (const close of open.splice(0)) close();
  });

  const pair = async (): Promise<{ server: SpdySession; client: SpdySession; wires: [Socket, Socket] }> => {
    const { wires } = await sockets();
    return {
      server: createSpdySession(wires[0], Buffer.alloc(0), { role: 'server' }),
      client: createSpdySession(wires[1], Buffer.alloc(0), { role: 'client' }),
      wires,
    };
  };
  const sockets = async (): Promise<{ wires: [Socket, Socket] }> => {
    const listener = createServer({ allowHalfOpen: true });
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    const accepted = new Promise<Socket>((resolve) => listener.once('connection', resolve));
    const there = connect((listener.address() as AddressInfo).port, '127.0.0.1');
    const here = await accepted;
    listener.close();
    open.push(() => {
      here.destroy();
      there.destroy();
    });
    return { wires: [here, there] };
  };
  const first = async (session: SpdySession) => {
    for await (const stream of session.incoming()) return stream;
    throw new Error('no stream came');
  };
  const readAll = async (stream: { read(): Promise<Buffer | undefined> }): Promise<Buffer> => {
    const parts: Buffer[] = [];
    for (let part = await stream.read(); part; part = await stream.read()) parts.push(part);
    return Buffer.concat(parts);
  };

  it('carry streams both ways, each end closed by itself', async () => {
    const { server, client } = await pair();
    const mine = client.open({ streamType: 'stdin', port: '80' });
    const theirs = await first(server);
    expect({ ...theirs.headers }).toEqual({ streamtype: 'stdin', port: '80' });
    const big = Buffer.alloc(700_000, 'abc');
    const sent = mine.write(big).then(() => mine.end());
    expect((await readAll(theirs)).equals(big)).toBe(true);
    await sent;
    await theirs.write(Buffer.from('answer'));
    theirs.end();
    expect((await readAll(mine)).toString()).toBe('answer');
    await mine.closed;
    await client.ping();
    await server.close();
    await client.closed;
  });

  it('hold a fast writer back while nobody reads', async () => {
    const { server, client } = await pair();
    const mine = client.open({});
    const theirs = await first(server);
    let written = 0;
    let stop = false;
    const flood = (async () => {
      const piece = Buffer.alloc(64 * 1024);
      while (!stop && written < 64 * 1024 * 1024) {
        await mine.write(piece);
        written += piece.length;
      }
      mine.end();
    })();
    await new Promise((resolve) => setTimeout(resolve, 300));
    const held = written;
    expect(held).toBeLessThan(16 * 1024 * 1024);
    stop = true;
    let read = 0;
    for (let part = await theirs.read(); part; part = await theirs.read()) read += part.length;
    await flood;
    expect(read).toBe(written);
  });

  it('tell of resets, and of the connection that breaks', async () => {
    const { server, client, wires } = await pair();
    const mine = client.open({});
    const theirs = await first(server);
    theirs.reset();
    await expect(mine.read()).rejects.toMatchObject({ code: 'reset', status: 5 });
    const other = client.open({});
    const reading = other.read();
    wires[0].destroy();
    await expect(reading).rejects.toMatchObject({ code: 'closed' });
    await Promise.all([client.closed, server.closed]);
    expect(() => client.open({})).toThrow();
  });

  it('refuse more streams than they can hold', async () => {
    const { wires } = await sockets();
    createSpdySession(wires[0], Buffer.alloc(0), { role: 'server', maxStreams: 1 });
    const client = createSpdySession(wires[1], Buffer.alloc(0), { role: 'client' });
    client.open({});
    await expect(client.open({}).read()).rejects.toMatchObject({ code: 'reset', status: 3 });
  });

  it('outlive any peer: rubbish ends them and nothing else', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.oneof(bytes, anyFrame.map(encodeFrame)), { maxLength: 10 }), async (chunks) => {
        const { wires } = await sockets();
        const server = createSpdySession(wires[0], Buffer.alloc(0), { role: 'server' });
        const taken = (async () => {
          for await (const stream of server.incoming()) stream.reset();
        })();
        wires[1].on('error', () => undefined);
        wires[1].resume();
        for (const chunk of chunks) if (wires[1].writable) wires[1].write(chunk);
        wires[1].end();
        await server.closed;
        await taken;
      }),
      { numRuns: 100 },
    );
  });
});
