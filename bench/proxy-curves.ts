// Takes all points of the proxy's curves and draws them: `npm run bench:proxy`, as root, on a machine at rest. Each point is a process of its
// own, so that its memory is its own. `[--out docs/proxy-curves.svg] [--results proxy-curves.jsonl] [--services 1,100,1000,5000,10000,20000]`
import { spawnSync } from 'node:child_process';
import { appendFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: 'docs/proxy-curves.svg' },
    results: { type: 'string', default: 'proxy-curves.jsonl' },
    services: { type: 'string', default: '1,100,1000,5000,10000,20000' },
    /** With a hundred or fewer the 99th percentile would be the slowest of them. */
    changes: { type: 'string', default: '200' },
  },
});

const run = (file: string, args: readonly string[]): string => {
  const { stdout, status } = spawnSync(process.execPath, [join(import.meta.dirname, file), ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 2 ** 26,
  });
  if (status !== 0) throw new Error(`${file} ${args.join(' ')} ended with ${status}`);
  return stdout;
};

writeFileSync(values.results, '');
for (const mode of ['nftables', 'iptables'])
  for (const services of values.services.split(',')) {
    // What iptables does not load in a minute is recorded as unfinished, and so is what would be more.
    const limit = mode === 'iptables' ? '60' : '200';
    const point = run('proxy.ts', [
      '--mode',
      mode,
      '--services',
      services,
      '--changes',
      values.changes,
      '--limit',
      limit,
    ]);
    appendFileSync(values.results, point);
    process.stdout.write(point);
    if (mode === 'iptables' && point.includes('"unfinished"')) break;
  }
writeFileSync(values.out, run('draw-proxy.ts', [values.results]));
process.stdout.write(`drawn in ${values.out}, points in ${values.results}\n`);
