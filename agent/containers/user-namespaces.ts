// User namespaces of pods with hostUsers: false: each gets a range of the host's ids for itself, for as long as it lives, and the same one
// after a restart of the agent.
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { RuntimeHandler } from '../../cri/types.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { writeFileAtomic } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import { ConfigError } from './config-error.ts';
import type { UserNamespace } from './namespaces.ts';

export interface UserNamespacesDeps {
  /** What the runtime can, by handler. */
  handlers(): readonly RuntimeHandler[] | Promise<readonly RuntimeHandler[]>;
  readonly log: Log;
}

export interface UserNamespacesOptions {
  /** The agent's root folder; ranges are remembered in `<root>/userns/<uid>`. */
  readonly rootDir: string;
  /** Host id of the first range; a multiple of `idsPerPod`. Default 65,536: below are the host's own users. */
  readonly firstId?: number;
  /** KubeletConfiguration userNamespaces.idsPerPod; default 65,536. */
  readonly idsPerPod?: number;
  /** How many pods have room. Default KubeletConfiguration maxPods, 110. */
  readonly maxPods?: number;
}

export interface UserNamespaces {
  /** Reads what is remembered. Call once, before the first pod. */
  load(): Promise<void>;
  /** Undefined for pods that use the host's users. Rejects with a ConfigError where the runtime cannot, or no range is free. */
  of(pod: Pod, runtimeHandler: string): Promise<UserNamespace | undefined>;
  /** The pod is gone: its range may be given to another one. */
  release(uid: string): Promise<void>;
  /** The pods that have a range. */
  uids(): readonly string[];
}

export function createUserNamespaces(deps: UserNamespacesDeps, options: UserNamespacesOptions): UserNamespaces {
  const { firstId = 65_536, idsPerPod = 65_536, maxPods = 110 } = options;
  const folder = join(options.rootDir, 'userns');
  const ranges = new Map<string, number>();

  const mappings = (range: number): UserNamespace => {
    const mapping = [{ hostId: firstId + range * idsPerPod, containerId: 0, length: idsPerPod }];
    return { mode: 'pod', uids: mapping, gids: mapping };
  };

  const supported = async (handler: string): Promise<void> => {
    if ((await deps.handlers()).some((each) => each.name === handler && each.userNamespaces)) return;
    throw new ConfigError(
      handler === ''
        ? "can't set `spec.hostUsers: false`, runtime does not support user namespaces"
        : `can't set \`spec.hostUsers: false\`, RuntimeClass handler "${handler}" does not support user namespaces`,
    );
  };

  return {
    async load() {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      for (const uid of await readdir(folder)) {
        if (uid.startsWith('.')) continue;
        const range = Number(await readFile(join(folder, uid), 'utf8'));
        if (Number.isInteger(range) && range >= 0) ranges.set(uid, range);
        else
          deps.log.warn('the remembered user namespace of a pod makes no sense; it gets another one', { uid, folder });
      }
    },
    async of(pod, runtimeHandler) {
      if (pod.spec.hostUsers !== false) return undefined;
      const uid = pod.metadata.uid ?? '';
      const known = ranges.get(uid);
      if (known !== undefined) return mappings(known);
      await supported(runtimeHandler);
      const taken = new Set(ranges.values());
      const free = Array.from({ length: maxPods }, (_, range) => range).find((range) => !taken.has(range));
      if (free === undefined)
        throw new ConfigError(`create user namespace: could not find an empty slot to allocate a user namespace`);
      ranges.set(uid, free);
      await writeFileAtomic(join(folder, uid), String(free), 0o600);
      return mappings(free);
    },
    async release(uid) {
      if (!ranges.delete(uid)) return;
      await rm(join(folder, uid), { force: true });
    },
    uids: () => [...ranges.keys()],
  };
}
