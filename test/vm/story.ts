// The story of a node on a virtual machine, from a fresh host to a purged one: run by run.sh, in a network namespace that holds the machine, the control
// plane and nothing that leads out. --packages FOLDER; --keep leaves everything running at the end; --write adds the result to docs/conformance.md.
import { appendFile, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type ControlPlane, startControlPlane } from '../lab/control-plane.ts';
import { network } from './image.ts';
import { type Machine, startMachine } from './machine.ts';
import { createReport, reportTable } from './report.ts';
import { endOfNode } from './story-end.ts';
import { installAndJoin } from './story-join.ts';
import { lifeOfNode } from './story-life.ts';
import { runPods } from './story-pods.ts';
import { createWorld, type World } from './world.ts';

const { values } = parseArgs({
  options: {
    packages: { type: 'string', default: '' },
    keep: { type: 'boolean', default: false },
    write: { type: 'boolean', default: false },
  },
});

const say = (text: string): void => void process.stdout.write(text);

async function packagesIn(folder: string): Promise<{ first: string; next: string }> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.deb'));
  const next = names.find((name) => name.includes('+next'));
  const first = names.find((name) => !name.includes('+next'));
  if (!first || !next) throw new Error(`${folder} does not hold the two packages that run.sh makes`);
  return { first: join(folder, first), next: join(folder, next) };
}

/** What helps to understand a failed step. */
const explain = (machine: Machine, world: () => World | undefined) => async (): Promise<string> => {
  const inside = await machine.tryRun(
    'journalctl -u stevedore -n 25 --no-pager -o cat; systemctl status stevedore --no-pager -n 0; ctr -n k8s.io tasks ls',
  );
  const outside = await world()?.kubectl('get', 'nodes,pods,services', '-A', '-o', 'wide').catch(String);
  return `--- the machine\n${inside.output}\n--- the cluster\n${outside ?? ''}\n---`;
};

async function main(): Promise<number> {
  const packages = await packagesIn(values.packages);
  let plane: ControlPlane | undefined;
  let machine: Machine | undefined;
  let failed = 0;
  // Ended from outside, nothing may be left running either.
  const ended = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      process.once(signal, () => {
        resolve();
        if (!over) process.exit(1);
      });
  });
  let over = false;
  try {
    const startedMs = performance.now();
    machine = await startMachine();
    say(`the machine is up after ${Math.round((performance.now() - startedMs) / 1000)} s\n`);
    plane = await startControlPlane({ controllers: true, scheduler: true, address: network.host });
    const world = await createWorld(machine, plane, packages);
    const report = createReport({ say, explain: explain(machine, () => world) });
    try {
      await installAndJoin(world, report);
      await runPods(world, report);
      await lifeOfNode(world, report);
      await endOfNode(world, report);
    } catch (error) {
      say(`the story ends here: ${error instanceof Error ? error.message : String(error)}\n`);
    }
    failed = report.results.filter(({ ok }) => !ok).length;
    const table = reportTable(report.results);
    say(`\n${table}\n${report.results.length - failed} of ${report.results.length} steps passed\n`);
    if (values.write) await writeResult(machine, table);
    over = true;
    if (values.keep) {
      say(`kept: nsenter -t ${process.pid} -n; end it with kill ${process.pid}\n`);
      const alive = setTimeout(() => undefined, 2 ** 31 - 1);
      await ended;
      clearTimeout(alive);
    }
  } finally {
    await plane?.stop();
    await machine?.stop();
  }
  return failed === 0 ? 0 : 1;
}

async function writeResult(machine: Machine, table: string): Promise<void> {
  const page = fileURLToPath(new URL('../../docs/conformance.md', import.meta.url));
  const facts = await machine.tryRun(
    'uname -r; containerd --version; runc --version | head -1; systemctl --version | head -1',
  );
  const there = await readFile(page, 'utf8').catch(() => '# Conformance\n');
  const heading = `## On a virtual machine (${new Date().toISOString().slice(0, 10)})`;
  const text = `\n${heading}\n\n\`npm run test:vm\`: Debian 12 under qemu without hardware virtualization (all times are of emulated processors): ${facts.output.replaceAll('\n', ', ')}.\n\n${table}`;
  await appendFile(page, there === '# Conformance\n' ? `${there}${text}` : text);
}

process.exitCode = await main();
