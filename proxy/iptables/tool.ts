// The only file that calls iptables. Finds which of its two kinds this host uses, and classes what it answers.
import { type ExecResult, ExecError, type exec } from '../../lib/exec.ts';
import type { IpFamily } from '../addresses.ts';
import { NetfilterError } from '../backend.ts';
import { type Converse, createStayingTool, type StayingTool } from '../staying-tool.ts';

export type Exec = typeof exec;
export type Variant = 'nft' | 'legacy';

export interface IptablesTool {
  readonly family: IpFamily;
  readonly variant: Variant;
  /** For example `1.8.9`. */
  readonly version: string;
  /** `MASQUERADE --random-fully` is known. */
  readonly randomFully: boolean;
  /** What iptables-save prints of all tables there are: to be asked for one takes it as long. */
  save(signal: AbortSignal): Promise<string>;
  /** Runs iptables-restore --noflush, or gives the input to one that stays. Each table's part is done whole or not at all. */
  restore(input: string | Uint8Array, signal: AbortSignal): Promise<void>;
  /** Starts the iptables-restore that stays, where one can, so that the first input need not wait for it. */
  begin(signal: AbortSignal): void;
  /** Ends the iptables-restore that stays, if any; the next input starts another. */
  rest(): void;
  /** The chain's rules with counters, as `-S -v` prints them; undefined where there is no such chain. */
  list(table: string, chain: string, signal: AbortSignal): Promise<readonly string[] | undefined>;
}

const lockWaitSeconds = 5;
const restoreTimeoutMs = 10 * 60_000;
// With -v comments are said again at once, which Android's netd has used since 2017 to give one iptables-restore all its changes. The tool keeps
// nothing from one COMMIT to the next: it reads what is there when it comes to the next, and once more where others were faster.
const markLine = '# stevedore: done';
/** The oldest version whose source was read for that. */
const staysSince = [1, 8, 9];

/** What the kernel refuses whoever asks. */
const nobodysFault = /temporarily unavailable|Cannot allocate|No buffer space|Interrupted|Too many open files/i;

function classify(what: string, error: unknown): NetfilterError {
  if (!(error instanceof ExecError)) return new NetfilterError('failed', `${what}: ${String(error)}`, error);
  const said = `${error.stderr}\n${error.stdout}`;
  if (error.code === 'not-found') return new NetfilterError('missing', `${what}: ${error.message}`, error);
  if (error.code === 'timeout') return new NetfilterError('timeout', `${what}: ${error.message}`, error);
  if (error.code === 'aborted') return new NetfilterError('aborted', `${what}: ${error.message}`, error);
  if (/Permission denied|you must be root|Operation not permitted/i.test(said))
    return new NetfilterError('denied', `${what}: ${error.message}`, error);
  // What the nft kind says of a rule or chain that the kernel refused. It ends with 4 then, as both kinds do where the lock is not to be had.
  const refused = /\b[A-Z]+_[A-Z_]+ failed \(([^)]*)\)/.exec(said);
  if (refused)
    return new NetfilterError(
      nobodysFault.test(refused[1]!) ? 'failed' : 'rejected',
      `${what}: ${error.message}`,
      error,
    );
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
export const findIptables = async (exec: Exec, family: IpFamily, converse?: Converse): Promise<IptablesTool> =>
  openTool(exec, family, namesOf(family, await chooseKind(exec, family)), converse);

/** That of the two kinds, whichever this host uses. */
export const iptablesOf = (exec: Exec, family: IpFamily, variant: Variant): Promise<IptablesTool> =>
  openTool(exec, family, namesOf(family, `-${variant}`));

async function openTool(exec: Exec, family: IpFamily, names: Names, converse?: Converse): Promise<IptablesTool> {
  let said: string;
  try {
    said = (await exec(names.run, ['--version'])).stdout;
  } catch (error) {
    throw classify(`look for ${names.run}`, error);
  }
  const version = /v(\d+(?:\.\d+)+)/.exec(said)?.[1] ?? '0';
  const variant: Variant = /nf_tables/.test(said) ? 'nft' : 'legacy';
  const args = ['--noflush', '-w', String(lockWaitSeconds)];
  const staying: StayingTool = createStayingTool(isAtLeast(version, staysSince) ? converse : undefined, {
    command: names.restore,
    args: [...args, '-v'],
    markLine,
    mark: `${markLine}\n`,
  });
  return {
    family,
    variant,
    version,
    randomFully: isAtLeast(version, [1, 6, 2]),
    async save(signal) {
      try {
        return (await exec(names.save, [], { signal, maxOutputBytes: 1024 * 1024 * 1024 })).stdout;
      } catch (error) {
        throw classify(`read the rules with ${names.save}`, error);
      }
    },
    async restore(input, signal) {
      try {
        const said = typeof input === 'string' ? await staying.ask(input, signal) : undefined;
        if (said === undefined) await exec(names.restore, args, { input, signal, timeoutMs: restoreTimeoutMs });
      } catch (error) {
        throw classify(`write rules with ${names.restore}`, error);
      }
    },
    begin: (signal) => staying.begin(signal),
    rest: () => staying.rest(),
    async list(table, chain, signal) {
      try {
        const asked = ['-w', String(lockWaitSeconds), '-t', table, '-v', '-S', chain];
        const { stdout } = await exec(names.run, asked, { signal });
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
