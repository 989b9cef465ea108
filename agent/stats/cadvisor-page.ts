// /metrics/cadvisor: figures of every pod, sandbox and container under cAdvisor's names, labels and units, for the dashboards that know them.
import {
  createExposition,
  type Exposition,
  type Family,
  labelText,
  timeText,
  withLabel,
} from '../../lib/exposition.ts';
import {
  constants,
  type FsFigures,
  fsFigures,
  ioFigures,
  networkFigures,
  processFigures,
  sampleFigures,
  specFigures,
} from './cadvisor-figures.ts';
import { machineFamilies } from './cadvisor-machine.ts';
import type { CgroupSample, DeviceIo } from './cgroup-sample.ts';
import type { Look } from './collect.ts';
import type { MachineFacts } from './machine-facts.ts';
import type { MachineFilesystem } from './machine-filesystems.ts';
import type { InterfaceCounters } from './proc.ts';
import type { AskedCgroup, ProcessFigures } from './process-figures.ts';
import { createSlicer } from './pseudo-files.ts';

/** What the page shows beyond a look. */
export interface CadvisorInput {
  readonly look: Look;
  /** By cgroup; those that ended since the look are not there. */
  readonly processes: ReadonlyMap<string, ProcessFigures>;
  readonly filesystems: readonly MachineFilesystem[];
  /** Of containers, by their id, where the runtime is one whose containers cAdvisor measures. */
  readonly layers: ReadonlyMap<string, FsFigures>;
  /** Undefined: it could not be read, and the page says so. */
  readonly machine: MachineFacts | undefined;
  readonly sandboxImage: string | undefined;
  /** `/dev/sda` of `8:0`. */
  deviceName(number: string): string;
}

interface Row {
  readonly labels: string;
  /** The sample's time as it is shown. */
  readonly at: string;
  readonly sample: CgroupSample;
  readonly startedAtMs: number;
  readonly interfaces: readonly InterfaceCounters[];
  readonly processes: ProcessFigures | undefined;
  /** What it did on each device, and the labels with the device's name. */
  readonly devices: readonly (readonly [io: DeviceIo, labels: string])[];
  readonly filesystems: readonly (readonly [filesystem: FsFigures, labels: string])[];
}

const blank = { container: '', id: '', image: '', name: '', namespace: '', pod: '' };

/** Of the root the host's own books say what its cgroup does not. */
function rootSample({ root, host }: Look): CgroupSample | undefined {
  if (!root) return undefined;
  const { memory, processes } = root.sample;
  const { total, swapTotal, swapFree } = host.memory;
  return {
    ...root.sample,
    memory: memory && {
      ...memory,
      limit: total,
      swapLimitAsSet: swapTotal,
      swapUsage: memory.swapUsage ?? swapTotal - swapFree,
    },
    processes: processes ?? { current: host.processes, max: undefined },
  };
}

/** Which cgroups' processes the page shows, and whose limits. A pod's cgroup, like a slice, only holds others. */
export function processesAsked(look: Look): AskedCgroup[] {
  const asked = new Map<string, AskedCgroup>();
  const ask = ({ path, sample }: { path: string; sample: CgroupSample }, leader: AskedCgroup['leader']): void =>
    void asked.set(path, { path, usageNs: sample.cpu?.usageNs, leader });
  for (const usage of [...look.system, ...look.levels]) ask(usage, 'none');
  for (const { usage, sandbox, containers } of look.pods) {
    if (usage) ask(usage, 'none');
    if (sandbox) ask(sandbox, 'first');
    for (const container of containers) ask(container, 'first');
  }
  if (look.root) ask(look.root, 1);
  return [...asked.values()];
}

