// What SPDY and WebSocket clients of exec and attach have in common once their protocol is taken off: channels, and a status at the end.
import type { StreamChannels } from '../../cri/types.ts';

export interface TerminalSize {
  readonly width: number;
  readonly height: number;
}

/** The end of a command as `metav1.Status` tells it to clients of v4 and later. */
export interface CommandStatus {
  readonly metadata: Record<string, never>;
  readonly status: 'Success' | 'Failure';
  readonly message?: string;
  readonly reason?: string;
  readonly details?: { readonly causes: readonly { readonly reason: string; readonly message: string }[] };
  readonly code?: number;
}

/** The command's end as another server told it: handed on as it is. */
export class StatusError extends Error {
  override name = 'StatusError';
  readonly status: CommandStatus;
  constructor(status: CommandStatus) {
    super(status.message ?? status.reason ?? 'the command failed');
    this.status = status;
  }
}

export interface CommandConnection {
  readonly channels: StreamChannels;
  /** Aborts when the client is gone. */
  readonly signal: AbortSignal;
  /** Says how it ended. */
  sendStatus(status: CommandStatus): Promise<void>;
  /** Lets all that was written leave, and ends the connection. */
  close(): Promise<void>;
}

export function exitStatus(code: number): CommandStatus {
  if (code === 0) return { metadata: {}, status: 'Success' };
  return {
    metadata: {},
    status: 'Failure',
    message: `command terminated with non-zero exit code: exit code ${code}`,
    reason: 'NonZeroExitCode',
    details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
  };
}

export const failedStatus = (what: string): CommandStatus => ({
  metadata: {},
  status: 'Failure',
  message: `Internal error occurred: ${what}`,
  reason: 'InternalError',
  code: 500,
});

/** What protocols before v4 are told: nothing of a success, else the words. */
export const plainStatus = (status: CommandStatus): string =>
  status.status === 'Success' ? '' : (status.message ?? '');

/** Finds the sizes in a stream of JSON objects, `{"Width":80,"Height":24}`, however it is cut. */
export function createSizeParser(): { push(chunk: Uint8Array): TerminalSize[] } {
  let held = '';
  return {
    push(chunk) {
      held += Buffer.from(chunk).toString('latin1');
      const sizes: TerminalSize[] = [];
      for (let end = held.indexOf('}'); end >= 0; end = held.indexOf('}')) {
        const text = held.slice(Math.max(0, held.lastIndexOf('{', end)), end + 1);
        held = held.slice(end + 1);
        const size = parseSize(text);
        if (size) sizes.push(size);
      }
      if (held.length > 4096) held = '';
      return sizes;
    },
  };
}

function parseSize(text: string): TerminalSize | undefined {
  try {
    const { Width: width, Height: height } = JSON.parse(text) as { Width?: unknown; Height?: unknown };
    const fits = (value: unknown): value is number =>
      Number.isInteger(value) && (value as number) >= 0 && (value as number) <= 0xffff;
    return fits(width) && fits(height) ? { width, height } : undefined;
  } catch {
    return undefined;
  }
}

/** Sizes as they come; only the newest matters, so one that nobody took gives way to the next. */
export function createSizeQueue(): {
  readonly sizes: AsyncIterable<TerminalSize>;
  push(size: TerminalSize): void;
  end(): void;
} {
  let newest: TerminalSize | undefined;
  let ended = false;
  let wake: (() => void) | undefined;
  return {
    push(size) {
      newest = size;
      wake?.();
    },
    end() {
      ended = true;
      wake?.();
    },
    sizes: {
      async *[Symbol.asyncIterator]() {
        for (;;) {
          if (newest) {
            const size = newest;
            newest = undefined;
            yield size;
          } else if (ended) return;
          else
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
        }
      },
    },
  };
}
