// What can be wrong with a SPDY session or stream.

export type SpdyErrorCode =
  | 'protocol' // the peer sent what it may not
  | 'compression' // its headers cannot be inflated; the session is lost
  | 'flow-control'
  | 'reset' // the peer ended the stream
  | 'closed'; // the session has ended

export class SpdyError extends Error {
  override name = 'SpdyError';
  readonly code: SpdyErrorCode;
  /** With `reset`: the status of its RST_STREAM. */
  readonly status: number | undefined;
  constructor(code: SpdyErrorCode, message: string, cause?: unknown, status?: number) {
    super(message, { cause });
    this.code = code;
    this.status = status;
  }
}
