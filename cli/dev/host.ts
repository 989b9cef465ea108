// The host: whether it has what is needed, its bridge, its forwarding.
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exec } from '../../lib/exec.ts';

export const bridgeName = 'stevedore0';

const pluginFolders = ['/opt/cni/bin', '/usr/lib/cni', '/usr/libexec/cni'];

const onPath = (name: string): string | undefined =>
  [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin', '/usr/bin']
    .map((folder) => join(folder, name))
    .find((path) => existsSync(path));

export interface HostTools {
  readonly containerd: string;
  readonly ctr: string;
  readonly cniBin: string;
}

/** Throws one error that names all that is missing. */
export function checkHost(ownContainerd: boolean): HostTools {
  if (process.getuid?.() !== 0)
    throw new Error('stevedore dev needs root: it starts containers and writes Service rules. Run it with sudo');
  const cniBin = pluginFolders.find((folder) =>
    ['bridge', 'host-local', 'portmap', 'loopback'].every((name) => existsSync(join(folder, name))),
  );
  const names = [...(ownContainerd ? ['containerd', 'ctr', 'runc'] : []), 'iptables', 'ip', 'conntrack'];
  const missing = [
    ...names.filter((name) => !onPath(name)),
    ...(cniBin || !ownContainerd ? [] : [`the CNI plugins (in ${pluginFolders.join(' or ')})`]),
  ];
  if (missing.length > 0)
    throw new Error(`missing on this host: ${missing.join(', ')}. scripts/setup.sh installs them, as root, with apt`);
  return {
    containerd: onPath('containerd') ?? 'containerd',
    ctr: onPath('ctr') ?? 'ctr',
    cniBin: cniBin ?? pluginFolders[0]!,
  };
}

/** Without CAP_SYS_RESOURCE a lower oom_score_adj is refused, and with it every sandbox. */
export async function mayLowerOomScore(): Promise<boolean> {
  const status = await readFile('/proc/self/status', 'utf8');
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  return (effective & (1n << 24n)) !== 0n;
}

// A bridge without a port has no carrier, and its address is then not seen as one of the host's. This pair is a port that stays.
const carrier = ['stevedore0-port', 'stevedore0-end'] as const;

const linkExists = (name: string): Promise<boolean> =>
  exec('ip', ['link', 'show', name]).then(
    () => true,
    () => false,
  );

/**
 * Makes the pods' bridge with its address, so that the control plane has where to listen before the first pod. Services are routed to it too: what
 * no rule redirects stays on this machine.
 */
export async function makeBridge(address: string, prefix: number, serviceCidr: string): Promise<void> {
  if (!(await linkExists(bridgeName))) await exec('ip', ['link', 'add', bridgeName, 'type', 'bridge']);
  if (!(await linkExists(carrier[0])))
    await exec('ip', ['link', 'add', carrier[0], 'type', 'veth', 'peer', 'name', carrier[1]]);
  await exec('ip', ['link', 'set', carrier[0], 'master', bridgeName]);
  await exec('ip', ['address', 'replace', `${address}/${prefix}`, 'dev', bridgeName]);
  for (const name of [...carrier, bridgeName, 'lo']) await exec('ip', ['link', 'set', name, 'up']);
  await exec('ip', ['route', 'replace', serviceCidr, 'dev', bridgeName, 'src', address]);
}

export async function removeBridge(): Promise<void> {
  for (const name of [carrier[0], bridgeName]) await exec('ip', ['link', 'delete', name]).catch(() => undefined);
}

/** Forwarding, and bridged packets through iptables, without which a pod cannot reach itself through a Service. Returns what could not be set. */
export async function allowForwarding(): Promise<string[]> {
  await exec('modprobe', ['br_netfilter']).catch(() => undefined);
  const wanted = ['/proc/sys/net/ipv4/ip_forward', '/proc/sys/net/bridge/bridge-nf-call-iptables'];
  const failed: string[] = [];
  for (const path of wanted) {
    if ((await readFile(path, 'utf8').catch(() => '')).trim() === '1') continue;
    await writeFile(path, '1').catch(() => failed.push(path.slice('/proc/sys/'.length).replaceAll('/', '.')));
  }
  return failed;
}

export async function writeNetwork(folder: string, podCidr: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  const network = {
    cniVersion: '1.0.0',
    name: 'stevedore-dev',
    plugins: [
      {
        type: 'bridge',
        bridge: bridgeName,
        isGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          dataDir: '/run/stevedore-dev/ipam',
          ranges: [[{ subnet: podCidr }]],
          routes: [{ dst: '0.0.0.0/0' }],
        },
      },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
    ],
  };
  await writeFile(join(folder, '10-stevedore-dev.conflist'), `${JSON.stringify(network, null, 2)}\n`);
}
