// The frames of SPDY/3.1: a control frame has its first bit set, a data frame names its stream instead.
import { SpdyError } from './errors.ts';

export const resetStatus = {
  protocolError: 1,
  invalidStream: 2,
  refusedStream: 3,
  unsupportedVersion: 4,
  cancel: 5,
  internalError: 6,
  flowControlError: 7,
  streamInUse: 8,
  streamAlreadyClosed: 9,
  frameTooLarge: 11,
} as const;

export type Frame =
  /** A large frame comes in pieces, as its bytes arrive; `fin` is with the last. */
  | { readonly type: 'data'; readonly streamId: number; readonly fin: boolean; readonly data: Buffer }
  | {
      readonly type: 'syn-stream';
      readonly streamId: number;
      readonly associatedTo: number;
      readonly fin: boolean;
      readonly unidirectional: boolean;
      /** Still deflated. */
      readonly headers: Buffer;
    }
  | {
      readonly type: 'syn-reply' | 'headers';
      readonly streamId: number;
      readonly fin: boolean;
      readonly headers: Buffer;
    }
  | { readonly type: 'reset'; readonly streamId: number; readonly status: number }
  | { readonly type: 'settings'; readonly values: readonly { readonly id: number; readonly value: number }[] }
  | { readonly type: 'ping'; readonly id: number }
  | { readonly type: 'goaway'; readonly lastStreamId: number; readonly status: number }
  | { readonly type: 'window-update'; readonly streamId: number; readonly delta: number };

const version = 3;
const types = {
  synStream: 1,
  synReply: 2,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  headers: 8,
  windowUpdate: 9,
} as const;
const fin = 1;
const unidirectional = 2;
/** A control frame larger than this is an attack: the largest we need is a handful of headers. */
const maxControlBytes = 64 * 1024;

const id31 = (value: number): number => value & 0x7fff_ffff;

function control(type: number, flags: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt16BE(0x8000 | version, 0);
  head.writeUInt16BE(type, 2);
  head.writeUInt32BE(((flags << 24) | payload.length) >>> 0, 4);
  return Buffer.concat([head, payload]);
}

const numbers = (...values: number[]): Buffer => {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeUInt32BE(value >>> 0, index * 4);
  return bytes;
};

/** The head of a data frame; its bytes follow it on the wire. */
export function dataHead(streamId: number, last: boolean, length: number): Buffer {
  return numbers(id31(streamId), ((last ? fin : 0) << 24) | length);
}

export function encodeFrame(frame: Frame): Buffer {
  switch (frame.type) {
    case 'data':
      return Buffer.concat([dataHead(frame.streamId, frame.fin, frame.data.length), frame.data]);
    case 'syn-stream': {
      const flags = (frame.fin ? fin : 0) | (frame.unidirectional ? unidirectional : 0);
      const ids = numbers(id31(frame.streamId), id31(frame.associatedTo));
      return control(types.synStream, flags, Buffer.concat([ids, Buffer.alloc(2), frame.headers]));
    }
    case 'syn-reply':
    case 'headers': {
      const type = frame.type === 'headers' ? types.headers : types.synReply;
      return control(type, frame.fin ? fin : 0, Buffer.concat([numbers(id31(frame.streamId)), frame.headers]));
    }
    case 'reset':
      return control(types.reset, 0, numbers(id31(frame.streamId), frame.status));
    case 'settings':
      return control(
        types.settings,
        0,
        numbers(frame.values.length, ...frame.values.flatMap(({ id, value }) => [id & 0xff_ffff, value])),
      );
    case 'ping':
      return control(types.ping, 0, numbers(frame.id));
    case 'goaway':
      return control(types.goaway, 0, numbers(id31(frame.lastStreamId), frame.status));
    case 'window-update':
      return control(types.windowUpdate, 0, numbers(id31(frame.streamId), id31(frame.delta)));
  }
}

