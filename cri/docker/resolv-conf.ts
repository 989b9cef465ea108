// A sandbox's resolv.conf. Docker makes one of the host's and leaves name servers on loopback out of it; Kubernetes says what is in it.
import { readFile, writeFile } from 'node:fs/promises';
import type { SandboxConfig } from '../types.ts';

export function resolvConf(dns: NonNullable<SandboxConfig['dns']>): string {
  const lines = [
    ...(dns.searches.length > 0 ? [`search ${dns.searches.join(' ')}`] : []),
    ...dns.servers.map((server) => `nameserver ${server}`),
    ...(dns.options.length > 0 ? [`options ${dns.options.join(' ')}`] : []),
  ];
  return lines.map((line) => `${line}\n`).join('');
}

/** In place: the file is mounted already. Nothing said means the host's own. */
export async function writeResolvConf(path: string, dns: SandboxConfig['dns'], host: string): Promise<void> {
  const text = dns ? resolvConf(dns) : '';
  await writeFile(path, text === '' ? await readFile(host, 'utf8').catch(() => '') : text);
}
