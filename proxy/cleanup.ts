// Takes Service rules out of the kernel: our own, and what a kube-proxy left in any of its modes. Nothing else is touched.
import type { Clock } from '../lib/clock.ts';
import { ExecError } from '../lib/exec.ts';
import { describeError, type Log } from '../lib/log.ts';
import { ipFamilies } from './addresses.ts';
import { NetfilterError } from './backend.ts';
import { cleanupIptables } from './iptables/cleanup.ts';
import { ipvsChains } from './iptables/names.ts';
import { type Exec, iptablesOf, type Variant } from './iptables/tool.ts';

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

/** The ipset sets of kube-proxy's IPVS mode; those of IPv6 have a 6 in their names. */
const ipvsSet =
  /^KUBE-(?:6-)?(?:LOOP-BACK|CLUSTER-IP|EXTERNAL-IP|LOAD-BALANCER|LOAD-BALANCER-(?:LOCAL|FW|SOURCE-IP|SOURCE-CIDR)|EXTERNAL-IP-LOCAL|NODE-PORT-(?:LOCAL-)?(?:TCP|UDP|SCTP-HASH)|HEALTH-CHECK-NODE-PORT|IPVS-IPS)$/;

async function destroySets(deps: CleanupDeps, signal: AbortSignal): Promise<void> {
  const { stdout } = await deps.exec('ipset', ['list', '-name'], { signal });
  for (const set of stdout.split('\n').filter((name) => ipvsSet.test(name)))
    await deps.exec('ipset', ['destroy', set], { signal });
}

// kube-proxy's IPVS mode keeps its virtual addresses on this device; with it go the addresses, with the table the virtual servers. Where
// there is none, that mode did not run here.
async function cleanupIpvs(deps: CleanupDeps, signal: AbortSignal): Promise<string[]> {
  const there = await deps.exec('ip', ['link', 'show', 'kube-ipvs0'], { signal }).then(
    () => true,
    () => false,
  );
  if (!there) return [];
  const failures = await cleanupIptablesRules(deps, signal, ipvsChains);
  const unlessMissing = (error: unknown): void => {
    if (!isMissing(error)) throw error;
  };
  try {
    await deps.exec('ip', ['link', 'delete', 'kube-ipvs0'], { signal });
    deps.log.info('removed the device of the IPVS mode', { device: 'kube-ipvs0' });
    await deps.exec('ipvsadm', ['-C'], { signal }).catch(unlessMissing);
    await destroySets(deps, signal).catch(unlessMissing);
    return failures;
  } catch (error) {
    return [...failures, `IPVS: ${describeError(error)}`];
  }
}

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
    ...(options.kubeProxy ? await cleanupIpvs(deps, signal) : []),
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
    ...(await cleanupIpvs(deps, signal)),
  ];
}
