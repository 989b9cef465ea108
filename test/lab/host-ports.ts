// Host ports of a CNI network whose containers were ended without CNI being told: their rules are taken out, nobody else's.
import type { ExecResult } from '../../lib/exec.ts';

type Run = (command: string, args: readonly string[]) => Promise<ExecResult>;

/** The chains of portmap's that belong to the network, in `iptables -t nat -S`'s output. Pure. */
export function hostPortChains(rules: string, network: string): string[] {
  const own = rules
    .split('\n')
    .filter((line) => line.startsWith('-A CNI-HOSTPORT-DNAT ') && line.includes(`name: \\"${network}\\"`));
  return [...new Set(own.flatMap((line) => /-j (CNI-DN-\S+)/.exec(line)?.[1] ?? []))];
}

/** The network's name is the bridge's. Shared chains of portmap's stay: other networks may use them. */
export async function removeHostPorts(run: Run, network: string): Promise<void> {
  for (const tool of ['iptables', 'ip6tables']) {
    const listed = await run(tool, ['-w', '-t', 'nat', '-S']).catch(() => undefined);
    if (!listed) continue;
    const chains = hostPortChains(listed.stdout, network);
    if (chains.length === 0) continue;
    const own = new Set(chains);
    for (const line of listed.stdout.split('\n').filter((text) => own.has(/-j (CNI-DN-\S+)/.exec(text)?.[1] ?? ''))) {
      const comment = /--comment "((?:[^"\\]|\\.)*)"/.exec(line)?.[1]?.replaceAll(String.raw`\"`, '"') ?? '';
      const words = line.replace(/--comment "(?:[^"\\]|\\.)*"/, '--comment @').split(' ');
      const args = words.slice(1).map((word) => (word === '@' ? comment : word));
      await run(tool, ['-w', '-t', 'nat', '-D', ...args]);
    }
    for (const chain of chains) {
      await run(tool, ['-w', '-t', 'nat', '-F', chain]);
      await run(tool, ['-w', '-t', 'nat', '-X', chain]);
    }
  }
}
