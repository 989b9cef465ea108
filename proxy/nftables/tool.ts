// The only file of this folder that calls nft. Small transactions go to an nft that stays. Classes what it answers.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ExecError, type exec } from '../../lib/exec.ts';
import { NetfilterError } from '../backend.ts';
import { type Converse, createStayingTool } from '../staying-tool.ts';

export type Exec = typeof exec;

export interface NftTool {
  /** Starts the nft that stays, so that the first script need not wait for it. */
  begin(signal: AbortSignal): void;
  /** Runs a script: one transaction, all of it or nothing. */
  run(script: string, signal: AbortSignal): Promise<void>;
  /** What nft prints for these arguments; undefined where there is no such thing. */
  list(args: readonly string[], signal: AbortSignal): Promise<string | undefined>;
  /** Ends the nft that stays, if there is one; the next script starts another. */
  rest(): void;
}

const scriptTimeoutMs = 5 * 60_000;
// Says one line and does not ask the kernel.
const markLine = 'describe tcp dport';
const mark = 'payload expression, datatype inet_service';

/** The kernel is not as it was believed to be, or busy: nobody's input is at fault, it must be read again. */
const notAsBelieved = /No such file or directory|File exists|Device or resource busy|Resource temporarily/i;

function classify(what: string, error: unknown): NetfilterError {
  if (!(error instanceof ExecError)) return new NetfilterError('failed', `${what}: ${String(error)}`, error);
  const message = `${what}: ${error.message}`;
  if (error.code === 'not-found') return new NetfilterError('missing', message, error);
  if (error.code === 'timeout') return new NetfilterError('timeout', message, error);
  if (error.code === 'aborted') return new NetfilterError('aborted', message, error);
  // nft gives up on some input by an assertion.
  const refused = error.exitCode === 1 || /SIGABRT|Assertion|exit 134/.test(error.message);
  if (error.code === 'failed' && refused) return classifyText(message, error.stderr, error);
  return new NetfilterError('failed', message, error);
}

function classifyText(message: string, said: string, cause?: unknown): NetfilterError {
  if (/Operation not permitted|you must be root/i.test(said)) return new NetfilterError('denied', message, cause);
  return new NetfilterError(notAsBelieved.test(said) ? 'failed' : 'rejected', message, cause);
}

export interface NftToolDeps {
  readonly exec: Exec;
  /** Undefined: every script goes to an nft of its own. */
  readonly converse?: Converse | undefined;
}

/** Undefined where it could not be done so, for whatever reason. */
async function listThroughFile(exec: Exec, args: readonly string[], signal: AbortSignal): Promise<string | undefined> {
  let folder: string | undefined;
  try {
    folder = await mkdtemp(join(tmpdir(), 'stevedore-nft-'));
    const file = join(folder, 'list');
    await exec('sh', ['-c', 'exec nft "$@" > "$0"', file, 'list', ...args], { signal, timeoutMs: scriptTimeoutMs });
    return await readFile(file, 'utf8');
  } catch {
    return undefined;
  } finally {
    if (folder !== undefined) await rm(folder, { recursive: true, force: true });
  }
}

export function createNftTool({ exec, converse }: NftToolDeps): NftTool {
  // It would keep what it was given in the home folder. One built without its interactive part cannot stay.
  const staying = createStayingTool(converse, {
    command: 'nft',
    args: ['-i'],
    env: { HOME: '/nonexistent' },
    markLine,
    mark,
  });

  const runAlone = async (script: string, signal: AbortSignal): Promise<void> => {
    try {
      await exec('nft', ['-f', '-'], { input: script, signal, timeoutMs: scriptTimeoutMs });
    } catch (error) {
      throw classify('write rules with nft', error);
    }
  };

  /** False where none stays. */
  const runInSession = async (script: string, signal: AbortSignal): Promise<boolean> => {
    let said: string | undefined;
    try {
      said = await staying.ask(script.trim().split('\n').join('; '), signal);
    } catch (error) {
      throw classify('write rules with nft', error);
    }
    if (said === undefined) return false;
    const at = said.indexOf('Error: ');
    if (at < 0) return true;
    const text = said.slice(at).trim().slice(0, 2000);
    throw classifyText(`write rules with nft: ${text}`, text);
  };

  return {
    begin: (signal) => staying.begin(signal),
    async run(script, signal) {
      if (!(await runInSession(script, signal))) await runAlone(script, signal);
    },
    async list(args, signal) {
      // nft hands over its text line by line, which costs both sides more than the listing: a big one goes through a file.
      const throughFile = args[0] === 'table' ? await listThroughFile(exec, args, signal) : undefined;
      if (throughFile !== undefined) return throughFile;
      try {
        const { stdout } = await exec('nft', ['list', ...args], {
          signal,
          timeoutMs: scriptTimeoutMs,
          maxOutputBytes: 2 ** 30,
        });
        return stdout;
      } catch (error) {
        if (error instanceof ExecError && /No such file or directory/.test(error.stderr)) return undefined;
        throw classify(`list ${args.join(' ')} with nft`, error);
      }
    },
    rest: () => staying.rest(),
  };
}
