// One stream of a SPDY session: bytes both ways, each end closed by itself.
//
//   open ──end()──▶ half closed here ──peer's FIN──▶ closed
//     └──peer's FIN──▶ half closed there ──end()──▶ closed      RST from either side: closed at once
import { SpdyError } from './errors.ts';
import type { SpdyHeaders } from './headers.ts';

export interface SpdyStream {
  readonly id: number;
  readonly headers: SpdyHeaders;
  /** The next bytes; undefined at the peer's end. Rejects with a SpdyError where the stream was reset or the session ended. */
  read(): Promise<Buffer | undefined>;
  /** Resolves when the bytes are on their way and there is room for more. Rejects with a SpdyError. */
  write(data: Uint8Array): Promise<void>;
  /** Nothing more comes from here. */
  end(): void;
  /** Ends it both ways at once; default status: cancel. */
  reset(status?: number): void;
  /** Resolves when both ends are closed, or it was reset. */
  readonly closed: Promise<void>;
}

/** What the session does for its streams. */
export interface StreamDriver {
  send(data: Uint8Array): Promise<void>;
  sendEnd(): void;
  sendReset(status: number): void;
  /** Bytes left the buffer: the peer may send as many more. */
  consumed(bytes: number): void;
  /** Both ends are closed. */
  gone(): void;
}

/** The session's side of a stream. */
export interface StreamEntry {
  readonly stream: SpdyStream;
  receive(data: Buffer): void;
  receiveEnd(): void;
  fail(error: SpdyError): void;
  readonly localEnded: boolean;
  readonly remoteEnded: boolean;
}

export function createStream(id: number, headers: SpdyHeaders, driver: StreamDriver): StreamEntry {
  const chunks: Buffer[] = [];
  let localEnded = false;
  let remoteEnded = false;
  let failed: SpdyError | undefined;
  let wake: (() => void) | undefined;
  let isGone = false;
  let noteClosed: () => void = () => undefined;
  const closed = new Promise<void>((resolve) => {
    noteClosed = resolve;
  });

  const settle = (): void => {
    if (isGone || !(failed || (localEnded && remoteEnded))) return;
    isGone = true;
    driver.gone();
    noteClosed();
  };

  // What came before can still be read.
  const fail = (error: SpdyError): void => {
    if (failed || isGone) return;
    failed = error;
    wake?.();
    settle();
  };

  const discard = (): void => {
    const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    chunks.length = 0;
    if (bytes > 0) driver.consumed(bytes);
  };

  const stream: SpdyStream = {
    id,
    headers,
    closed,
    async read() {
      for (;;) {
        const chunk = chunks.shift();
        if (chunk) {
          driver.consumed(chunk.length);
          return chunk;
        }
        if (remoteEnded) return undefined;
        if (failed) throw failed;
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    },
    async write(data) {
      if (failed) throw failed;
      if (localEnded) throw new SpdyError('closed', `stream ${id} was ended here`);
      if (data.length > 0) await driver.send(data);
    },
    end() {
      if (localEnded || failed) return;
      localEnded = true;
      driver.sendEnd();
      settle();
    },
    reset(status = 5) {
      if (failed || isGone) return;
      driver.sendReset(status);
      discard();
      fail(new SpdyError('reset', `stream ${id} was reset here`, undefined, status));
    },
  };

  return {
    stream,
    receive(data) {
      if (failed || remoteEnded) {
        driver.consumed(data.length);
        return;
      }
      chunks.push(data);
      wake?.();
    },
    receiveEnd() {
      if (failed || remoteEnded) return;
      remoteEnded = true;
      wake?.();
      settle();
    },
    fail,
    get localEnded() {
      return localEnded;
    },
    get remoteEnded() {
      return remoteEnded;
    },
  };
}
