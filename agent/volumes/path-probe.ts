// Looks at paths that may lie on a dead network file system. A child process does it: a call that hangs in the kernel would otherwise hold one
// of this process's few file threads for good.
import { ExecError, exec } from '../../lib/exec.ts';
import type { MountTable } from './mount-table.ts';

export type PathKind = 'directory' | 'file' | 'socket' | 'character-device' | 'block-device' | 'other';

export interface ProbedPath {
  readonly kind: PathKind;
  /** Permission bits, with setuid, setgid and sticky. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
}

const probeTimeoutMs = 10_000;
const kinds: ReadonlyMap<number, PathKind> = new Map([
  [0o040000, 'directory'],
  [0o100000, 'file'],
  [0o140000, 'socket'],
  [0o020000, 'character-device'],
  [0o060000, 'block-device'],
]);

/** What is at the path, links followed; undefined where nothing is. Rejects where it cannot be told within 10 s. */
export async function probePath(path: string, signal?: AbortSignal): Promise<ProbedPath | undefined> {
  try {
    const { stdout } = await exec('stat', ['--dereference', '--format=%f %u %g', '--', path], {
      timeoutMs: probeTimeoutMs,
      env: { LC_ALL: 'C' },
      ...(signal ? { signal } : {}),
    });
    const [hex = '0', uid, gid] = stdout.trim().split(' ');
    const raw = Number.parseInt(hex, 16);
    return { kind: kinds.get(raw & 0o170000) ?? 'other', mode: raw & 0o7777, uid: Number(uid), gid: Number(gid) };
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    if (signal?.aborted) throw signal.reason;
    if (error.code === 'timeout')
      throw new Error(`${path} did not answer within ${probeTimeoutMs / 1000} s: its file system hangs`, {
        cause: error,
      });
    if (/No such file or directory|Not a directory/.test(error.stderr)) return undefined;
    throw new Error(error.stderr.trim().replace(/^stat: /, '') || error.message, { cause: error });
  }
}

/** Runs a tool that touches such a path: `mkdir`, `touch`, `df`. */
export async function runOnPath(tool: string, args: readonly string[], signal?: AbortSignal): Promise<string> {
  try {
    const options = { timeoutMs: probeTimeoutMs, env: { LC_ALL: 'C' }, ...(signal ? { signal } : {}) };
    return (await exec(tool, args, options)).stdout;
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    if (error instanceof ExecError && error.code === 'failed' && error.stderr)
      throw new Error(error.stderr.trim(), { cause: error });
    throw error;
  }
}

const network = /^(nfs|cifs|smb|ceph|glusterfs|fuse|9p|afs|lustre|gpfs|beegfs|ocfs2|gfs2|virtiofs|autofs)/;

/** Rejects where the path lies on a network file system that does not answer; costs nothing on others. */
export async function assertAnswers(table: MountTable, path: string, signal?: AbortSignal): Promise<void> {
  if (network.test(table.holding(path)?.fsType ?? '')) await probePath(path, signal);
}
