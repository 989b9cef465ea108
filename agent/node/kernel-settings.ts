// The settings of the host's kernel that pods are run under, as the kubelet has them: memory is promised without counting (programs that fork
// with much memory rely on it), a process is killed where memory is short, and a kernel that has lost its way starts again. The kubelet sets them
// at its start; with protectKernelDefaults it refuses to run where they are otherwise.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describeError, type Log } from '../../lib/log.ts';

/** Below /proc/sys. */
const wanted: readonly (readonly [path: string, value: number])[] = [
  ['vm/overcommit_memory', 1],
  ['vm/panic_on_oom', 0],
  ['kernel/panic', 10],
  ['kernel/panic_on_oops', 1],
  ['kernel/keys/root_maxkeys', 1_000_000],
  ['kernel/keys/root_maxbytes', 25_000_000],
];

const nameOf = (path: string): string => path.replaceAll('/', '.');

/**
 * Sets what is otherwise, and tells of each; what cannot be set is warned of and stays. `protect`: nothing is set, and an Error names all that is
 * otherwise, with the command that sets it.
 */
export async function applyKernelSettings(
  { log }: { readonly log: Log },
  { protect, procSys = '/proc/sys' }: { readonly protect: boolean; readonly procSys?: string },
): Promise<void> {
  const found = await Promise.all(
    wanted.map(async ([path, value]) => {
      // A kernel without it, or a container that may not see it.
      const text = await readFile(join(procSys, path), 'utf8').catch(() => undefined);
      return { path, value, is: text === undefined ? undefined : Number(text) };
    }),
  );
  const otherwise = found.filter(({ is, value }) => is !== value);
  if (protect) {
    if (otherwise.length === 0) return;
    const what = otherwise.map(
      ({ path, is, value }) => `${nameOf(path)} is ${is ?? 'not to be read'} where ${value} is wanted`,
    );
    const command = otherwise.map(({ path, value }) => `${nameOf(path)}=${value}`).join(' ');
    throw new Error(
      `protectKernelDefaults is set, and the kernel's settings are not those of a node: ${what.join('; ')}. Set them (sysctl -w ${command}, and in a file of /etc/sysctl.d), or leave protectKernelDefaults out`,
    );
  }
  for (const { path, is, value } of otherwise) {
    if (is === undefined) continue;
    const setting = nameOf(path);
    try {
      await writeFile(join(procSys, path), String(value));
      log.info('a setting of the kernel is that of a node now', { setting, was: is, is: value });
    } catch (error) {
      log.warn('a setting of the kernel is not that of a node, and cannot be set here; pods run all the same', {
        setting,
        is,
        wanted: value,
        error: describeError(error),
      });
    }
  }
}
