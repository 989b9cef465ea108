// The one file that changes mounts. It calls mount(8) and umount(8), so that a file system which hangs holds up a child and not this process.
import { release } from 'node:os';
import { ExecError, exec } from '../../lib/exec.ts';
import { type MountTable, sharedTableReader } from './mount-table.ts';

/** A mount or unmount that did not work; the message is the tool's own. */
export class MountError extends Error {
  override name = 'MountError';
}

export interface Mounter {
  table(): Promise<MountTable>;
  /** Binds `source` on `target`; `readOnly` is applied in a second step, as bind mounts need. */
  bind(
    source: string,
    target: string,
    options: { recursive?: boolean; readOnly?: boolean },
    signal?: AbortSignal,
  ): Promise<void>;
  mount(
    request: { fsType: string; source: string; target: string; options: readonly string[]; timeoutMs?: number },
    signal?: AbortSignal,
  ): Promise<void>;
  /** A tmpfs; without swap where the kernel can. `sizeBytes` undefined: the kernel's default. */
  tmpfs(target: string, sizeBytes: bigint | undefined, signal?: AbortSignal): Promise<void>;
  /** Takes off what is mounted on top at the path; nothing there is no error. A busy or dead one is detached lazily. */
  unmount(target: string, signal?: AbortSignal): Promise<void>;
  /** As unmount, but rejects where it is busy or something is mounted below. */
  unmountIdle(target: string, signal?: AbortSignal): Promise<void>;
  /** Moves a mount with all that is mounted below it. Not possible from below a shared mount. */
  move(source: string, target: string, signal?: AbortSignal): Promise<void>;
  /** Makes the mount at the path, and those below it, shared. */
  share(target: string, signal?: AbortSignal): Promise<void>;
  /** Makes the mount at the path, and no other, private. */
  keepPrivate(target: string, signal?: AbortSignal): Promise<void>;
  /** Takes off a mount that others hide, with the empty folder or file it is mounted on. Rejects where that is not empty. */
  unmountHidden(hidden: HiddenMount, signal?: AbortSignal): Promise<void>;
}

/** How to come to a mount that no path leads to (hidden-mounts.ts). */
export interface HiddenMount {
  /** Where it is mounted. */
  readonly mountPoint: string;
  /** What has to be unmounted before that path leads to its folder again, it last; a path twice where two are mounted there. */
  readonly covers: readonly string[];
}

// Works in a mount namespace of its own, a private copy of this one: nothing that is unmounted there is unmounted here. Removing the folder is
// what takes the mount off here: the kernel detaches what is mounted on a folder that another namespace removes, in every namespace. The folder
// is empty or it stays, so no data is in danger, not even where the table has changed meanwhile.
const unmountHiddenScript = `set -e
place=$1; shift
for cover; do umount --internal-only --no-canonicalize --lazy "$cover"; done
if [ -d "$place" ]; then rmdir "$place"
elif [ -s "$place" ]; then echo "$place is not empty" >&2; exit 1
else unlink "$place"; fi`;

const kernelAtLeast = (major: number, minor: number): boolean => {
  const [a = 0, b = 0] = release().split(/[.-]/).map(Number);
  return a > major || (a === major && b >= minor);
};

export interface MounterDeps {
  /** Runs mount and umount; default lib/exec. */
  readonly run?: typeof exec;
  /** Default: /proc/self/mountinfo. */
  readonly readTable?: () => Promise<MountTable>;
}

const mountTimeoutMs = 120_000;
const unmountTimeoutMs = 20_000;

export function createMounter(deps: MounterDeps = {}): Mounter {
  const { run = exec, readTable = sharedTableReader() } = deps;

  const call = async (
    tool: 'mount' | 'umount' | 'unshare',
    args: readonly string[],
    timeoutMs: number,
    signal: AbortSignal | undefined,
    fsType = '',
  ) => {
    try {
      // A helper such as mount.nfs that outlived mount(8) would go on trying, and mount a second time once its server is back.
      const group = /^(nfs|cifs|smb|ceph|glusterfs|fuse|9p)/.test(fsType);
      const options = { timeoutMs, env: { LC_ALL: 'C' }, ...(group && { group }), ...(signal && { signal }) };
      await run(tool, args, options);
    } catch (error) {
      if (!(error instanceof ExecError)) throw error;
      if (error.code === 'aborted' && signal?.aborted) throw signal.reason;
      const late = error.code === 'timeout' ? `no end within ${timeoutMs / 1000} s` : undefined;
      const output = [late, error.stderr.trim()].filter(Boolean).join(': ') || error.message;
      const shown = args.filter((arg) => arg !== unmountHiddenScript).join(' ');
      throw new MountError(`${tool} failed: ${output} (${tool} ${shown})`, { cause: error });
    }
  };

  const mounter: Mounter = {
    table: readTable,
    async bind(source, target, options, signal) {
      const kind = options.recursive ? '--rbind' : '--bind';
      await call('mount', ['--no-canonicalize', kind, source, target], mountTimeoutMs, signal);
      if (!options.readOnly) return;
      try {
        await call('mount', ['--no-canonicalize', '-o', 'remount,bind,ro', target], mountTimeoutMs, signal);
      } catch (error) {
        // A volume that should be read-only must not stay behind writable.
        await mounter.unmount(target);
        throw error;
      }
    },
    async mount({ fsType, source, target, options, timeoutMs }, signal) {
      const flags = options.length > 0 ? ['-o', options.join(',')] : [];
      await call('mount', ['-t', fsType, ...flags, source, target], timeoutMs ?? mountTimeoutMs, signal, fsType);
    },
    async tmpfs(target, sizeBytes, signal) {
      const size = sizeBytes !== undefined && sizeBytes > 0n ? [`size=${sizeBytes}`] : [];
      const request = { fsType: 'tmpfs', source: 'tmpfs', target };
      if (kernelAtLeast(6, 4)) {
        try {
          await mounter.mount({ ...request, options: [...size, 'noswap'] }, signal);
          return;
        } catch (error) {
          // Not every kernel lets every caller have it (user namespaces, no swap built in).
          if (!(error instanceof MountError)) throw error;
        }
      }
      await mounter.mount({ ...request, options: size }, signal);
    },
    async unmount(target, signal) {
      const mounted = (await readTable()).at(target);
      if (!mounted) return;
      const { fsType } = mounted;
      try {
        await call('umount', ['--no-canonicalize', target], unmountTimeoutMs, signal, fsType);
      } catch (error) {
        if (signal?.aborted) throw error;
        if (!(await readTable()).at(target)) return;
        await call('umount', ['--no-canonicalize', '--force', '--lazy', target], unmountTimeoutMs, signal, fsType);
      }
    },
    async unmountIdle(target, signal) {
      await call('umount', ['--no-canonicalize', target], unmountTimeoutMs, signal);
    },
    async move(source, target, signal) {
      await call('mount', ['--no-canonicalize', '--move', source, target], mountTimeoutMs, signal);
    },
    async share(target, signal) {
      await call('mount', ['--no-canonicalize', '--make-rshared', target], mountTimeoutMs, signal);
    },
    async keepPrivate(target, signal) {
      await call('mount', ['--no-canonicalize', '--make-private', target], mountTimeoutMs, signal);
    },
    async unmountHidden({ mountPoint, covers }, signal) {
      const own = ['--mount', '--propagation', 'private', '--', 'sh', '-c', unmountHiddenScript, 'sh'];
      await call('unshare', [...own, mountPoint, ...covers], unmountTimeoutMs, signal);
    },
  };
  return mounter;
}
