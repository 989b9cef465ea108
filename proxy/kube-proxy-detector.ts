// Looks for a live kube-proxy in this network namespace: two programs that write the same chains would undo each other's work.
import { readdir, readFile, readlink } from 'node:fs/promises';
import { basename, join } from 'node:path';

export interface KubeProxyDetectorDeps {
  /** Default `/proc`. */
  readonly procRoot?: string;
  /** Whose network namespace counts, as a path below `procRoot`; default `self/ns/net`. */
  readonly network?: string;
}

/** Says what was found, for example `process 812 (/usr/local/bin/kube-proxy)`; undefined where none runs. */
export type DetectKubeProxy = () => Promise<string | undefined>;

const read = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');
const link = (path: string): Promise<string | undefined> => readlink(path).catch(() => undefined);

export function createKubeProxyDetector(deps: KubeProxyDetectorDeps = {}): DetectKubeProxy {
  const { procRoot = '/proc', network = 'self/ns/net' } = deps;
  return async () => {
    const ours = await link(join(procRoot, network));
    const pids = (await readdir(procRoot).catch(() => [])).filter((name) => /^\d+$/.test(name));
    for (const pid of pids) {
      if ((await read(join(procRoot, pid, 'comm'))).trim() !== 'kube-proxy') continue;
      const program = (await read(join(procRoot, pid, 'cmdline'))).split('\0')[0] ?? '';
      // A zombie has no command line and serves nobody.
      if (basename(program) !== 'kube-proxy') continue;
      if ((await link(join(procRoot, pid, 'ns/net'))) === ours) return `process ${pid} (${program})`;
    }
    return undefined;
  };
}
