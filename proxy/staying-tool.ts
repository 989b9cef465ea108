// A netfilter tool that stays and is given one transaction after another: to start and end one takes ten times as long as what it does. Where
// none can stay, its user starts one for each.
//
//   none ──ask──▶ started ──it answers──▶ stays ──ended by itself, failed, given its fill──▶ none
//                    └──it does not answer, the first time──▶ never again
import { setImmediate as nextTurn } from 'node:timers/promises';
import { abandonOn } from '../lib/abort.ts';
import type { Conversation } from '../lib/converse.ts';

/** Starts a program that answers. */
export type Converse = (
  command: string,
  args: readonly string[],
  options: { readonly env: Readonly<Record<string, string>> },
) => Conversation;

export interface StayingTool {
  /** Starts one, if none stays yet, so that the first text need not wait for it: a start stops a large process for as long as a write takes. */
  begin(signal: AbortSignal): void;
  /**
   * What it said of the text, a short one; undefined where none can be had, then nothing was done. Rejects with an ExecError where it ended
   * over it, as a tool given only this text would have, did not answer, or the signal aborted.
   */
  ask(text: string, signal: AbortSignal): Promise<string | undefined>;
  /** Ends the one that stays, if any; the next text starts another. */
  rest(): void;
}

export interface StayingToolOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** A line that changes nothing and that is answered by `mark`. */
  readonly markLine: string;
  readonly mark: string;
}

/** What is short is answered in milliseconds, on a busy host in a second: one that does not answer is given up. */
const askTimeoutMs = 30_000;
const helloTimeoutMs = 10_000;
/** Longer texts are better given to a tool of their own: to read them takes it longer than to start. */
const longestText = 32 * 1024;
/** Some keep what they were given: a fresh one after so much text, in characters. */
const mostPerSession = 4 * 1024 * 1024;

/** `converse` undefined: none ever stays. */
export function createStayingTool(converse: Converse | undefined, options: StayingToolOptions): StayingTool {
  const { command, args, env = {}, markLine, mark } = options;
  let session: Conversation | undefined;
  let given = 0;
  let works: boolean | undefined = converse ? undefined : false;
  // Never rejects.
  let beginning: Promise<unknown> = Promise.resolve();
  let rests = 0;

  const rest = (): void => {
    rests++;
    session?.end();
    session = undefined;
    given = 0;
  };

  const open = async (signal: AbortSignal): Promise<Conversation | undefined> => {
    if (works === false || !converse) return undefined;
    if (session && !session.ended && given < mostPerSession) return session;
    rest();
    const opened = converse(command, args, { env });
    session = opened;
    try {
      await opened.ask(`${markLine}\n`, mark, { timeoutMs: helloTimeoutMs, signal });
      works = true;
      return opened;
    } catch (error) {
      // Who was told to stop asking, or ended it himself, has learnt nothing of the tool.
      const rested = session !== opened;
      if (!rested) rest();
      if (signal.aborted) throw error;
      if (!rested) works ??= false;
      return undefined;
    }
  };

  return {
    begin(signal) {
      const before = rests;
      // In a turn of its own: to start a program holds up a large process as long as anything else that is done in one go.
      beginning = nextTurn()
        .then(() => (rests === before ? open(signal) : undefined))
        .catch(() => undefined);
    },
    async ask(text, signal) {
      if (text.length > longestText) return undefined;
      await abandonOn(beginning, signal).catch(() => undefined);
      const opened = await open(signal);
      if (!opened) return undefined;
      given += text.length;
      try {
        return await opened.ask(`${text}${text.endsWith('\n') ? '' : '\n'}${markLine}\n`, mark, {
          timeoutMs: askTimeoutMs,
          signal,
        });
      } catch (error) {
        rest();
        throw error;
      }
    },
    rest,
  };
}
