// A program that stays and answers: what is asked goes to its standard input, what it says is read up to a mark. For tools whose start
// costs more than their work.
import { spawn } from 'node:child_process';
import { abandonOn } from './abort.ts';
import { ExecError } from './exec.ts';

export interface AskOptions {
  /** The conversation is ended and the ask fails after so many milliseconds. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export interface Conversation {
  /** Undefined where the program could not be started. */
  readonly pid: number | undefined;
  /** It has ended; nothing more can be asked. */
  readonly ended: boolean;
  /**
   * Sends the text and resolves with what the program said up to `mark`, standard error included. Whoever asks while another is being
   * answered waits for his turn, and his time begins with it. Rejects with an ExecError where the program ends or takes too long; whether the text was read by it is not known then.
   * Aborted while it is answered, the program is ended; aborted before its turn, it is not asked.
   */
  ask(text: string, mark: string, options: AskOptions): Promise<string>;
  /** Ends the program. Safe to call twice. */
  end(): void;
}

/** An idle conversation does not keep this process alive. */
export function startConversation(
  command: string,
  args: readonly string[],
  options: { readonly env?: Readonly<Record<string, string>> } = {},
): Conversation {
  // One stream for all it says: its order matters.
  const child = spawn('/bin/sh', ['-c', 'exec "$0" "$@" 2>&1', command, ...args], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { ...process.env, ...options.env },
  });
  let said = '';
  let ended: string | undefined;
  let exitCode: number | undefined;
  let notice: (() => void) | undefined;
  const finish = (why: string): void => {
    ended ??= why;
    notice?.();
  };
  child.on('error', (error) => finish(error.message));
  child.on('close', (code, killedBy) => {
    exitCode = code ?? undefined;
    finish(`exit ${code ?? `by ${killedBy}`}`);
  });
  child.stdin.on('error', () => undefined);
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString('utf8');
    notice?.();
  });
  child.unref();
  for (const stream of [child.stdin, child.stdout]) if ('unref' in stream) (stream as { unref(): void }).unref();

  const end = (why = 'ended'): void => {
    finish(why);
    child.kill('SIGTERM');
  };

  const askNow = (text: string, mark: string, { timeoutMs, signal }: AskOptions): Promise<string> =>
    new Promise((resolve, reject) => {
      said = '';
      // Keeps the process alive while it is waited for.
      const timer = setTimeout(() => end(`no answer within ${timeoutMs} ms`), timeoutMs);
      const onAbort = (): void => end('aborted');
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        notice = undefined;
      };
      notice = () => {
        const at = said.indexOf(mark);
        if (at >= 0) {
          done();
          resolve(said.slice(0, at));
        } else if (ended !== undefined) {
          done();
          const code = signal?.aborted ? 'aborted' : ended.startsWith('no answer') ? 'timeout' : 'failed';
          reject(
            new ExecError(command, code, `${ended}${said ? `: ${said.trim().slice(0, 2000)}` : ''}`, {
              exitCode,
              stdout: said,
            }),
          );
        }
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted) onAbort();
      if (ended === undefined) child.stdin.write(text);
      else notice();
    });

  // What the program says belongs to one question: two at a time would take each other's answer, and one of them wait for ever.
  let turn: Promise<unknown> = Promise.resolve();

  return {
    pid: child.pid,
    get ended() {
      return ended !== undefined;
    },
    ask(text, mark, options) {
      const { signal } = options;
      const mine = turn.then(() => {
        signal?.throwIfAborted();
        return askNow(text, mark, options);
      });
      turn = mine.catch(() => undefined);
      if (!signal) return mine;
      // Nothing was sent for one that still waits for its turn: the program goes on for others.
      return abandonOn(mine, signal).catch((error: unknown) => {
        throw error instanceof ExecError ? error : new ExecError(command, 'aborted', 'aborted', { stdout: '' });
      });
    },
    end: () => end(),
  };
}
