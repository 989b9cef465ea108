// What the kernel's rules do with each address and port of a Service, read from what the tools print: not by the code that wrote them.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LabHost } from '../lab/netns.ts';

/** By `10.96.0.1 tcp 80` or `node tcp 30000`: the endpoints, sorted, with blanks between; or `refused` or `dropped`. */
export type View = Map<string, string>;

export interface KernelView {
  readonly fronts: View;
  /** What leads nowhere or is led to by nothing. */
  readonly leftovers: string[];
}

const maxOutputBytes = 2 ** 30;

/** Follows the jumps of iptables. */
export async function viewIptables(host: LabHost): Promise<KernelView> {
  const { stdout } = await host.exec('iptables-save', [], { maxOutputBytes });
  const rules = new Map<string, string[]>();
  let table = '';
  for (const line of stdout.split('\n')) {
    if (line.startsWith('*')) table = line.slice(1);
    const name = /^(?::|-A )(\S+)/.exec(line)?.[1];
    if (name === undefined) continue;
    const key = `${table} ${name}`;
    const list = rules.get(key) ?? [];
    rules.set(key, list);
    if (line.startsWith('-A')) list.push(line);
  }
  const used = new Set<string>();
  const jumpOf = (line: string): string => /-j (\S+)/.exec(line)?.[1] ?? '';
  const endpointsOf = (chain: string): string[] => {
    used.add(chain);
    return (rules.get(`nat ${chain}`) ?? []).flatMap((line) => {
      const to = /--to-destination (\S+)/.exec(line)?.[1];
      const next = jumpOf(line);
      return to === undefined ? (/^KUBE-(SVC|SVL|SEP)-/.test(next) ? endpointsOf(next) : []) : [to];
    });
  };
  const fronts: View = new Map();
  const frontOf = (line: string): string | undefined => {
    const port = /--dport (\d+)/.exec(line)?.[1];
    const protocol = /-p (\S+)/.exec(line)?.[1];
    const ip = /-d ([\d.]+)\/32/.exec(line)?.[1] ?? 'node';
    return port === undefined ? undefined : `${ip} ${protocol} ${port}`;
  };
  for (const chain of ['KUBE-SERVICES', 'KUBE-NODEPORTS'])
    for (const line of rules.get(`nat ${chain}`) ?? []) {
      const front = frontOf(line);
      if (front !== undefined) fronts.set(front, [...new Set(endpointsOf(jumpOf(line)))].sort().join(' '));
    }
  for (const chain of ['KUBE-SERVICES', 'KUBE-EXTERNAL-SERVICES'])
    for (const line of rules.get(`filter ${chain}`) ?? []) {
      const front = frontOf(line);
      if (front !== undefined) fronts.set(front, jumpOf(line) === 'DROP' ? 'dropped' : 'refused');
    }
  const leftovers = [...rules.keys()]
    .map((key) => key.split(' ')[1]!)
    .filter((chain) => /^KUBE-(SVC|SVL|SEP|EXT|FW)-/.test(chain) && !used.has(chain));
  return { fronts, leftovers };
}

/** Follows the maps of nftables. */
export async function viewNftables(host: LabHost): Promise<KernelView> {
  // Through a file: nft writes line by line, which through a pipe takes longer than the listing.
  const folder = await mkdtemp(join(tmpdir(), 'soak-nft-'));
  const file = join(folder, 'list');
  await host.exec('sh', ['-c', 'nft list table ip stevedore > "$0"', file]);
  const stdout = await readFile(file, 'utf8');
  await rm(folder, { recursive: true });
  const maps = new Map<string, Map<string, string>>();
  for (const [, name, body] of stdout.matchAll(/\n\t(?:map|set) (\S+) \{\n([\s\S]*?)\n\t\}/g)) {
    const [, elements = ''] = body!.split('elements = {');
    const entries = elements
      .replace('}', '')
      .split(',')
      .map((text) => text.replace(/ counter packets \d+ bytes \d+/, '').trim())
      .filter((text) => text !== '')
      .map((text): [string, string] => {
        const [key = '', value = ''] = text.split(' : ');
        return [key, value];
      });
    maps.set(name!, new Map(entries));
  }
  const fronts: View = new Map();
  const rows = new Map<string, number>();
  for (const suffix of ['', '-node'] as const) {
    const verdicts = maps.get(`svc${suffix}`) ?? new Map<string, string>();
    const nameOf = (key: string): string => (suffix === '' ? key : `node . ${key}`).replaceAll(' . ', ' ');
    for (const [key, verdict] of verdicts) {
      const words = key.split(' . ');
      const protocol = suffix === '' ? words[1] : words[0];
      const row = suffix === '' ? `${words[0]} . ${words[2]}` : words[1];
      const count = Number(/-(\d+)(?:-sticky)?$/.exec(verdict)?.[1]);
      const map = `eps${suffix}-${protocol}`;
      const endpoints = Array.from({ length: count }, (_, at) => maps.get(map)?.get(`${row} . ${at}`) ?? 'missing');
      rows.set(map, (rows.get(map) ?? 0) + count);
      fronts.set(
        nameOf(key),
        endpoints
          .map((text) => text.replace(' . ', ':'))
          .sort()
          .join(' '),
      );
    }
    for (const [key, verdict] of maps.get(`guard${suffix}`) ?? [])
      if (!verdicts.has(key)) fronts.set(nameOf(key), verdict === 'drop' ? 'dropped' : 'refused');
  }
  const leftovers = [...maps]
    .filter(([name]) => name.startsWith('eps'))
    .flatMap(([name, elements]) =>
      elements.size === (rows.get(name) ?? 0)
        ? []
        : [`${name}: ${elements.size} elements, ${rows.get(name) ?? 0} used`],
    );
  return { fronts, leftovers };
}
