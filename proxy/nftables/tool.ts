// The only file of this folder that calls nft. Classes what it answers.
import { ExecError, type exec } from '../../lib/exec.ts';
import { NetfilterError } from '../backend.ts';

export type Exec = typeof exec;

export interface NftTool {
  /** Runs a script: one transaction, all of it or nothing. */
  run(script: string, signal: AbortSignal): Promise<void>;
  /** What nft prints for these arguments; undefined where there is no such thing. */
  list(args: readonly string[], signal: AbortSignal): Promise<string | undefined>;
}

const scriptTimeoutMs = 5 * 60_000;

function classify(what: string, error: unknown): NetfilterError {
  if (!(error instanceof ExecError)) return new NetfilterError('failed', `${what}: ${String(error)}`, error);
  const message = `${what}: ${error.message}`;
  if (error.code === 'not-found') return new NetfilterError('missing', message, error);
  if (error.code === 'timeout') return new NetfilterError('timeout', message, error);
  if (error.code === 'aborted') return new NetfilterError('aborted', message, error);
  if (/Operation not permitted|you must be root/i.test(error.stderr))
    return new NetfilterError('denied', message, error);
  // The kernel is not as it was believed to be: nobody's input is at fault, it must be read again.
  if (/No such file or directory|File exists|Device or resource busy|Resource temporarily/i.test(error.stderr))
    return new NetfilterError('failed', message, error);
  // nft gives up on some input by an assertion.
  if (error.code === 'failed' && (error.exitCode === 1 || /SIGABRT|Assertion/.test(error.message)))
    return new NetfilterError('rejected', message, error);
  return new NetfilterError('failed', message, error);
}

export function createNftTool(exec: Exec): NftTool {
  return {
    async run(script, signal) {
      try {
        await exec('nft', ['-f', '-'], { input: script, signal, timeoutMs: scriptTimeoutMs });
      } catch (error) {
        throw classify('write rules with nft', error);
      }
    },
    async list(args, signal) {
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
  };
}
