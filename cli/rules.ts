// `stevedore rules [SERVICE]`: what is programmed for Services, endpoint by endpoint, asked of the daemon on this host, which reads it from
// the kernel; and `--trace SRC DST:PORT`, which reads the rules itself and needs no daemon.
import type { Command } from 'commander';
import { exec } from '../lib/exec.ts';
import { systemClock } from '../lib/clock.ts';
import { createSlices } from '../lib/slices.ts';
import { parseIp } from '../proxy/addresses.ts';
import type { RuleLine, RulesDescription } from '../proxy/backend.ts';
import { parseIptables, tracePacketIptables } from '../proxy/iptables/trace.ts';
import { parseListing } from '../proxy/nftables/listing.ts';
import { tracePacket } from '../proxy/nftables/trace.ts';
import { type Trace, type TracedPacket, traceText } from '../proxy/trace.ts';
import { askNode } from './node-socket.ts';

const defaultSocket = '/run/stevedore/stevedore.sock';

interface RulesFlags {
  readonly socket: string;
  readonly json?: boolean;
  readonly diff?: boolean;
  readonly trace?: readonly string[];
}

export function registerRules(program: Command): void {
  program
    .command('rules')
    .description('what is programmed in the kernel for Services, with counters')
    .argument('[service]', 'name or namespace/name; all Services where none is given')
    .option('--diff', 'print only what differs between what is wanted and the kernel; exit 1 where something does')
    .option('--trace <SRC DST:PORT...>', 'walk a packet over the rules: --trace 10.0.0.7 10.96.0.1:443[/udp]')
    .option('--socket <path>', 'the daemon’s socket', defaultSocket)
    .option('--json', 'print JSON')
    .action(async (service: string | undefined, flags: RulesFlags) => {
      try {
        process.stdout.write(flags.trace ? await runTrace(flags.trace, flags) : await runRules(service, flags));
      } catch (error) {
        process.stderr.write(`stevedore: ${error instanceof Error ? error.message : String(error)}\n`);
        process.exitCode = 1;
      }
    });
}

async function runRules(service: string | undefined, flags: RulesFlags): Promise<string> {
  const key = service === undefined ? undefined : service.includes('/') ? service : `default/${service}`;
  const path = key === undefined ? '/rules' : `/rules/${key.split('/').map(encodeURIComponent).join('/')}`;
  const found = await askNode<readonly RulesDescription[]>(flags.socket, path);
  if (key !== undefined && found.length === 0)
    throw new Error(`no Service ${key} is programmed on this node: it may be headless, ExternalName, or not exist`);
  if (flags.diff && found.some(({ missing, surplus }) => missing.length + surplus.length > 0)) process.exitCode = 1;
  if (flags.json) return `${JSON.stringify(flags.diff ? found.map(differenceOf) : found, null, 2)}\n`;
  return flags.diff ? diffText(found) : rulesText(found);
}

const differenceOf = ({ family, key, missing, surplus }: RulesDescription) => ({ family, key, missing, surplus });

const lineText = ({ table, chain, rule, packets, bytes }: RuleLine): string =>
  `${table} ${chain}  ${rule}${packets === undefined ? '' : `  (${packets} packets, ${bytes ?? 0} bytes)`}`;

export function rulesText(found: readonly RulesDescription[]): string {
  const lines: string[] = [];
  for (const { key, family, kernel, missing, surplus } of found) {
    lines.push(`${key} (${family})`, ...kernel.map((line) => `  ${lineText(line)}`));
    lines.push(...missing.map((line) => `  MISSING ${lineText(line)}`));
    lines.push(...surplus.map((line) => `  SURPLUS ${lineText(line)}`));
  }
  return lines.length > 0 ? `${lines.join('\n')}\n` : 'no Service is programmed on this node\n';
}

