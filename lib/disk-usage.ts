// What folders hold, as `du` counts it.

export interface DiskUsage {
  readonly usedBytes: number;
  readonly inodesUsed: number;
}

/** By path, what du said with --null. */
export function readDu(text: string): Map<string, number> {
  const found = new Map<string, number>();
  for (const entry of text.split('\0')) {
    const tab = entry.indexOf('\t');
    if (tab > 0) found.set(entry.slice(tab + 1), Number(entry.slice(0, tab)));
  }
  return found;
}

/**
 * Walks the folders, no other file system than their own, with a child process that `run` starts and whose standard output it resolves with. What
 * du could not find is left out. Rejects where `run` does.
 */
export async function diskUsage(
  paths: readonly string[],
  run: (command: string, args: readonly string[]) => Promise<string>,
): Promise<Map<string, DiskUsage>> {
  const found = new Map<string, DiskUsage>();
  if (paths.length === 0) return found;
  const ask = async (unit: string): Promise<Map<string, number>> => {
    // It fails where a file vanishes meanwhile, and still says the rest.
    const script = 'du "$@" 2>/dev/null; true';
    const flags = ['--summarize', '--one-file-system', '--null', unit];
    return readDu(await run('sh', ['-c', script, 'sh', ...flags, '--', ...paths]));
  };
  // One after the other: the second walk finds in memory what the first one read.
  const bytes = await ask('--block-size=1');
  const inodes = await ask('--inodes');
  for (const [path, usedBytes] of bytes) found.set(path, { usedBytes, inodesUsed: inodes.get(path) ?? 0 });
  return found;
}
