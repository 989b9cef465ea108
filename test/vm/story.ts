// The story of a node on a virtual machine (or, with --container, a host in a container), from a fresh host to a purged one: run by run.sh, in a network namespace that holds the machine, the control
// plane and nothing that leads out. --packages FOLDER; --figures: only what is measured on a host at rest; --machine-only: only what a container cannot show; --keep leaves everything running at the end; --write puts the result into docs/conformance.md.
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { type ControlPlane, startControlPlane } from '../lab/control-plane.ts';
import { network } from './image.ts';
import { startContainer } from './container.ts';
import { type Machine, startMachine } from './machine.ts';
import { createReport, reportTable, writeSection } from './report.ts';
import { crowd } from './story-crowd.ts';
import { endOfNode, idle } from './story-end.ts';
import { installAndJoin } from './story-join.ts';
import { lifeOfMachine, lifeOfNode } from './story-life.ts';
import { runPods } from './story-pods.ts';
import { createWorld, type World } from './world.ts';

const { values } = parseArgs({
  options: {
    packages: { type: 'string', default: '' },
    container: { type: 'boolean', default: false },
    figures: { type: 'boolean', default: false },
    'machine-only': { type: 'boolean', default: false },
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
    machine = await (values.container ? startContainer() : startMachine());
    say(`the machine is up after ${Math.round((performance.now() - startedMs) / 1000)} s\n`);
    plane = await startControlPlane({ controllers: true, scheduler: true, address: network.host });
    const world = await createWorld(machine, plane, packages);
    const report = createReport({ say, explain: explain(machine, () => world) });
    try {
      const part = values.figures || values['machine-only'];
      await installAndJoin(world, report, !part);
      if (values['machine-only']) await lifeOfMachine(world, report);
      else if (!values.figures) {
        await runPods(world, report);
        await lifeOfNode(world, report);
      }
      // Emulated processors would need hours for so many.
      if (values.container) await crowd(world, report);
      if (part) await report.step('pods deleted, the node idle', () => idle(world));
      else await endOfNode(world, report);
    } catch (error) {
      say(`the story ends here: ${error instanceof Error ? error.message : String(error)}\n`);
    }
    failed = report.results.filter(({ ok }) => !ok).length;
    const table = reportTable(report.results);
    say(`\n${table}\n${report.results.length - failed} of ${report.results.length} steps passed\n`);
    if (values.write) await (values.container ? writeContainerResult(machine, table) : writeResult(machine, table));
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

const marks = ['<!-- written by npm run test:vm -- --write -->', '<!-- end of test:vm -->'] as const;

const versions = async (machine: Machine): Promise<string> =>
  (
    await machine.run(
      'uname -r; containerd --version | cut -d" " -f2,3; runc --version | head -1; systemctl --version | head -1 | cut -d" " -f1,2',
    )
  )
    .trim()
    .replaceAll('\n', ', ');

const writeContainerResult = async (machine: Machine, table: string): Promise<void> =>
  writeSection('test:vm -- --container', [
    `## On a host in a container (${new Date().toISOString().slice(0, 10)})`,
    `\`npm run test:vm -- --container\`: the virtual machine's disk, booted by systemd in namespaces of the host, at the full speed of its ${cpus().length} processors, whose load was ${loadavg()[0]?.toFixed(0)} at the end. Kernel ${await versions(machine)}; cgroup version 1. What is the kernel's as a whole (cgroup v2, AppArmor, modules, clock, swap, memory) is shown by the virtual machine alone.`,
    table,
  ]);

/** Replaces what an earlier run wrote. */
async function writeResult(machine: Machine, table: string): Promise<void> {
  const page = fileURLToPath(new URL('../../docs/conformance.md', import.meta.url));
  const there = await readFile(page, 'utf8');
  const [before, rest] = there.split(marks[0]);
  const after = rest?.split(marks[1])[1] ?? '\n';
  const load = loadavg()[0]?.toFixed(0);
  const text = [
    marks[0],
    `## On a virtual machine (${new Date().toISOString().slice(0, 10)})`,
    `\`npm run test:vm\`: Debian 12 under qemu without hardware virtualization, ${cpus().length} processors of the host for all, whose load was ${load} at the end: times say nothing about real hardware. Kernel ${await versions(machine)}.`,
    table,
    marks[1],
  ].join('\n\n');
  await writeFile(page, `${(before ?? '').trimEnd()}\n\n${text}${after}`);
}

process.exitCode = await main();
