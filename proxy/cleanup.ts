// Takes Service rules out of the kernel: our own, and what a kube-proxy left in any of its modes. Nothing else is touched.
import type { Clock } from '../lib/clock.ts';
import { ExecError } from '../lib/exec.ts';
import { describeError, type Log } from '../lib/log.ts';
import { ipFamilies } from './addresses.ts';
import { NetfilterError } from './backend.ts';
import { cleanupIptables } from './iptables/cleanup.ts';
import { ipvsChains } from './iptables/names.ts';
import { type Exec, iptablesOf, type Variant } from './iptables/tool.ts';
import { cleanupIpvs } from './ipvs-cleanup.ts';

export interface CleanupDeps {
  readonly exec: Exec;
  readonly clock: Clock;
  readonly log: Log;
}

export interface CleanupOptions {
  /** Our own nftables tables too; default true. */
  readonly ours?: boolean;
  /** kube-proxy's nftables tables and IPVS leftovers too. Its iptables chains are named as ours and go either way. */
  readonly kubeProxy: boolean;
}

const variants: readonly Variant[] = ['nft', 'legacy'];

/** kube-proxy's tables of its nftables mode. */
const kubeProxyTables: readonly (readonly [family: string, name: string])[] = [
  ['ip', 'kube-proxy'],
  ['ip6', 'kube-proxy'],
];
/** Ours; see nftables/. */
const ownTables: readonly (readonly [family: string, name: string])[] = [
  ['ip', 'stevedore'],
  ['ip6', 'stevedore'],
  ['inet', 'stevedore'],
];

const isMissing = (error: unknown): boolean =>
  (error instanceof NetfilterError && error.code === 'missing') ||
  (error instanceof ExecError && error.code === 'not-found');

/** The iptables rules of both kinds of iptables and both families; see cleanupIptables. Returns what could not be removed, a line each. */
async function cleanupIptablesRules(
  deps: CleanupDeps,
  signal: AbortSignal,
  only?: ReadonlySet<string>,
): Promise<string[]> {
  const failures: string[] = [];
  for (const family of ipFamilies)
    for (const variant of variants)
      try {
        const tool = await iptablesOf(deps.exec, family, variant);
        // Reading a table with the legacy tool would create it.
        if (variant === 'legacy' && !(await legacyIsUsed(deps.exec, family === 'IPv4' ? 'ip' : 'ip6'))) continue;
        await cleanupIptables(tool, deps.clock, signal, only);
      } catch (error) {
        if (isMissing(error)) continue;
        failures.push(`iptables (${variant}) of ${family}: ${describeError(error)}`);
      }
  return failures;
}

async function legacyIsUsed(exec: Exec, family: 'ip' | 'ip6'): Promise<boolean> {
  const { stdout } = await exec('cat', [`/proc/net/${family}_tables_names`]).catch(() => ({ stdout: '' }));
  return stdout.includes('nat') || stdout.includes('filter');
}

async function deleteTables(
  deps: CleanupDeps,
  tables: readonly (readonly [string, string])[],
  signal: AbortSignal,
): Promise<string[]> {
  const failures: string[] = [];
  for (const [family, name] of tables)
    try {
      await deps.exec('nft', ['delete', 'table', family, name], { signal });
      deps.log.info('removed an nftables table', { family, table: name });
    } catch (error) {
      const absent = error instanceof ExecError && /No such file or directory/.test(error.stderr);
      if (!absent && !isMissing(error)) failures.push(`nftables table ${family} ${name}: ${describeError(error)}`);
    }
  return failures;
}

const cleanupIpvsMode = (deps: CleanupDeps, signal: AbortSignal): Promise<string[]> =>
  cleanupIpvs({ ...deps, isMissing, removeChains: () => cleanupIptablesRules(deps, signal, ipvsChains) }, signal);

/** Removes the rules; returns what could not be removed, a line each. */
export async function cleanupProxy(
  deps: CleanupDeps,
  options: CleanupOptions,
  signal: AbortSignal,
): Promise<readonly string[]> {
  return [
    ...(await cleanupIptablesRules(deps, signal)),
    ...((options.ours ?? true) ? await deleteTables(deps, ownTables, signal) : []),
    ...(options.kubeProxy ? await deleteTables(deps, kubeProxyTables, signal) : []),
    ...(options.kubeProxy ? await cleanupIpvsMode(deps, signal) : []),
  ];
}

/**
 * Takes away what another mode left, ours or that of a kube-proxy which has ended, once the new rules are in place. The chains of kube-proxy's
 * iptables mode are ours on iptables; its table of nftables never is.
 */
export async function cleanupOtherMode(
  deps: CleanupDeps,
  mode: 'iptables' | 'nftables',
  signal: AbortSignal,
): Promise<readonly string[]> {
  return [
    ...(mode === 'nftables' ? await cleanupIptablesRules(deps, signal) : await deleteTables(deps, ownTables, signal)),
    ...(await deleteTables(deps, kubeProxyTables, signal)),
    ...(await cleanupIpvsMode(deps, signal)),
  ];
}
