// nft in memory, for tests: keeps tables as the kernel does, refuses what the kernel refuses, and lists them as nft prints them.
import { NetfilterError } from '../backend.ts';
import { printed } from './chains.ts';
import type { NftTool } from './tool.ts';

interface FakeMap {
  readonly kind: string;
  readonly lines: readonly string[];
  readonly elements: Map<string, string>;
}

interface FakeChain {
  readonly hook: string | undefined;
  rules: string[];
}

interface FakeTable {
  readonly maps: Map<string, FakeMap>;
  readonly chains: Map<string, FakeChain>;
}

export interface FakeNft extends NftTool {
  readonly tables: ReadonlyMap<string, FakeTable>;
  /** Scripts that were run, failed ones too. */
  readonly scripts: string[];
  /** Scripts that match are refused, as nft refuses what it cannot read. */
  refuse: RegExp | undefined;
  /** The next so many scripts fail for no reason of theirs. */
  failNext: number;
  /** Elements of a map by key. */
  elements(table: string, map: string): ReadonlyMap<string, string>;
}

const missing = (what: string): NetfilterError => new NetfilterError('failed', `No such file or directory: ${what}`);
const used = (what: string): NetfilterError => new NetfilterError('failed', `Device or resource busy: ${what}`);

const copy = (table: FakeTable): FakeTable => ({
  maps: new Map([...table.maps].map(([name, map]) => [name, { ...map, elements: new Map(map.elements) }])),
  chains: new Map([...table.chains].map(([name, chain]) => [name, { ...chain, rules: [...chain.rules] }])),
});

const leadsTo = (text: string, name: string): boolean =>
  new RegExp(`(?:goto|jump) ${name}$|@${name}(?: |$)`).test(text);

function assertUnused(table: FakeTable, name: string): void {
  for (const [chain, { rules }] of table.chains)
    for (const rule of rules) if (leadsTo(rule, name)) throw used(`${name} (${chain}: ${rule})`);
  for (const [map, { elements }] of table.maps)
    for (const value of elements.values()) if (leadsTo(value, name)) throw used(`${name} (${map}: ${value})`);
}

function elementCommand(table: FakeTable, verb: string, name: string, body: string): void {
  const map = table.maps.get(name);
  if (!map) throw missing(`map ${name}`);
  for (const item of body.split(', ')) {
    const at = item.indexOf(' : ');
    const [key, value] = at < 0 ? [item, ''] : [item.slice(0, at), item.slice(at + 3)];
    if (verb === 'delete') {
      if (!map.elements.delete(key)) throw missing(`element ${name} ${key}`);
      continue;
    }
    const there = map.elements.get(key);
    if (there !== undefined && there !== value) throw new NetfilterError('failed', `File exists: ${name} ${key}`);
    const target = /^(?:goto|jump) (\S+)$/.exec(value)?.[1];
    if (target !== undefined && !table.chains.has(target)) throw missing(`chain ${target}`);
    map.elements.set(key, value);
  }
}

function chainCommand(table: FakeTable, verb: string, name: string, rest: string): void {
  if (verb === 'add') {
    const hook = /\{ (.*?);? \}/.exec(rest)?.[1];
    if (!table.chains.has(name)) table.chains.set(name, { hook, rules: [] });
    return;
  }
  const chain = table.chains.get(name);
  if (!chain) throw missing(`chain ${name}`);
  if (verb === 'flush') {
    chain.rules = [];
    return;
  }
  assertUnused(table, name);
  if (chain.rules.length > 0) throw used(`chain ${name} has rules`);
  table.chains.delete(name);
}

function mapCommand(table: FakeTable, verb: string, kind: string, name: string, rest: string): void {
  if (verb === 'delete') {
    if (!table.maps.has(name)) throw missing(`map ${name}`);
    assertUnused(table, name);
    table.maps.delete(name);
  } else if (verb === 'flush') {
    const map = table.maps.get(name);
    if (!map) throw missing(`map ${name}`);
    map.elements.clear();
  } else if (!table.maps.has(name)) {
    const lines = rest.replace(/^\{ |; \}$/g, '').split('; ');
    table.maps.set(name, { kind, lines, elements: new Map() });
  }
}

