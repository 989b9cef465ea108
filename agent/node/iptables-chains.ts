// Chains that the kubelet makes for others (`makeIPTablesUtilChains`). KUBE-IPTABLES-HINT tells images that bring both kinds of iptables which one
// this host uses. KUBE-FIREWALL keeps what comes from outside away from 127.0.0.0/8, which route_localnet opens (kubernetes issue 90259);
// a kube-proxy writes the same rule there. KUBE-KUBELET-CANARY is there to be missed when somebody flushes everything.
import { aborted } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import { ExecError, type exec as execType } from '../../lib/exec.ts';
import type { Log } from '../../lib/log.ts';

export interface IptablesChainsDeps {
  readonly exec: typeof execType;
  readonly clock: Clock;
  readonly log: Log;
}

export interface IptablesChains {
  /** Makes them and makes them again where they were taken away, until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

type Tool = 'iptables' | 'ip6tables';
const tools: readonly Tool[] = ['iptables', 'ip6tables'];

const hint = 'KUBE-IPTABLES-HINT';
const canary = 'KUBE-KUBELET-CANARY';
const firewall = 'KUBE-FIREWALL';
/** As iptables prints it. */
const localnetRule =
  '! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP';

/** They hold no rules: to declare one that is there changes nothing. */
const emptyChains: readonly (readonly [table: string, chains: readonly string[]])[] = [
  ['mangle', [hint, canary]],
  ['nat', [canary]],
  ['filter', [canary]],
];

const lookEveryMs = 60_000;
/** Who flushes is not through at once. */
const flushMs = 1_000;
const wait = ['-w', '5'] as const;

type Exec = typeof execType;

/** The chain's rules; undefined where there is no such chain. */
async function rulesOf(
  exec: Exec,
  tool: Tool,
  table: string,
  chain: string,
  signal: AbortSignal,
): Promise<string[] | undefined> {
  try {
    const { stdout } = await exec(tool, [...wait, '-t', table, '-S', chain], { signal });
    const start = `-A ${chain} `;
    return stdout.split('\n').flatMap((line) => (line.startsWith(start) ? [line.slice(start.length)] : []));
  } catch (error) {
    if (error instanceof ExecError && error.code === 'failed' && error.exitCode === 1) return undefined;
    throw error;
  }
}

async function makeChains(exec: Exec, tool: Tool, signal: AbortSignal): Promise<void> {
  const restore = (input: string): Promise<unknown> =>
    exec(`${tool}-restore`, ['--noflush', ...wait], { input, signal });
  // The canary before the rules it stands for: who cleans up after a kube-proxy leaves them then.
  await restore(
    emptyChains
      .map(([table, chains]) => `*${table}\n${chains.map((chain) => `:${chain} - [0:0]\n`).join('')}COMMIT\n`)
      .join(''),
  );
  if (tool === 'ip6tables') return;
  const lines: string[] = [];
  const there = await rulesOf(exec, tool, 'filter', firewall, signal);
  if (!there) lines.push(`:${firewall} - [0:0]`);
  if (!there?.includes(localnetRule)) lines.push(`-A ${firewall} ${localnetRule}`);
  for (const from of ['OUTPUT', 'INPUT'])
    if (!(await rulesOf(exec, tool, 'filter', from, signal))?.includes(`-j ${firewall}`))
      lines.push(`-I ${from} -j ${firewall}`);
  if (lines.length > 0) await restore(`*filter\n${lines.join('\n')}\nCOMMIT\n`);
}

/** Takes away what says that a kubelet is here; the rest is then the proxy's to remove. What is not there is no failure. */
export async function removeIptablesMarks(exec: Exec, signal: AbortSignal): Promise<void> {
  for (const tool of tools)
    for (const [table, chains] of emptyChains)
      for (const chain of chains)
        await exec(tool, [...wait, '-t', table, '-X', chain], { signal }).catch(() => undefined);
}

export function createIptablesChains({ exec, clock, log }: IptablesChainsDeps): IptablesChains {
  const keep = async (tool: Tool, signal: AbortSignal): Promise<void> => {
    let due = true;
    let said = false;
    while (!signal.aborted) {
      try {
        if (due) await makeChains(exec, tool, signal);
        due = false;
        said = false;
        await clock.sleep(lookEveryMs, signal);
        if ((await rulesOf(exec, tool, 'mangle', canary, signal)) !== undefined) continue;
        log.info('the chains made for others were flushed; they are made again', { tool });
        await clock.sleep(flushMs, signal);
        due = true;
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ExecError && error.code === 'not-found') {
          log.info('this host has no iptables: no chains are made for others', { tool });
          return;
        }
        if (!said)
          log.warn('the chains that others look for could not be made; tried again every minute', { tool, error });
        said = true;
        due = true;
        await clock.sleep(lookEveryMs, signal).catch(() => undefined);
      }
    }
  };
  return {
    async run(signal) {
      await Promise.all([aborted(signal), ...tools.map((tool) => keep(tool, signal))]);
    },
  };
}
