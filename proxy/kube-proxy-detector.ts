// Looks for a live kube-proxy in this network namespace: two programs that write the same chains would undo each other's work.
import { closeSync, openSync, readSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';

export interface KubeProxyDetectorDeps {
  /** Default `/proc`. */
  readonly procRoot?: string;
  /** Whose network namespace counts, as a path below `procRoot`; default `self/ns/net`. */
  readonly network?: string;
}

/** Says what was found, for example `process 812 (/usr/local/bin/kube-proxy)`; undefined where none runs. */
export type DetectKubeProxy = () => Promise<string | undefined>;

const wanted = Buffer.from('kube-proxy\n');
const buffer = Buffer.allocUnsafe(64);

/**
 * Whether a process is called so. Synchronous: the kernel has the name at hand, and a host has many processes, each of which would otherwise be five
 * errands for the pool of threads, every time.
 */
function isNamed(path: string): boolean {
  try {
    const file = openSync(path, 'r');
    try {
      return wanted.equals(buffer.subarray(0, readSync(file, buffer, 0, buffer.length, null)));
    } finally {
      closeSync(file);
    }
  } catch {
    return false;
  }
}

/** So many names are read at a stretch: less than a millisecond. */
const slice = 64;

const read = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
const link = (path: string): Promise<string | undefined> => readlink(path).catch(() => undefined);

export function createKubeProxyDetector(deps: KubeProxyDetectorDeps = {}): DetectKubeProxy {
  const { procRoot = '/proc', network = 'self/ns/net' } = deps;
  return async () => {
    const ours = await link(join(procRoot, network));
    const pids = (await readdir(procRoot).catch(() => [])).filter((name) => /^\d+$/.test(name));
    for (const [index, pid] of pids.entries()) {
      if (index % slice === slice - 1) await nextTurn();
      if (!isNamed(`${procRoot}/${pid}/comm`)) continue;
      const program = (await read(join(procRoot, pid, 'cmdline'))).split('\0')[0] ?? '';
      // A zombie has no command line and serves nobody.
      if (basename(program) !== 'kube-proxy') continue;
      if ((await link(join(procRoot, pid, 'ns/net'))) === ours) return `process ${pid} (${program})`;
    }
    return undefined;
  };
}
