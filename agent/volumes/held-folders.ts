// Which folders of pods that are gone stay because a hidden mount holds them (hidden-mounts.ts). Told of once; looked at again when the mounts
// hidden there have changed, and by the next agent.
import type { VolumeHost } from './volume-driver.ts';

export interface HeldFolders {
  /** After a tear-down: why something of the pod stays, if anything does. */
  note(uid: string, reasons: readonly string[]): Promise<void>;
  /** Mount points below the pod's folder that are hidden now. */
  of(uid: string): Promise<readonly string[]>;
  /** Of these pods, those that a tear-down could do anything for. */
  without(uids: readonly string[]): Promise<string[]>;
}

export function createHeldFolders(host: Pick<VolumeHost, 'log' | 'mounter' | 'paths'>): HeldFolders {
  // By the pod's uid: the ids of the hidden mounts.
  const held = new Map<string, string>();
  const hiddenOf = async (uid: string) => (await host.mounter.table()).hidden(host.paths.pod(uid));
  const idsOf = async (uid: string): Promise<string> => (await hiddenOf(uid)).map(({ id }) => id).join();
  return {
    async note(uid, reasons) {
      const before = held.get(uid);
      held.delete(uid);
      if (reasons.length === 0) return;
      const ids = await idsOf(uid);
      held.set(uid, ids);
      if (ids !== before)
        host.log.warn(
          'folders of a pod that is gone stay: another mount, as a kubelet makes of its root directory, hides what is mounted there; they go when that mount has gone',
          { uid, folder: host.paths.pod(uid), reasons: reasons.join('; ') },
        );
    },
    of: async (uid) => (await hiddenOf(uid)).map(({ mountPoint }) => mountPoint),
    async without(uids) {
      const changed = await Promise.all(
        uids.map(async (uid) => !held.has(uid) || (await idsOf(uid)) !== held.get(uid)),
      );
      return uids.filter((_, at) => changed[at]);
    },
  };
}