function rowsOf(input: CadvisorInput): Row[] {
  const { look, processes, filesystems, layers, sandboxImage = '' } = input;
  const rows: Row[] = [];
  const names = new Map<string, string>();
  const nameOf = (number: string): string => {
    const name = names.get(number) ?? input.deviceName(number);
    names.set(number, name);
    return name;
  };
  const add = (
    given: Partial<typeof blank> & { id: string },
    sample: CgroupSample,
    startedAtMs: number,
    more: { interfaces?: readonly InterfaceCounters[]; filesystems?: readonly FsFigures[] } = {},
    deviceOf = nameOf,
  ): void => {
    const labels = labelText({ ...blank, ...given });
    rows.push({
      labels,
      at: timeText(sample.timeMs),
      sample,
      startedAtMs,
      interfaces: more.interfaces ?? [],
      processes: processes.get(given.id),
      devices: sample.io.map((io) => [io, withLabel(labels, 'device', deviceOf(io.device))]),
      filesystems: (more.filesystems ?? []).map((one) => [one, withLabel(labels, 'device', one.device)]),
    });
  };
  const root = rootSample(look);
  if (root) {
    // Where a file system lies on the device, its row and the cgroup's are of one name.
    const mounted = new Map(filesystems.map(({ number, device }) => [number, device]));
    const more = { interfaces: look.hostInterfaces, filesystems };
    add({ id: '/' }, root, look.host.bootMs, more, (number) => mounted.get(number) ?? nameOf(number));
  }
  const shown = new Set(['/']);
  for (const { path, sample } of [...look.system, ...look.levels]) {
    if (!shown.has(path)) add({ id: path }, sample, look.host.bootMs);
    shown.add(path);
  }
  for (const { pod, usage, sandbox, containers, interfaces } of look.pods) {
    const of = { pod: pod.metadata.name, namespace: pod.metadata.namespace ?? '' };
    const startedAtMs = Date.parse(pod.status?.startTime ?? '') || 0;
    if (usage) add({ ...of, id: usage.path }, usage.sample, startedAtMs);
    if (sandbox)
      add({ ...of, id: sandbox.path, name: sandbox.id, image: sandboxImage }, sandbox.sample, startedAtMs, {
        // The kubelet shows the host's with each pod on the host's network.
        interfaces: pod.spec.hostNetwork === true ? look.hostInterfaces : interfaces,
      });
    for (const { id, path, name, image, sample, startedAtMs: at } of containers) {
      const layer = layers.get(id);
      add({ ...of, id: path, name: id, image, container: name }, sample, at, layer ? { filesystems: [layer] } : {});
    }
  }
  return rows;
}

/** One label text with a constant end: `,cpu="total"`. */
const ending = (labels: string, end: string): string => (end === '' ? labels : `${labels.slice(0, -1)}${end}}`);

function memoryFailures(page: Exposition, rows: readonly Row[]): void {
  const family = page.family(
    'container_memory_failures_total',
    'counter',
    'Cumulative count of memory allocation failures.',
  );
  for (const { labels, at, sample } of rows) {
    const { memory } = sample;
    const add = (type: string, scope: string, value: number | undefined): void =>
      family.sample(ending(labels, `,failure_type="${type}",scope="${scope}"`), value, at);
    add('pgfault', 'container', memory?.ownPageFaults);
    add('pgmajfault', 'container', memory?.ownMajorPageFaults);
    add('pgfault', 'hierarchy', memory?.pageFaults);
    add('pgmajfault', 'hierarchy', memory?.majorPageFaults);
  }
}

/** A device once: the cgroup's own figure goes before that of the disk. */
function ioFamily(family: Family, rows: readonly Row[], { of, ofDisk }: (typeof ioFigures)[number]): void {
  for (const { at, devices, filesystems } of rows) {
    const shown = new Set<string>();
    if (of)
      for (const [io, labels] of devices) {
        const value = of(io);
        family.sample(labels, value, at);
        if (value !== undefined && filesystems.length > 0) shown.add(labels);
      }
    if (ofDisk)
      for (const [{ disk }, labels] of filesystems)
        if (!shown.has(labels)) family.sample(labels, disk ? ofDisk(disk) : 0, at);
  }
}

