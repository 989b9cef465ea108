// The text of a few files, read again when one of them changes: certificates and CA bundles that others renew in place.
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { abandonOn } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { type FolderWatch, watchFolder } from '../../lib/watch-folder.ts';

export interface WatchedFilesDeps {
  readonly clock: Clock;
  readonly log: Log;
}

/** A writer that renames several files needs a moment; reading in the middle would pair an old key with a new certificate. */
const settleMs = 100;
/** Where inotify fails us (other file systems, no watches left) we look again this often. */
const safetyMs = 60_000;

const readAll = async (paths: readonly string[]): Promise<string[]> =>
  await Promise.all(paths.map((path) => readFile(path, 'utf8')));

/**
 * Yields the files' text each time it changed, until the signal aborts; not at first. A file that cannot be read is told to the log and
 * tried again: the last good content stays in use.
 */
export async function* watchFiles(
  deps: WatchedFilesDeps,
  paths: readonly string[],
  first: readonly string[],
  signal: AbortSignal,
): AsyncGenerator<string[]> {
  const { clock, log } = deps;
  let last = JSON.stringify(first);
  const watches: FolderWatch[] = [];
  for (const folder of new Set(paths.map((path) => dirname(path)))) {
    try {
      watches.push(watchFolder(folder));
    } catch (error) {
      log.warn('cannot watch a folder for changes; looking every minute instead', { folder, error });
    }
  }
  try {
    while (!signal.aborted) {
      const round = new AbortController();
      const either = AbortSignal.any([signal, round.signal]);
      try {
        await Promise.race([...watches.map((watch) => watch.next(either)), clock.sleep(safetyMs, either)]);
      } finally {
        round.abort();
      }
      await clock.sleep(settleMs, signal);
      try {
        const now = await abandonOn(readAll(paths), signal);
        const text = JSON.stringify(now);
        if (text === last) continue;
        last = text;
        yield now;
      } catch (error) {
        if (signal.aborted) return;
        log.warn('cannot read a file that changed; what was read before stays in use', {
          paths: paths.join(' '),
          error,
        });
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    for (const watch of watches) watch.close();
  }
}
