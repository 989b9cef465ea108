// The last words of a container: the file at its terminationMessagePath, or the end of its log.
import { randomBytes } from 'node:crypto';
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerInspection, Mount } from '../../cri/types.ts';
import type { Container } from '../../kube/types/pod.ts';
import { containerIdentity } from './labels.ts';

const maxFileBytes = 4096;
const maxLogBytes = 2048;
const maxLogLines = 80;
const maxPodBytes = 12 * 1024;

/** How many bytes of its message each of a pod's containers may show in the status. */
export const messageBytesPerContainer = (containers: number): number =>
  Math.floor(maxPodBytes / Math.max(1, containers));

/** `<root>/pods/<uid>/containers/<name>`. */
export const containerDirectory = (podDirectory: string, container: string): string =>
  join(podDirectory, 'containers', container);

/** Makes the file that the container may write its message to, writable for any user. Undefined where the container has no path for it. */
export async function createTerminationLog(
  podDirectory: string,
  container: Container,
  selinux: boolean,
): Promise<Mount | undefined> {
  const path = container.terminationMessagePath;
  if (!path) return undefined;
  const directory = containerDirectory(podDirectory, container.name);
  // Several instances of the container have one each.
  const hostPath = join(directory, randomBytes(4).toString('hex'));
  const make = () => open(hostPath, 'wx', 0o666);
  const file = await make().catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    await mkdir(directory, { recursive: true, mode: 0o750 });
    return await make();
  });
  try {
    // Whatever our umask is.
    await file.chmod(0o666);
  } finally {
    await file.close();
  }
  return {
    containerPath: path,
    hostPath,
    readonly: false,
    recursiveReadOnly: false,
    selinuxRelabel: selinux,
    propagation: 'private',
  };
}

/** The last bytes of a file; undefined where there is none. */
async function tail(path: string, bytes: number, signal: AbortSignal | undefined): Promise<Buffer | undefined> {
  signal?.throwIfAborted();
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, 'r');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const { size } = await file.stat();
    const length = Math.min(size, bytes);
    const buffer = Buffer.alloc(length);
    const { bytesRead } = await file.read(buffer, 0, length, size - length);
    return buffer.subarray(0, bytesRead);
  } finally {
    await file.close();
  }
}

/** What a process wrote, of a log in CRI format (`time stream F|P text`); lines in another format are left out. */
export function textOfLog(log: string): string {
  return log
    .split('\n')
    .flatMap((line) => {
      const match = /^\S+ (?:stdout|stderr) ([FP])(?::\S*)? ?(.*)$/s.exec(line);
      return match ? [match[1] === 'P' ? (match[2] ?? '') : `${match[2] ?? ''}\n`] : [];
    })
    .join('');
}

/** The last `maxLogLines` lines, and of them the last `maxLogBytes` bytes. */
export function lastWords(text: string): string {
  const ends = text.endsWith('\n');
  const lines = (ends ? text.slice(0, -1) : text).split('\n').slice(-maxLogLines);
  const bytes = Buffer.from(lines.join('\n') + (ends ? '\n' : ''));
  return bytes.subarray(Math.max(0, bytes.length - maxLogBytes)).toString('utf8');
}

async function wordsOfLog(path: string, signal: AbortSignal | undefined): Promise<string> {
  // Each line carries at least a time stamp of 35 bytes and the stream; 64 KiB hold well over 2 KiB of text in any sane log.
  const end = await tail(path, 64 * 1024, signal);
  return end === undefined ? '' : lastWords(textOfLog(end.toString('utf8')));
}

const because = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/**
 * The message of a container that has ended, to show as `state.terminated.message`; empty where it left none. What cannot be read is said
 * in the message itself, as the kubelet does. Rejects only when the signal aborts.
 */
export async function terminationMessage(container: ContainerInspection, signal?: AbortSignal): Promise<string> {
  const identity = containerIdentity(container);
  let fallBack =
    identity?.terminationMessagePolicy === 'FallbackToLogsOnError' &&
    container.exitCode !== 0 &&
    container.reason !== 'ContainerCannotRun';
  let message = '';
  const path = identity?.terminationMessagePath ?? '';
  const mount = path === '' ? undefined : container.mounts.find((each) => each.containerPath === path);
  if (mount) {
    try {
      message = (await tail(mount.hostPath, maxFileBytes, signal))?.toString('utf8') ?? '';
    } catch (error) {
      signal?.throwIfAborted();
      fallBack = false;
      message = `Error on reading termination log ${mount.hostPath}: ${because(error)}`;
    }
  }
  if (message === '' && fallBack && container.logPath !== '') {
    try {
      message = await wordsOfLog(container.logPath, signal);
    } catch (error) {
      signal?.throwIfAborted();
      message = `Error on reading termination message from logs: ${because(error)}`;
    }
  }
  return [container.message, message].filter((part) => part !== '').join(': ');
}
