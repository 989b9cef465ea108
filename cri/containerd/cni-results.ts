// What CNI's library keeps of each network it set up, in files that it does not sync: a host that loses power may find them empty, and then no
// runtime takes the sandbox's network down any more ("failed to get network … cached result: … unexpected end of JSON input"), for ever.
import { readdir, readFile, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { describeError, type Log } from '../../lib/log.ts';

/** Where libcni keeps them unless a runtime says otherwise; none of those we know does. */
export const cniResultsFolder = '/var/lib/cni/results';

const isWhole = (text: string): boolean => {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
};

/**
 * Removes the results of this sandbox that are no JSON, where they are what `error` is about; its network is taken down without them then.
 * Resolves with whether one was removed: the call may be made again.
 */
export async function removeBrokenResults(
  sandboxId: string,
  error: unknown,
  { log, folder = cniResultsFolder }: { readonly log: Log; readonly folder?: string },
): Promise<boolean> {
  if (!/failed to get network .* cached result/.test(describeError(error)) || sandboxId === '') return false;
  let removed = false;
  // NETWORK-SANDBOX-INTERFACE
  for (const name of (await readdir(folder).catch(() => [])).filter((each) => each.includes(`-${sandboxId}-`))) {
    const path = join(folder, name);
    const text = await readFile(path, 'utf8').catch(() => undefined);
    if (text === undefined || isWhole(text)) continue;
    await unlink(path);
    removed = true;
    log.warn(
      'a CNI result is not whole, as after a loss of power; it is removed, and the network is taken down without it',
      {
        ...{ sandbox: sandboxId, path, bytes: Buffer.byteLength(text) },
      },
    );
  }
  return removed;
}
