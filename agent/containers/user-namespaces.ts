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
  /** The agent's root folder; ranges are remembered in `<root>/userns/<uid>`, as `FIRST LENGTH`. */
  readonly rootDir: string;
  /** The host's ids that are for pods, where the operator set some aside (sub-ids.ts). Default: all above the first `idsPerPod`. */
  readonly ids?: IdRange | undefined;
  /** KubeletConfiguration userNamespaces.idsPerPod; default 65,536. */
  readonly idsPerPod?: number;
  /** KubeletConfiguration maxPods, for which there must be room. Default 110. */
  readonly maxPods?: number;
}

export interface IdRange {
  readonly first: number;
  readonly length: number;
}

export interface UserNamespaces {
  /** Reads what is remembered. Call once, before the first pod. Rejects where the ids set aside cannot be shared out to pods. */
  load(): Promise<void>;
  /** Undefined for pods that use the host's users. Rejects with a ConfigError where the runtime cannot, or no range is free. */
  of(pod: Pod, runtimeHandler: string): Promise<UserNamespace | undefined>;
  /** The pod is gone: its range may be given to another one. */
  release(uid: string): Promise<void>;
  /** The pods that have a range. */
  uids(): readonly string[];
}

const unit = 65_536;
const allIds = 2 ** 32;

/** What is wrong with the ids, in the kubelet's words. */
function refuseIds({ first, length }: IdRange, idsPerPod: number, maxPods: number): string | undefined {
  if (idsPerPod % unit !== 0) return `kubelet user namespace length ${idsPerPod} is not a multiple of ${unit}`;
  if (first % idsPerPod !== 0) return `kubelet user assigned ID ${first} is not a multiple of ${idsPerPod}`;
  // Not the host's own users.
  if (first < idsPerPod) return `kubelet user assigned ID ${first} must be greater or equal to ${idsPerPod}`;
  if (length % idsPerPod !== 0) return `kubelet user assigned IDs length ${length} is not a multiple of ${idsPerPod}`;
  if (length / idsPerPod < maxPods) return `kubelet user assigned IDs are not enough to support ${maxPods} pods`;
  return undefined;
}

export function createUserNamespaces(deps: UserNamespacesDeps, options: UserNamespacesOptions): UserNamespaces {
  const { idsPerPod = unit, maxPods = 110 } = options;
  const ids = options.ids ?? { first: idsPerPod, length: Math.floor(allIds / idsPerPod - 1) * idsPerPod };
  const folder = join(options.rootDir, 'userns');
  const ranges = new Map<string, IdRange>();

  const mappings = ({ first, length }: IdRange): UserNamespace => {
    const mapping = [{ hostId: first, containerId: 0, length }];
    return { mode: 'pod', uids: mapping, gids: mapping };
  };
  // A number alone is that of a range, from before the ids themselves were remembered.
  const parse = (text: string): IdRange | undefined => {
    const [first = Number.NaN, length] = text.trim().split(' ').map(Number);
    const range = length === undefined ? { first: unit + first * idsPerPod, length: idsPerPod } : { first, length };
    return Number.isInteger(range.first) && range.first >= unit && range.length > 0 ? range : undefined;
  };
  /** Ranges of another length may be left from another configuration. */
  const firstFree = (): IdRange | undefined => {
    const taken = new Set<number>();
    for (const { first, length } of ranges.values())
      for (
        let slot = Math.floor((first - ids.first) / idsPerPod);
        ids.first + slot * idsPerPod < first + length;
        slot++
      )
        taken.add(slot);
    for (let slot = 0; slot < ids.length / idsPerPod; slot++)
      if (!taken.has(slot)) return { first: ids.first + slot * idsPerPod, length: idsPerPod };
    return undefined;
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
      const wrong = refuseIds(ids, idsPerPod, maxPods);
      if (wrong !== undefined)
        throw new Error(
          `user namespaces of pods: ${wrong}: change the ids of the user kubelet in /etc/subuid and /etc/subgid, or userNamespaces.idsPerPod`,
        );
      await mkdir(folder, { recursive: true, mode: 0o700 });
      for (const uid of await readdir(folder)) {
        if (uid.startsWith('.')) continue;
        const range = parse(await readFile(join(folder, uid), 'utf8'));
        if (range) ranges.set(uid, range);
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
      const free = firstFree();
      if (!free)
        throw new ConfigError(`create user namespace: could not find an empty slot to allocate a user namespace`);
      ranges.set(uid, free);
      await writeFileAtomic(join(folder, uid), `${free.first} ${free.length}`, 0o600);
      return mappings(free);
    },
    async release(uid) {
      if (!ranges.delete(uid)) return;
      await rm(join(folder, uid), { force: true });
    },
    uids: () => [...ranges.keys()],
  };
}
