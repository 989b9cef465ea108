// Which device belongs to which container, and what its plugin wants done for it. Kept on disk: a restart of the agent forgets nothing.
import { readFileIfThere, writeFileAtomic } from '../../../lib/files.ts';
import type { ContainerAllocateResponse } from './gen/device-plugin.ts';

export interface Allocation {
  readonly resource: string;
  readonly devices: readonly string[];
  readonly response: ContainerAllocateResponse;
}

export interface PodAllocations {
  readonly name: string;
  readonly namespace: string;
  /** By container, then by resource. */
  readonly containers: Readonly<Record<string, readonly Allocation[]>>;
}

export interface Allocations {
  of(uid: string, container: string): readonly Allocation[];
  pods(): ReadonlyMap<string, PodAllocations>;
  /** Devices of the resource that belong to a container. */
  inUse(resource: string): ReadonlySet<string>;
  /** Writes through to disk. */
  set(uid: string, pod: PodAllocations): Promise<void>;
  release(uid: string): Promise<void>;
}

const version = 1;

function parse(text: string): Map<string, PodAllocations> {
  const parsed = JSON.parse(text) as { version?: number; pods?: Record<string, PodAllocations> };
  if (parsed.version !== version) throw new Error(`version ${parsed.version} is not ${version}`);
  return new Map(Object.entries(parsed.pods ?? {}));
}

/** Rejects where the file is there and cannot be understood: devices in use would be handed out twice. */
export async function openAllocations(path: string): Promise<Allocations> {
  const text = await readFileIfThere(path);
  let pods: Map<string, PodAllocations>;
  try {
    pods = text === undefined ? new Map() : parse(text);
  } catch (error) {
    throw new Error(
      `the record of handed-out devices, ${path}, cannot be read; end the pods that use devices and remove it`,
      { cause: error },
    );
  }
  let writing = Promise.resolve();
  const write = (): Promise<void> => {
    writing = writing
      .catch(() => undefined)
      .then(() => writeFileAtomic(path, JSON.stringify({ version, pods: Object.fromEntries(pods) }), 0o600));
    return writing;
  };
  return {
    of: (uid, container) => pods.get(uid)?.containers[container] ?? [],
    pods: () => pods,
    inUse(resource) {
      const used = new Set<string>();
      for (const { containers } of pods.values())
        for (const allocation of Object.values(containers).flat())
          if (allocation.resource === resource) for (const device of allocation.devices) used.add(device);
      return used;
    },
    set(uid, pod) {
      pods.set(uid, pod);
      return write();
    },
    async release(uid) {
      if (pods.delete(uid)) await write();
    },
  };
}
