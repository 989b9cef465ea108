// Tells that something changed in a folder (inotify), level-triggered: a change between two waits is not missed. What changed is for the
// caller to look at again.
import { type FSWatcher, watch } from 'node:fs';

export interface FolderWatch {
  /** Resolves as soon as anything in the folder changed since the last call; rejects with the signal's reason when it aborts. */
  next(signal?: AbortSignal): Promise<void>;
  close(): void;
}

/**
 * Throws where the folder is not there (ENOENT) or the host has no watches left (ENOSPC). `only` limits it to one entry's name. `cameOrWent` is told
 * of each time that an entry of this name appeared or disappeared: one that is replaced by a rename appears once, one that is removed and
 * made again does both.
 */
export function watchFolder(folder: string, only?: string, cameOrWent?: (name: string) => void): FolderWatch {
  let changed = false;
  let wake: (() => void) | undefined;
  const note = (): void => {
    changed = true;
    wake?.();
  };
  const watcher: FSWatcher = watch(folder, { persistent: false }, (event, name) => {
    if (event === 'rename' && name !== null) cameOrWent?.(name);
    if (only === undefined || name === null || name === only) note();
  });
  // The folder went away: let the caller look, it will find out.
  watcher.on('error', note);
  return {
    next: (signal) =>
      new Promise<void>((resolve, reject) => {
        if (signal?.aborted) {
          reject(signal.reason);
          return;
        }
        const done = (): void => {
          wake = undefined;
          changed = false;
          signal?.removeEventListener('abort', onAbort);
          resolve();
        };
        const onAbort = (): void => {
          wake = undefined;
          reject(signal?.reason);
        };
        if (changed) {
          done();
          return;
        }
        wake = done;
        signal?.addEventListener('abort', onAbort, { once: true });
      }),
    close: () => watcher.close(),
  };
}