/** Undefined for a kind of frame that is not known: those are to be ignored. Throws a SpdyError where the payload is too short. */
function decodeControl(type: number, flags: number, payload: Buffer): Frame | undefined {
  const need = (bytes: number): void => {
    if (payload.length < bytes)
      throw new SpdyError('protocol', `a control frame of type ${type} with ${payload.length} bytes`);
  };
  switch (type) {
    case types.synStream:
      need(10);
      return {
        type: 'syn-stream',
        streamId: id31(payload.readUInt32BE(0)),
        associatedTo: id31(payload.readUInt32BE(4)),
        fin: (flags & fin) !== 0,
        unidirectional: (flags & unidirectional) !== 0,
        headers: payload.subarray(10),
      };
    case types.synReply:
    case types.headers:
      need(4);
      return {
        type: type === types.headers ? 'headers' : 'syn-reply',
        streamId: id31(payload.readUInt32BE(0)),
        fin: (flags & fin) !== 0,
        headers: payload.subarray(4),
      };
    case types.reset:
      need(8);
      return { type: 'reset', streamId: id31(payload.readUInt32BE(0)), status: payload.readUInt32BE(4) };
    case types.settings: {
      need(4);
      const count = payload.readUInt32BE(0);
      if (payload.length !== 4 + count * 8)
        throw new SpdyError('protocol', `a SETTINGS frame of ${count} values in ${payload.length} bytes`);
      const values = Array.from({ length: count }, (_, index) => ({
        id: payload.readUInt32BE(4 + index * 8) & 0xff_ffff,
        value: payload.readUInt32BE(8 + index * 8),
      }));
      return { type: 'settings', values };
    }
    case types.ping:
      need(4);
      return { type: 'ping', id: payload.readUInt32BE(0) };
    case types.goaway:
      need(4);
      return {
        type: 'goaway',
        lastStreamId: id31(payload.readUInt32BE(0)),
        status: payload.length >= 8 ? payload.readUInt32BE(4) : 0,
      };
    case types.windowUpdate:
      need(8);
      return { type: 'window-update', streamId: id31(payload.readUInt32BE(0)), delta: id31(payload.readUInt32BE(4)) };
    default:
      return undefined;
  }
}

export interface FrameParser {
  /** The frames that the chunk completes. Throws a SpdyError, after which nothing more can be read. */
  push(chunk: Buffer): Frame[];
}

export function createFrameParser(): FrameParser {
  let held: Buffer = Buffer.alloc(0);
  let data: { streamId: number; fin: boolean; left: number } | undefined;

  const takeData = (frames: Frame[]): void => {
    const current = data!;
    const piece = held.subarray(0, current.left);
    held = held.subarray(piece.length);
    current.left -= piece.length;
    const done = current.left === 0;
    if (piece.length > 0 || done)
      frames.push({ type: 'data', streamId: current.streamId, fin: done && current.fin, data: piece });
    if (done) data = undefined;
  };

  return {
    push(chunk) {
      held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
      const frames: Frame[] = [];
      for (;;) {
        if (data) {
          if (held.length === 0 && data.left > 0) return frames;
          takeData(frames);
          if (data) return frames;
          continue;
        }
        if (held.length < 8) return frames;
        const first = held.readUInt32BE(0);
        const second = held.readUInt32BE(4);
        const length = second & 0xff_ffff;
        const flags = second >>> 24;
        if (first >>> 31 === 0) {
          data = { streamId: id31(first), fin: (flags & fin) !== 0, left: length };
          held = held.subarray(8);
          continue;
        }
        if (first >>> 16 !== (0x8000 | version))
          throw new SpdyError('protocol', `a control frame of SPDY version ${(first >>> 16) & 0x7fff}`);
        if (length > maxControlBytes) throw new SpdyError('protocol', `a control frame of ${length} bytes`);
        if (held.length < 8 + length) return frames;
        const frame = decodeControl(first & 0xffff, flags, held.subarray(8, 8 + length));
        held = held.subarray(8 + length);
        if (frame) frames.push(frame);
      }
    },
  };
}
