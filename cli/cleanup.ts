// `stevedore cleanup`: takes our Service rules out of the kernel, and what a kube-proxy left with --kube-proxy. Nothing else is touched.
import type { Command } from 'commander';
import { systemClock } from '../lib/clock.ts';
import { exec } from '../lib/exec.ts';
import { createLog } from '../lib/log.ts';
import { cleanupProxy } from '../proxy/cleanup.ts';
import { createKubeProxyDetector } from '../proxy/kube-proxy-detector.ts';
import { askNode } from './node-socket.ts';

const defaultSocket = '/run/stevedore/stevedore.sock';

interface CleanupFlags {
  readonly socket: string;
  readonly kubeProxy?: boolean;
  readonly force?: boolean;
}

export function registerCleanup(program: Command): void {
  program
    .command('cleanup')
    .description('remove our Service rules (iptables chains, nftables tables) from the kernel, and nothing else')
    .option('--kube-proxy', 'remove what a kube-proxy left too: its nftables tables and IPVS servers')
    .option('--force', 'even while a daemon runs that would write them again')
    .option('--socket <path>', 'the daemon’s socket', defaultSocket)
    .action(async (flags: CleanupFlags) => {
      const why = flags.force ? undefined : await whyNot(flags.socket);
      if (why !== undefined) {
        process.stderr.write(`stevedore: ${why}\n`);
        process.exitCode = 1;
        return;
      }
      const log = createLog({ level: 'info', format: 'text' });
      const left = await cleanupProxy(
        { exec, clock: systemClock, log },
        { kubeProxy: flags.kubeProxy ?? false },
        AbortSignal.timeout(120_000),
      );
      for (const line of left) process.stderr.write(`stevedore: not removed: ${line}\n`);
      if (left.length > 0) process.exitCode = 1;
      else process.stdout.write('our Service rules are gone from this host\n');
    });
}

/** Who would write the rules again, or still needs them. */
async function whyNot(socket: string): Promise<string | undefined> {
  const daemon = await askNode<{ pid: number; proxy?: unknown }>(socket, '/status').catch(() => undefined);
  if (daemon?.proxy !== undefined)
    return `the daemon (pid ${daemon.pid}) serves Services with these rules; stop it first, or use --force`;
  const found = await createKubeProxyDetector()();
  if (found !== undefined)
    return `a kube-proxy runs on this host (${found}) and its chains bear the same names; stop it first, or use --force`;
  return undefined;
}