function blkioUsage(page: Exposition, rows: readonly Row[]): void {
  const family = page.family('container_blkio_device_usage_total', 'counter', 'Blkio Device bytes usage');
  for (const { at, devices } of rows)
    for (const [{ device, byOperation }, labels] of devices) {
      const [major = '', minor = ''] = device.split(':');
      for (const [operation, bytes] of byOperation)
        family.sample(ending(labels, `,major="${major}",minor="${minor}",operation="${operation}"`), bytes, at);
    }
}

/** In pieces of some tens of KiB: with a hundred pods the page has megabytes, which nobody needs at once. */
export async function* cadvisorPage(input: CadvisorInput): AsyncGenerator<string, void> {
  const slicer = createSlicer();
  const page = createExposition();
  const rows = rowsOf(input);
  const usage = page.family('container_cpu_usage_seconds_total', 'counter', 'Cumulative cpu time consumed in seconds.');
  for (const { labels, at, sample } of rows)
    usage.sample(ending(labels, ',cpu="total"'), sample.cpu && sample.cpu.usageNs / 1e9, at);
  for (const [name, type, help, of] of sampleFigures) {
    const family = page.family(name, type, help);
    for (const { labels, at, sample } of rows) family.sample(labels, of(sample), at);
    yield page.text();
    await slicer.breathe();
  }
  for (const [name, type, help, of] of specFigures) {
    const family = page.family(name, type, help);
    for (const { labels, sample } of rows) family.sample(labels, of(sample));
    yield page.text();
    await slicer.breathe();
  }
  memoryFailures(page, rows);
  yield page.text();
  await slicer.breathe();
  for (const [name, help, key] of processFigures) {
    const family = page.family(name, 'gauge', help);
    for (const { labels, at, processes } of rows) family.sample(labels, processes?.[key], at);
    yield page.text();
    await slicer.breathe();
  }
  const limits = page.family(
    'container_ulimits_soft',
    'gauge',
    'Soft ulimit values for the container root process. Unlimited if -1, except priority and nice',
  );
  for (const { labels, at, processes } of rows)
    limits.sample(ending(labels, ',ulimit="max_open_files"'), processes?.maxOpenFiles, at);
  for (const figure of ioFigures) {
    ioFamily(page.family(figure.name, figure.type, figure.help), rows, figure);
    yield page.text();
    await slicer.breathe();
  }
  blkioUsage(page, rows);
  for (const [name, help, key] of fsFigures) {
    const family = page.family(name, 'gauge', help);
    for (const { at, filesystems } of rows)
      for (const [one, labels] of filesystems) family.sample(labels, one[key], at);
  }
  yield page.text();
  await slicer.breathe();
  for (const [name, help, key] of networkFigures) {
    const family = page.family(name, 'counter', help);
    for (const { labels, at, interfaces } of rows)
      for (const one of interfaces) family.sample(withLabel(labels, 'interface', one.name), Number(one[key]), at);
    yield page.text();
    await slicer.breathe();
  }
  for (const [name, help, value, endings] of constants) {
    const family = page.family(name, 'gauge', help);
    for (const { labels, at } of rows) for (const end of endings) family.sample(ending(labels, end), value, at);
    yield page.text();
    await slicer.breathe();
  }
  const seen = page.family('container_last_seen', 'gauge', 'Last time a container was seen by the exporter');
  for (const { labels, at, sample } of rows) seen.sample(labels, Math.trunc(sample.timeMs / 1000), at);
  const start = page.family(
    'container_start_time_seconds',
    'gauge',
    'Start time of the container since unix epoch in seconds.',
  );
  for (const { labels, startedAtMs } of rows) if (startedAtMs > 0) start.sample(labels, startedAtMs / 1000);
  page
    .family('container_scrape_error', 'gauge', '1 if there was an error while getting container metrics, 0 otherwise')
    .sample('', 0);
  machineFamilies(page, input.look.host.memory, input.machine);
  yield page.text();
}
