// Every metric of the kubelet's half is fed where the thing happens, declared once, and told of in docs/metrics.md.
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createCertificateMetrics } from '../agent/server/certificate-metrics.ts';
import { createKubeletMetrics } from '../agent/server/kubelet-metrics.ts';
import { createRestMetrics } from '../agent/server/rest-metrics.ts';
import { createRegistry } from '../lib/metrics.ts';

const root = resolve(import.meta.dirname, '..');
const table = 'agent/server/kubelet-metrics.ts';

function sources(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === 'gen' ? [] : sources(path);
    return entry.name.endsWith('.ts') && !entry.name.endsWith('.test.ts') ? [path] : [];
  });
}

const files = ['agent', 'cli', 'kube', 'lib']
  .flatMap(sources)
  .filter((path) => relative(root, path) !== table && path !== table)
  .map((path) => ({ path, text: readFileSync(join(root, path), 'utf8') }));

const registry = createRegistry();
const metrics = createKubeletMetrics(registry);

describe('metrics', () => {
  it.each(Object.keys(metrics))('%s is fed', (key) => {
    // `metrics.key.inc(`, `counts.key.observe(`, or handed to a room that feeds it: `collected: deps.metrics.key,`
    const feeds = new RegExp(`(metrics|counts)\\s*\\??\\.${key}(\\s*\\??\\.(inc|dec|set|observe|reset)\\(|,|\\))`);
    const pair = new RegExp(
      `\\b(metrics|counts)\\.${key}\\s*:\\s*(deps\\.)?(metrics|counts)\\.\\w+\\)\\.(inc|observe)`,
    );
    const other = new RegExp(`\\? (deps\\.)?metrics\\.${key} : (deps\\.)?metrics\\.\\w+\\)\\.(inc|observe)`);
    const by = files
      .filter(({ text }) => feeds.test(text) || pair.test(text) || other.test(text))
      .map(({ path }) => path);
    expect(by).not.toEqual([]);
  });

  it('are declared in one place each', () => {
    const elsewhere = files.flatMap(({ path, text }) =>
      [...registry.getMetricsAsArray()]
        .filter(({ name }) => text.includes(`name: '${name}'`))
        .map(({ name }) => `${name} in ${path}`),
    );
    expect(elsewhere).toEqual([]);
  });

  it('are in docs/metrics.md, and what is there is one', () => {
    createRestMetrics(registry);
    for (const what of ['client', 'server'] as const)
      createCertificateMetrics(registry, { what, nowMs: () => 0, expiresAtMs: () => undefined });
    const doc = readFileSync(join(root, 'docs/metrics.md'), 'utf8');
    const section = doc.slice(doc.indexOf('## /metrics\n'), doc.indexOf('A series appears once'));
    const told = new Set<string>();
    for (const [, first = ''] of section.matchAll(/^\| (`.*?) \|/gm)) {
      let stem = '';
      for (const [, name = ''] of first.matchAll(/`([^`]+)`/g)) {
        if (name.startsWith('…')) told.add(`${stem.replace(/_total$/, '')}${name.slice(1)}`);
        else {
          told.add(name);
          stem = name;
        }
      }
    }
    const names = registry.getMetricsAsArray().map(({ name }) => name);
    expect(names.filter((name) => !told.has(name))).toEqual([]);
    const others = /^(process_|nodejs_|kubelet_volume_stats_)/;
    expect([...told].filter((name) => !names.includes(name) && !others.test(name))).toEqual([]);
  });
});
