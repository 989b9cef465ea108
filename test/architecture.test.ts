// Holds the table of rooms in the design (docs/architecture.md) against every import, type imports too.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';

const root = resolve(import.meta.dirname, '..');
const rooms = ['lib', 'kube', 'cri', 'agent', 'proxy', 'devcluster', 'cli', 'test', 'bench'] as const;
type Room = (typeof rooms)[number];

const may: Record<Room, readonly Room[]> = {
  lib: [],
  kube: ['lib'],
  cri: ['lib'],
  agent: ['lib', 'kube', 'cri'],
  proxy: ['lib', 'kube'],
  devcluster: ['lib', 'kube'],
  cli: ['lib', 'kube', 'cri', 'agent', 'proxy', 'devcluster'],
  test: [...rooms],
  bench: [...rooms],
};

function sources(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'gen' || entry.name === 'node_modules' ? [] : sources(path);
    return entry.name.endsWith('.ts') ? [path] : [];
  });
}

function imports(file: string): string[] {
  const text = readFileSync(file, 'utf8');
  const found = [...text.matchAll(/(?:^|\n)\s*(?:import|export)\b[^;'"]*?from\s+['"]([^'"]+)['"]/g)];
  const bare = [...text.matchAll(/(?:^|\n)\s*import\s+['"]([^'"]+)['"]/g)];
  const dynamic = [...text.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)];
  return [...found, ...bare, ...dynamic].map((match) => match[1]!);
}

describe('architecture', () => {
  const files = rooms.flatMap((room) => sources(join(root, room)));

  it('reads the tree', () => {
    expect(files.length).toBeGreaterThan(10);
  });

  it('no room opens a door that the design does not give it', () => {
    const wrong: string[] = [];
    for (const file of files) {
      const from = relative(root, file);
      const room = from.split('/')[0] as Room;
      const isTest = from.endsWith('.test.ts');
      for (const specifier of imports(file)) {
        if (!specifier.startsWith('.')) continue;
        const target = relative(root, resolve(dirname(file), specifier));
        const targetRoom = target.split('/')[0] as Room;
        if (targetRoom === room || isTest) continue;
        if (!may[room].includes(targetRoom)) wrong.push(`${from} imports ${target}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('concrete runtimes are named only where things are wired', () => {
    const wrong = files
      .filter((file) => relative(root, file).startsWith('agent/') && !file.endsWith('.test.ts'))
      .flatMap((file) =>
        imports(file)
          .filter((specifier) => /\/cri\/(containerd|docker|fake)/.test(specifier))
          .map((specifier) => `${relative(root, file)} imports ${specifier}`),
      );
    expect(wrong).toEqual([]);
  });

  it('there are no default exports and no barrels', () => {
    const wrong = files.filter(
      (file) => /\/index\.ts$/.test(file) || /(^|\n)export default\b/.test(readFileSync(file, 'utf8')),
    );
    expect(wrong.map((file) => relative(root, file))).toEqual([]);
  });
});
