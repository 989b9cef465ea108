// What the CSI files of one agent share: which volumes are in use, which are staged, and whose turn it is.
import type { VolumeHost } from '../volume-driver.ts';
import type { CsiDrivers } from './csi-drivers.ts';

export interface CsiState {
  readonly host: VolumeHost;
  readonly drivers: CsiDrivers;
  /** Staging paths that this agent brought up. */
  readonly staged: Set<string>;
  /** Unique names of volumes in use. */
  inUse(): string[];
  /** Notes that the pod uses the volume; returns since when it is in use, in milliseconds since the epoch. */
  use(unique: string, podUid: string): number;
  /** The pod no longer uses the volume, or, where none is named, any. */
  letGo(podUid: string, unique?: string): void;
  /** Staging and unstaging of one volume never overlap, whichever pods ask for them. */
  inTurn<T>(unique: string, work: () => Promise<T>): Promise<T>;
}

export function createCsiState(deps: {
  /** Made later than this. */
  host(): VolumeHost;
  readonly drivers: CsiDrivers;
  inUseChanged(): void;
}): CsiState {
  const inUse = new Map<string, { sinceMs: number; pods: Set<string> }>();
  const turns = new Map<string, Promise<unknown>>();
  return {
    get host() {
      return deps.host();
    },
    drivers: deps.drivers,
    staged: new Set(),
    inUse: () => [...inUse.keys()],
    use(unique, podUid) {
      const known = inUse.get(unique);
      if (known) {
        known.pods.add(podUid);
        return known.sinceMs;
      }
      const sinceMs = deps.host().clock.now();
      inUse.set(unique, { sinceMs, pods: new Set([podUid]) });
      deps.inUseChanged();
      return sinceMs;
    },
    letGo(podUid, unique) {
      const names = unique === undefined ? [...inUse.keys()] : [unique];
      for (const name of names) {
        const entry = inUse.get(name);
        if (!entry?.pods.delete(podUid) || entry.pods.size > 0) continue;
        inUse.delete(name);
        deps.inUseChanged();
      }
    },
    inTurn(unique, work) {
      const mine = (turns.get(unique) ?? Promise.resolve()).then(work, work);
      const settled = mine.catch(() => undefined);
      turns.set(unique, settled);
      void settled.then(() => turns.get(unique) === settled && turns.delete(unique));
      return mine;
    },
  };
}

/** Whether anything is mounted at exactly this path. */
export const isMounted = async (host: VolumeHost, path: string): Promise<boolean> =>
  (await host.mounter.table()).at(path) !== undefined;
