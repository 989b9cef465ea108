// Which backend a mode means, and how it is opened on this host. The one place that names concrete backends.
import type { Clock } from '../lib/clock.ts';
import { startConversation } from '../lib/converse.ts';
import { exec as runExec, findProgram } from '../lib/exec.ts';
import { followLines } from '../lib/follow.ts';
import type { Log } from '../lib/log.ts';
import { listensToGroup, netfilterProtocol, nftablesGroup } from '../lib/netlink-listeners.ts';
import type { IpFamily } from './addresses.ts';
import type { RulesBackend } from './backend.ts';
import type { KubeProxyConfiguration } from './config.ts';
import { createForeignWatch } from './iptables/foreign.ts';
import { createIptablesBackend } from './iptables/iptables-backend.ts';
import { type Exec, findIptables } from './iptables/tool.ts';
import { openNftables } from './nftables/open.ts';
import { checkNftables } from './nftables/supported.ts';
import { createNftMonitor, type NftMonitor } from './nft-monitor.ts';
import type { Converse } from './staying-tool.ts';

export type BackendKind = RulesBackend['kind'];

export interface BackendContext {
  readonly clock: Clock;
  readonly log: Log;
  readonly exec: Exec;
  readonly monitor: NftMonitor;
  /** Starts a tool that stays and answers. */
  readonly converse?: Converse;
  /** A folder for what a stopped backend leaves to the next one; emptied by a reboot, as the rules are. */
  readonly stateDir?: string | undefined;
}

export interface BackendContextOptions {
  /** A command line put before every tool's own, for example `nsenter --net=… --`; for tests. */
  readonly enter?: readonly string[];
  /** See BackendContext. */
  readonly stateDir?: string | undefined;
}

/** How many transactions of nf_tables the tool makes of what it is given; what is given nothing only reads. */
export function transactionsIn(tool: string, input: string | Uint8Array | undefined): number {
  if (input === undefined) return 0;
  const text = typeof input === 'string' ? input : Buffer.from(input).toString('latin1');
  if (!tool.endsWith('-restore')) return text.startsWith('describe ') ? 0 : 1;
  return text.match(/^COMMIT$/gm)?.length ?? 0;
}

/** Tools as this host has them, run so that the monitor knows which transactions are ours. */
export function createBackendContext(clock: Clock, log: Log, options: BackendContextOptions = {}): BackendContext {
  const [first, ...rest] = options.enter ?? [];
  const entered = (command: string, args: readonly string[]): [string, readonly string[]] =>
    first === undefined ? [command, args] : [first, [...rest, command, ...args]];
  // However this process ends, the monitor ends with it: it reads nothing that would tell it.
  const bound = findProgram('nft') !== undefined && findProgram('setpriv') !== undefined;
  const [command, args] = bound
    ? entered('setpriv', ['--pdeathsig', 'TERM', 'nft', 'monitor'])
    : entered('nft', ['monitor']);
  const monitor = createNftMonitor({
    clock,
    log,
    follow: followLines,
    command: [command, ...args],
    listens: (pid) => listensToGroup(pid, netfilterProtocol, nftablesGroup),
  });
  const exec: Exec = async (name, given, execOptions) => {
    monitor.ownBegins(transactionsIn(name, execOptions?.input));
    try {
      return await runExec(...entered(name, given), { ...execOptions, onSpawn: (pid) => monitor.noteOwn(pid) });
    } finally {
      monitor.ownEnds();
    }
  };
  const converse: Converse = (name, given, converseOptions) => {
    const conversation = startConversation(...entered(name, given), converseOptions);
    return {
      pid: conversation.pid,
      get ended() {
        return conversation.ended;
      },
      async ask(text, mark, askOptions) {
        monitor.ownBegins(transactionsIn(name, text));
        if (conversation.pid !== undefined) monitor.noteOwn(conversation.pid);
        try {
          return await conversation.ask(text, mark, askOptions);
        } finally {
          monitor.ownEnds();
        }
      },
      end: () => conversation.end(),
    };
  };
  return { clock, log, exec, monitor, converse, stateDir: options.stateDir };
}

/** iptables unless another is asked for; `auto` takes nftables where kernel and tool can, and ipvs, which is not here, becomes nftables. */
export async function chooseKind(
  mode: KubeProxyConfiguration['mode'],
  canNftables: () => Promise<boolean>,
): Promise<BackendKind> {
  switch (mode) {
    case '':
    case 'iptables':
      return 'iptables';
    case 'nftables':
    case 'ipvs':
      return 'nftables';
    case 'auto':
      return (await canNftables()) ? 'nftables' : 'iptables';
  }
}

/** Rejects with a NetfilterError of code `missing` where the host has no such tool. */
export async function openBackend(kind: BackendKind, family: IpFamily, context: BackendContext): Promise<RulesBackend> {
  const { clock, log, exec, monitor } = context;
  switch (kind) {
    case 'iptables': {
      const tool = await findIptables(exec, family, context.converse);
      log.info('the rules are written with iptables', { family, variant: tool.variant, version: tool.version });
      return createIptablesBackend({ tool, clock, watchForeign: createForeignWatch({ tool, clock, log, monitor }) });
    }
    case 'nftables':
      await checkNftables(exec, family);
      return openNftables(family, context);
  }
}
