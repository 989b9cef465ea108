// What /metrics/cadvisor needs beyond a look, gathered when the page is asked for: processes, file systems, the machine.
import type { Clock } from '../../lib/clock.ts';
import { createExpiringCache } from '../../lib/expiring-cache.ts';
import type { Log } from '../../lib/log.ts';
import type { FilesystemUsage, SandboxId } from '../../cri/types.ts';
import { deviceName } from './block-devices.ts';
import type { FsFigures } from './cadvisor-figures.ts';
import { cadvisorPage, processesAsked } from './cadvisor-page.ts';
import type { CgroupReader } from './cgroup-reader.ts';
import type { Look } from './collect.ts';
import { type MachineFacts, readMachine } from './machine-facts.ts';
import { createMachineFilesystems, type MachineFilesystem } from './machine-filesystems.ts';
import { createProcessCounter } from './process-figures.ts';

export interface CadvisorDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly cgroups: Pick<CgroupReader, 'pids'>;
  /** What containers wrote into their layers, by container id. */
  layers(): Promise<ReadonlyMap<string, FilesystemUsage>>;
  readonly sandboxImage: ((one: SandboxId) => Promise<string | undefined>) | undefined;
}

export interface CadvisorOptions {
  readonly proc: string;
  readonly hostRoot: string;
  readonly rootFolder: string;
}

export interface Cadvisor {
  /** The page's text in pieces. What cannot be learned is left out; it never rejects for that. */
  page(look: Look): AsyncIterable<string>;
}

const sandboxImageFreshMs = 300_000;
const deviceFreshMs = 60_000;

/** Containers of CRI-O, whose layers cAdvisor measures; of containerd it does not. */
const isCrio = (path: string): boolean => /\/crio-[^/]+$/.test(path);

export function createCadvisor(deps: CadvisorDeps, options: CadvisorOptions): Cadvisor {
  const { clock, log } = deps;
  const { proc, hostRoot, rootFolder } = options;
  const counter = createProcessCounter({ cgroups: deps.cgroups }, { proc });
  const filesystems = createMachineFilesystems({ clock }, { proc, rootFolder });
  const images = createExpiringCache<Promise<string | undefined>>(clock, 1);
  const devices = createExpiringCache<string>(clock, 256);
  let machine: Promise<MachineFacts> | undefined;

  const machineFacts = async (): Promise<MachineFacts | undefined> => {
    machine ??= readMachine({ hostRoot, rootFolder });
    try {
      return await machine;
    } catch (error) {
      machine = undefined;
      log.warn('cannot read what the machine is: /metrics/cadvisor has machine_scrape_error 1', { error });
      return undefined;
    }
  };

  /** One runtime makes all its sandboxes of one image. */
  const sandboxImage = async (look: Look): Promise<string | undefined> => {
    const known = images.get('sandbox');
    const one = look.pods.find(({ sandbox }) => sandbox)?.sandbox?.id;
    if (known || one === undefined || !deps.sandboxImage) return await known;
    const asked = deps.sandboxImage(one).catch((error: unknown) => {
      log.debug('the runtime did not tell what sandboxes are made of; /metrics/cadvisor does not show it', { error });
      return undefined;
    });
    images.set('sandbox', asked, sandboxImageFreshMs);
    return await asked;
  };

  const nameOf = (number: string): string => {
    const known = devices.get(number);
    if (known !== undefined) return known;
    const name = deviceName(`${hostRoot === '/' ? '' : hostRoot}/sys`, number);
    devices.set(number, name, deviceFreshMs);
    return name;
  };

  const layersOf = async (
    look: Look,
    machineFilesystems: readonly MachineFilesystem[],
  ): Promise<ReadonlyMap<string, FsFigures>> => {
    const found = new Map<string, FsFigures>();
    const ids = look.pods.flatMap(({ containers }) =>
      containers.filter(({ path }) => isCrio(path)).map(({ id }) => id),
    );
    if (ids.length === 0) return found;
    const layers = await deps.layers();
    const deepestFirst = machineFilesystems.toSorted((a, b) => b.mountPoint.length - a.mountPoint.length);
    for (const id of ids) {
      const layer = layers.get(id);
      const holds = ({ mountPoint }: MachineFilesystem): boolean =>
        mountPoint === '/' || `${layer?.mountpoint}/`.startsWith(`${mountPoint}/`);
      const disk = layer && deepestFirst.find(holds);
      if (!disk) continue;
      const { device, capacityBytes } = disk;
      // As cAdvisor has it: the inodes are those of the layer, and the disk's own counters are not its.
      const { usedBytes, inodesUsed: inodes } = layer;
      found.set(id, { device, capacityBytes, usedBytes, inodes, inodesFree: 0, disk: undefined });
    }
    return found;
  };

  return {
    async *page(look) {
      const [processes, found, facts, image] = await Promise.all([
        counter.count(look, processesAsked(look)),
        filesystems.read(),
        machineFacts(),
        sandboxImage(look),
      ]);
      yield* cadvisorPage({
        look,
        processes,
        filesystems: found,
        layers: await layersOf(look, found),
        machine: facts,
        sandboxImage: image,
        deviceName: nameOf,
      });
    },
  };
}
