// What this host is: read once at the start and again when the status is computed, from /proc, /sys and /etc. An adapter: only reads.
import { readdir, readFile, statfs } from 'node:fs/promises';
import { arch, availableParallelism } from 'node:os';
import { join } from 'node:path';

export interface HostFacts {
  /** Go's name of the architecture, for example `amd64`. */
  readonly architecture: string;
  readonly cpus: number;
  readonly memoryBytes: number;
  readonly swapBytes: number;
  /** Bytes set aside for pages of each size, by the size in bytes. Sizes the kernel knows and none is set aside for have 0. */
  readonly hugePages: ReadonlyMap<number, number>;
  /** Of the file system that holds the agent's root folder. */
  readonly storageBytes: number;
  readonly machineId: string;
  readonly systemUuid: string;
  readonly bootId: string;
  readonly kernelVersion: string;
  readonly osImage: string;
}

export interface HostFactsOptions {
  readonly rootDir: string;
  /** Default `/`: where proc, sys and etc are. */
  readonly hostRoot?: string;
}

const goArchitectures: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', ppc64: 'ppc64le' };
export const goArchitecture = (node: string = arch()): string => goArchitectures[node] ?? node;

async function firstText(...paths: string[]): Promise<string> {
  for (const path of paths) {
    try {
      const text = (await readFile(path, 'utf8')).trim();
      if (text !== '') return text;
    } catch {
      // The next one, then.
    }
  }
  return '';
}

/** A field of /proc/meminfo, in bytes; 0 where it is not there. */
export function parseMeminfo(text: string, field: string): number {
  const match = new RegExp(`^${field}:\\s+(\\d+) kB`, 'm').exec(text);
  return match ? Number(match[1]) * 1024 : 0;
}

export function parseOsName(text: string): string {
  const match = /^PRETTY_NAME=(?:"([^"]*)"|'([^']*)'|(.*))$/m.exec(text);
  return match?.[1] ?? match?.[2] ?? match?.[3] ?? 'Linux';
}

async function readHugePages(root: string): Promise<Map<number, number>> {
  const folder = join(root, 'sys/kernel/mm/hugepages');
  const sizes = new Map<number, number>();
  for (const name of await readdir(folder).catch(() => [])) {
    const pageBytes = Number(/^hugepages-(\d+)kB$/.exec(name)?.[1] ?? 0) * 1024;
    if (pageBytes > 0) sizes.set(pageBytes, Number(await firstText(join(folder, name, 'nr_hugepages'))) * pageBytes);
  }
  return sizes;
}

export async function readHostFacts(options: HostFactsOptions): Promise<HostFacts> {
  const root = options.hostRoot ?? '/';
  const at = (path: string): string => join(root, path);
  const meminfo = await readFile(at('proc/meminfo'), 'utf8');
  const storage = await statfs(options.rootDir);
  const machineId = await firstText(at('etc/machine-id'), at('var/lib/dbus/machine-id'));
  return {
    architecture: goArchitecture(),
    cpus: availableParallelism(),
    memoryBytes: parseMeminfo(meminfo, 'MemTotal'),
    swapBytes: parseMeminfo(meminfo, 'SwapTotal'),
    hugePages: await readHugePages(root),
    storageBytes: storage.blocks * storage.bsize,
    machineId,
    systemUuid:
      (await firstText(
        at('sys/class/dmi/id/product_uuid'),
        at('proc/device-tree/system-id'),
        at('proc/device-tree/vm,uuid'),
      )) || machineId,
    bootId: await firstText(at('proc/sys/kernel/random/boot_id')),
    kernelVersion: await firstText(at('proc/sys/kernel/osrelease')),
    osImage: parseOsName(await firstText(at('etc/os-release'), at('usr/lib/os-release'))),
  };
}
