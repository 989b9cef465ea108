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
  /** Resources that a plugin registered: after a restart they are a plugin's still, though it has not come back yet. */
  known(): ReadonlySet<string>;
  know(resource: string, is: boolean): Promise<void>;
  /** Writes through to disk. */
  set(uid: string, pod: PodAllocations): Promise<void>;
  release(uid: string): Promise<void>;
}

const version = 1;

interface Kept {
  readonly pods: Map<string, PodAllocations>;
  readonly known: Set<string>;
}

function parse(text: string): Kept {
  const parsed = JSON.parse(text) as { version?: number; pods?: Record<string, PodAllocations>; known?: string[] };
  if (parsed.version !== version) throw new Error(`version ${parsed.version} is not ${version}`);
  return { pods: new Map(Object.entries(parsed.pods ?? {})), known: new Set(parsed.known) };
}

/** Rejects where the file is there and cannot be understood: devices in use would be handed out twice. */
export async function openAllocations(path: string): Promise<Allocations> {
  const text = await readFileIfThere(path);
  let kept: Kept;
  try {
    kept = text === undefined ? { pods: new Map(), known: new Set() } : parse(text);
  } catch (error) {
    throw new Error(
      `the record of handed-out devices, ${path}, cannot be read; end the pods that use devices and remove it`,
      { cause: error },
    );
  }
  const { pods, known } = kept;
  let writing = Promise.resolve();
  const write = (): Promise<void> => {
    writing = writing
      .catch(() => undefined)
      .then(() =>
        writeFileAtomic(path, JSON.stringify({ version, pods: Object.fromEntries(pods), known: [...known] }), 0o600),
      );
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
    known: () => known,
    async know(resource, is) {
      if (known.has(resource) === is) return;
      if (is) known.add(resource);
      else known.delete(resource);
      await write();
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