function runLine(tables: Map<string, FakeTable>, line: string): void {
  const [, verb = '', kind = '', family = '', tableName = '', name = '', rest = ''] =
    /^(\w+) (\w+) (ip6?) (\S+)(?: (\S+))?(?: (.*))?$/.exec(line) ?? [];
  const id = `${family} ${tableName}`;
  if (kind === 'table') {
    if (verb === 'delete' && !tables.delete(id)) throw missing(`table ${id}`);
    if (verb === 'add' && !tables.has(id)) tables.set(id, { maps: new Map(), chains: new Map() });
    return;
  }
  const table = tables.get(id);
  if (!table) throw missing(`table ${id}`);
  if (kind === 'element') elementCommand(table, verb, name, rest.slice(2, -2));
  else if (kind === 'chain') chainCommand(table, verb, name, rest);
  else if (kind === 'map' || kind === 'set') mapCommand(table, verb, kind, name, rest);
  else if (kind === 'rule') {
    const chain = table.chains.get(name);
    if (!chain) throw missing(`chain ${name}`);
    const [, , to] = /\b(goto|jump) (\S+)$/.exec(rest) ?? [];
    if (to !== undefined && !table.chains.has(to)) throw missing(`chain ${to}`);
    for (const [, map] of rest.matchAll(/@(\S+)/g)) if (!table.maps.has(map!)) throw missing(`map ${map}`);
    chain.rules.push(printed(rest));
  } else throw new NetfilterError('rejected', `syntax error: ${line}`);
}

function listTable(name: string, table: FakeTable): string {
  const blocks: string[] = [];
  for (const [map, { kind, lines, elements }] of table.maps) {
    const items = [...elements].map(([key, value]) => (value === '' ? key : `${key} : ${value}`));
    const listed = items.length > 0 ? [`elements = { ${items.join(',\n\t\t\t     ')} }`] : [];
    blocks.push(`\t${kind} ${map} {\n${[...lines, ...listed].map((line) => `\t\t${line}\n`).join('')}\t}\n`);
  }
  for (const [chain, { hook, rules }] of table.chains) {
    const lines = [...(hook === undefined ? [] : [`${hook}; policy accept;`]), ...rules];
    blocks.push(`\tchain ${chain} {\n${lines.map((line) => `\t\t${line}\n`).join('')}\t}\n`);
  }
  return `table ${name} {\n${blocks.join('\n')}}\n`;
}

export function createFakeNft(): FakeNft {
  const tables = new Map<string, FakeTable>();
  const fake: FakeNft = {
    tables,
    scripts: [],
    refuse: undefined,
    failNext: 0,
    begin: () => undefined,
    rest: () => undefined,
    elements: (table, map) => tables.get(table)?.maps.get(map)?.elements ?? new Map(),
    async run(script) {
      fake.scripts.push(script);
      if (fake.failNext > 0) {
        fake.failNext--;
        throw new NetfilterError('failed', 'told to fail');
      }
      if (fake.refuse?.test(script)) throw new NetfilterError('rejected', `refused: ${fake.refuse}`);
      const next = new Map([...tables].map(([name, table]) => [name, copy(table)]));
      for (const line of script.split('\n')) if (line !== '') runLine(next, line);
      tables.clear();
      for (const [name, table] of next) tables.set(name, table);
      await Promise.resolve();
    },
    list([what, family, name, map]) {
      if (what === 'chains') {
        const shown = [...tables].filter(([id]) => id.startsWith(`${family} `));
        return Promise.resolve(shown.map(([id, { chains }]) => listTable(id, { maps: new Map(), chains })).join(''));
      }
      const table = tables.get(`${family} ${name}`);
      if (!table || (map !== undefined && !table.maps.has(map))) return Promise.resolve(undefined);
      const shown = map === undefined ? table : { maps: new Map([[map, table.maps.get(map)!]]), chains: new Map() };
      return Promise.resolve(listTable(`${family} ${name}`, shown));
    },
  };
  return fake;
}
