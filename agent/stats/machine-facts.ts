// What the machine is: the labels and figures of machine_* and cadvisor_version_info. None of it changes while the daemon runs.
import { readdir, readFile } from 'node:fs/promises';
import { arch } from 'node:os';
import { join } from 'node:path';
import { readHostFacts } from '../node/host-facts.ts';

export interface MachineFacts {
  readonly machineId: string;
  readonly systemUuid: string;
  readonly bootId: string;
  readonly kernelVersion: string;
  readonly osImage: string;
  readonly processors: Processors;
  /** Memory modules by their type, where the kernel's EDAC tells. */
  readonly modules: readonly MemoryModules[];
}

export interface Processors {
  readonly cores: number;
  readonly sockets: number;
  /** Of IBM Z; 0 elsewhere. */
  readonly books: number;
  readonly drawers: number;
}

export interface MemoryModules {
  readonly type: string;
  readonly count: number;
  readonly bytes: number;
}

const text = (path: string): Promise<string | undefined> =>
  readFile(path, 'utf8').then(
    (found) => found.trim(),
    () => undefined,
  );
const names = (folder: string): Promise<string[]> => readdir(folder).catch(() => []);

/** From sysfs, which has it on every architecture. A core is one of its socket: another socket's cores have the same numbers. */
async function readProcessors(sys: string): Promise<Processors> {
  const folder = join(sys, 'devices/system/cpu');
  const cores = new Set<string>();
  const sockets = new Set<string>();
  const books = new Set<string>();
  const drawers = new Set<string>();
  for (const cpu of await names(folder)) {
    if (!/^cpu\d+$/.test(cpu)) continue;
    const of = (file: string): Promise<string | undefined> => text(join(folder, cpu, 'topology', file));
    const [socket, core] = [await of('physical_package_id'), await of('core_id')];
    if (socket === undefined || core === undefined) continue; // Not online.
    cores.add(`${socket}/${await of('die_id')}/${core}`);
    sockets.add(socket);
    if (arch() !== 's390x') continue;
    books.add((await of('book_id')) ?? '');
    drawers.add((await of('drawer_id')) ?? '');
  }
  return { cores: cores.size, sockets: sockets.size, books: books.size, drawers: drawers.size };
}

async function readModules(sys: string): Promise<MemoryModules[]> {
  const folder = join(sys, 'devices/system/edac/mc');
  const found = new Map<string, { count: number; bytes: number }>();
  for (const controller of await names(folder))
    for (const module of /^mc\d+$/.test(controller) ? await names(join(folder, controller)) : []) {
      if (!/^dimm\d+$/.test(module)) continue;
      const type = await text(join(folder, controller, module, 'dimm_mem_type'));
      const mebibytes = Number(await text(join(folder, controller, module, 'size')));
      if (type === undefined || !Number.isFinite(mebibytes)) continue;
      const { count, bytes } = found.get(type) ?? { count: 0, bytes: 0 };
      found.set(type, { count: count + 1, bytes: bytes + mebibytes * 2 ** 20 });
    }
  return [...found].map(([type, sizes]) => ({ type, ...sizes }));
}

/** `hostRoot`: where proc, sys and etc are. Rejects where the host cannot be read at all. */
export async function readMachine(options: {
  readonly hostRoot: string;
  readonly rootFolder: string;
}): Promise<MachineFacts> {
  const sys = join(options.hostRoot, 'sys');
  const [host, processors, modules] = await Promise.all([
    readHostFacts({ rootDir: options.rootFolder, hostRoot: options.hostRoot }),
    readProcessors(sys),
    readModules(sys),
  ]);
  const { machineId, systemUuid, bootId, kernelVersion, osImage } = host;
  return { machineId, systemUuid, bootId, kernelVersion, osImage, processors, modules };
}
