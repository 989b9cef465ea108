// Tells that something changed in a folder (inotify), level-triggered: a change between two waits is not missed. What changed is for the
// caller to look at again.
import { type FSWatcher, watch } from 'node:fs';

export interface FolderWatch {
  /** Resolves as soon as anything in the folder changed since the last call; rejects with the signal's reason when it aborts. */
  next(signal?: AbortSignal): Promise<void>;
  close(): void;
}

/** Throws where the folder is not there (ENOENT) or the host has no watches left (ENOSPC). `only` limits it to one entry's name. */
export function watchFolder(folder: string, only?: string): FolderWatch {
  let changed = false;
  let wake: (() => void) | undefined;
  const note = (): void => {
    changed = true;
    wake?.();
  };
  const watcher: FSWatcher = watch(folder, { persistent: false }, (_event, name) => {
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
