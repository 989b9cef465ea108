// The only file that calls iptables. Finds which of its two kinds this host uses, and classes what it answers.
import { type ExecResult, ExecError, type exec } from '../../lib/exec.ts';
import type { IpFamily } from '../addresses.ts';
import { NetfilterError } from '../backend.ts';

export type Exec = typeof exec;
export type Variant = 'nft' | 'legacy';

export interface IptablesTool {
  readonly family: IpFamily;
  readonly variant: Variant;
  /** For example `1.8.9`. */
  readonly version: string;
  /** `MASQUERADE --random-fully` is known. */
  readonly randomFully: boolean;
  /** What iptables-save prints of the table. */
  save(table: string, signal: AbortSignal): Promise<string>;
  /** Runs iptables-restore --noflush. Each table's part is done whole or not at all. */
  restore(input: string | Uint8Array, signal: AbortSignal): Promise<void>;
  /** The chain's rules with counters, as `-S -v` prints them; undefined where there is no such chain. */
  list(table: string, chain: string, signal: AbortSignal): Promise<readonly string[] | undefined>;
}

const lockWaitSeconds = 5;
const restoreTimeoutMs = 10 * 60_000;

function classify(what: string, error: unknown): NetfilterError {
  if (!(error instanceof ExecError)) return new NetfilterError('failed', `${what}: ${String(error)}`, error);
  const said = `${error.stderr}\n${error.stdout}`;
  if (error.code === 'not-found') return new NetfilterError('missing', `${what}: ${error.message}`, error);
  if (error.code === 'timeout') return new NetfilterError('timeout', `${what}: ${error.message}`, error);
  if (error.code === 'aborted') return new NetfilterError('aborted', `${what}: ${error.message}`, error);
  if (/Permission denied|you must be root|Operation not permitted/i.test(said))
    return new NetfilterError('denied', `${what}: ${error.message}`, error);
  if (error.exitCode === 4 || /xtables lock|Resource temporarily unavailable/i.test(said))
    return new NetfilterError(
      'busy',
      `${what}: another program holds the xtables lock for more than ${lockWaitSeconds} s; it is tried again: ${error.message}`,
      error,
    );
  if (error.exitCode === 1 || error.exitCode === 2 || error.exitCode === 111)
    return new NetfilterError('rejected', `${what}: ${error.message}`, error);
  return new NetfilterError('failed', `${what}: ${error.message}`, error);
}

const isAtLeast = (version: string, wanted: readonly number[]): boolean => {
  const parts = version.split('.').map(Number);
  for (let at = 0; at < wanted.length; at++) {
    const [have, want] = [parts[at] ?? 0, wanted[at]!];
    if (have !== want) return have > want;
  }
  return true;
};

interface Names {
  readonly run: string;
  readonly save: string;
  readonly restore: string;
}

const namesOf = (family: IpFamily, kind: '' | '-nft' | '-legacy'): Names => {
  const base = `${family === 'IPv4' ? 'iptables' : 'ip6tables'}${kind}`;
  return { run: base, save: `${base}-save`, restore: `${base}-restore` };
};

const tried = (work: Promise<ExecResult>): Promise<string | undefined> =>
  work.then(
    ({ stdout }) => stdout,
    () => undefined,
  );

const hints = /^:KUBE-(IPTABLES-HINT|KUBELET-CANARY|PROXY-CANARY) /m;
const rulesIn = (text: string | undefined): number => text?.match(/^-A /gm)?.length ?? 0;

/** nft or legacy: the one where the kubelet (or we) left a mark, else the one with more rules, else nft. */
async function chooseKind(exec: Exec, family: IpFamily): Promise<'-nft' | '-legacy' | ''> {
  const nft = namesOf(family, '-nft');
  const legacy = namesOf(family, '-legacy');
  const [hasNft, hasLegacy] = await Promise.all(
    [nft, legacy].map(async ({ run }) => (await tried(exec(run, ['--version']))) !== undefined),
  );
  if (!hasNft) return hasLegacy ? '-legacy' : '';
  if (!hasLegacy) return '-nft';
  if (hints.test((await tried(exec(nft.save, ['-t', 'mangle']))) ?? '')) return '-nft';
  // Without -t the legacy tool prints the tables that exist and loads none.
  const legacyText = await tried(exec(legacy.save, []));
  if (legacyText && hints.test(legacyText)) return '-legacy';
  if (rulesIn(legacyText) === 0) return '-nft';
  return rulesIn(legacyText) > rulesIn(await tried(exec(nft.save, []))) ? '-legacy' : '-nft';
}

/** Rejects with a NetfilterError of code `missing` where this host has no iptables for the family. */
export const findIptables = async (exec: Exec, family: IpFamily): Promise<IptablesTool> =>
  openTool(exec, family, namesOf(family, await chooseKind(exec, family)));

/** That of the two kinds, whichever this host uses. */
export const iptablesOf = (exec: Exec, family: IpFamily, variant: Variant): Promise<IptablesTool> =>
  openTool(exec, family, namesOf(family, `-${variant}`));

async function openTool(exec: Exec, family: IpFamily, names: Names): Promise<IptablesTool> {
  let said: string;
  try {
    said = (await exec(names.run, ['--version'])).stdout;
  } catch (error) {
    throw classify(`look for ${names.run}`, error);
  }
  const version = /v(\d+(?:\.\d+)+)/.exec(said)?.[1] ?? '0';
  const variant: Variant = /nf_tables/.test(said) ? 'nft' : 'legacy';
  return {
    family,
    variant,
    version,
    randomFully: isAtLeast(version, [1, 6, 2]),
    async save(table, signal) {
      try {
        return (await exec(names.save, ['-t', table], { signal, maxOutputBytes: 1024 * 1024 * 1024 })).stdout;
      } catch (error) {
        throw classify(`read the ${table} table with ${names.save}`, error);
      }
    },
    async restore(input, signal) {
      try {
        await exec(names.restore, ['--noflush', '-w', String(lockWaitSeconds)], {
          input,
          signal,
          timeoutMs: restoreTimeoutMs,
        });
      } catch (error) {
        throw classify(`write rules with ${names.restore}`, error);
      }
    },
    async list(table, chain, signal) {
      try {
        const args = ['-w', String(lockWaitSeconds), '-t', table, '-v', '-S', chain];
        const { stdout } = await exec(names.run, args, { signal });
        return stdout
          .split('\n')
          .filter((line) => line.startsWith('-A '))
          .map((line) => line.slice(3 + chain.length + 1));
      } catch (error) {
        const classed = classify(`list chain ${chain} of ${table} with ${names.run}`, error);
        if (classed.code === 'rejected') return undefined;
        throw classed;
      }
    },
  };
}