export function diffText(found: readonly RulesDescription[]): string {
  const lines = found.flatMap(({ key, family, missing, surplus }) =>
    missing.length + surplus.length === 0
      ? []
      : [
          `${key} (${family})`,
          ...missing.map((line) => `  - wanted, not in the kernel: ${lineText(line)}`),
          ...surplus.map((line) => `  + in the kernel, not wanted: ${lineText(line)}`),
        ],
  );
  return lines.length > 0 ? `${lines.join('\n')}\n` : 'the kernel holds exactly what is wanted\n';
}

/** `10.96.0.1:443`, `[fd00::1]:443`, either with `/tcp`, `/udp` or `/sctp`. */
export function parseDestination(text: string): Pick<TracedPacket, 'destination' | 'port' | 'protocol'> {
  const [, bracketed, bare, port, protocol = 'tcp'] =
    /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})(?:\/(tcp|udp|sctp))?$/.exec(text) ?? [];
  const destination = parseIp(bracketed ?? bare ?? '')?.text;
  if (destination === undefined || Number(port) > 65_535)
    throw new Error(
      `${text} is no destination: give ADDRESS:PORT or [ADDRESS]:PORT, with /udp or /sctp if it is not TCP`,
    );
  return { destination, port: Number(port), protocol: protocol as TracedPacket['protocol'] };
}

async function runTrace(words: readonly string[], flags: RulesFlags): Promise<string> {
  const [from, to] = words;
  const source = parseIp(from ?? '');
  if (!source || to === undefined || words.length !== 2)
    throw new Error('--trace takes two words: the source address, and the destination as ADDRESS:PORT');
  const target = parseDestination(to);
  if (target.destination.includes(':') !== (source.family === 'IPv6'))
    throw new Error(`${source.text} and ${target.destination} are not of one IP family`);
  const local = await localAddresses();
  const packet: TracedPacket = {
    ...target,
    family: source.family,
    source: source.text,
    sourceIsLocal: local.has(source.text),
    destinationIsLocal: local.has(target.destination),
    inInterface: local.has(source.text) ? '' : await interfaceTo(source.text),
  };
  const traces = await traceBoth(packet);
  if (flags.json) return `${JSON.stringify({ packet, ...traces.chosen, backend: traces.backend }, null, 2)}\n`;
  return `through ${traces.backend}: ${traceText(packet, traces.chosen)}`;
}

async function localAddresses(): Promise<ReadonlySet<string>> {
  const { stdout } = await exec('ip', ['-j', 'addr', 'show']);
  const links = JSON.parse(stdout) as { addr_info?: { local?: string }[] }[];
  return new Set(
    links.flatMap(({ addr_info = [] }) => addr_info.flatMap(({ local }) => parseIp(local ?? '')?.text ?? [])),
  );
}

/** The interface its packets would come in by: the one that leads to it. */
async function interfaceTo(address: string): Promise<string> {
  const { stdout } = await exec('ip', ['-j', 'route', 'get', address]).catch(() => ({ stdout: '[]' }));
  return (JSON.parse(stdout) as { dev?: string }[])[0]?.dev ?? '';
}

async function traceBoth(packet: TracedPacket): Promise<{ backend: 'nftables' | 'iptables'; chosen: Trace }> {
  const family = packet.family === 'IPv4' ? 'ip' : 'ip6';
  const listed = await exec('nft', ['list', 'table', family, 'stevedore'], { maxOutputBytes: 2 ** 30 }).catch(
    () => undefined,
  );
  if (listed) {
    const ruleset = await parseListing(listed.stdout, createSlices(systemClock));
    return { backend: 'nftables', chosen: tracePacket(ruleset, packet) };
  }
  const command = packet.family === 'IPv4' ? 'iptables-save' : 'ip6tables-save';
  const { stdout } = await exec(command, [], { maxOutputBytes: 2 ** 30 });
  return { backend: 'iptables', chosen: tracePacketIptables(parseIptables(stdout), packet) };
}
