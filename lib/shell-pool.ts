// Shells that stay, to start other programs from. A fork of this process copies the page tables of the whole daemon and stands still
// meanwhile: 27 ms at 130 MB, measured; a fork of a small shell takes about one. One program at a time in each shell.
//
//   idle ──run──▶ busy ──the mark came on both streams──▶ idle ──unused for a while──▶ ended (its input is closed)
//                  └──killed, or the shell ended by itself──▶ ended
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:os';
import type { Readable, Writable } from 'node:stream';
import type { Run, RunOptions } from './spawn.ts';

interface Shell {
  readonly child: ChildProcess;
  busy: boolean;
  ended: boolean;
  idleTimer: NodeJS.Timeout | undefined;
}

/** Programs take turns in so many shells, as long as those are quick. */
const usualShells = 4;
/** Where no shell came free for so long while somebody waits, there is one more: those that are busy may be for minutes. Each costs a fork of this process. */
const patienceMs = 50;
/** So many stay however long they are idle. */
const keptShells = 1;
const idleMs = 30_000;
/** A shell reads a here-document character by character: longer input is better piped. */
const longestInput = 128 * 1024;

const newline = 10;

const shells = new Set<Shell>();

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** Whether a shell can start it just as it is meant. */
export function fitsShell(words: readonly string[], { input, env, cwd }: RunOptions): boolean {
  if (cwd !== undefined || input instanceof Uint8Array) return false;
  if (input !== undefined && (input.length > longestInput || input.includes('\0'))) return false;
  if (input !== undefined && input !== '' && !input.endsWith('\n')) return false;
  if (words.some((word) => word.includes('\0'))) return false;
  return Object.entries(env ?? {}).every(([name, value]) => /^[A-Za-z_]\w*$/.test(name) && !value.includes('\0'));
}

function script(words: readonly string[], mark: string, { input, env }: RunOptions): string {
  const given = Object.entries(env ?? {}).map(([name, value]) => `${name}=${quoted(value)} `);
  const command = `${given.join('')}${words.map(quoted).join(' ')}`;
  const [from, document] = input ? [`<<'${mark}'`, `${input}${mark}\n`] : ['</dev/null', ''];
  // In the background, so that its process id is known; the shell itself prints the marks, when the program has ended.
  return (
    `${command} ${from} 3>&- &\n${document}p=$!\necho $p >&3\nwait $p\nr=$?\n` +
    `printf '%s %d\\n' ${mark} $r\nprintf '%s\\n' ${mark} >&2\n`
  );
}

function startShell(): Shell | undefined {
  const child = spawn('/bin/sh', [], { stdio: ['pipe', 'pipe', 'pipe', 'pipe'], detached: true });
  if (child.pid === undefined) {
    child.on('error', () => undefined);
    return undefined;
  }
  const shell: Shell = { child, busy: false, ended: false, idleTimer: undefined };
  const end = (): void => {
    shell.ended = true;
    shells.delete(shell);
  };
  child.on('error', end);
  child.on('exit', end);
  child.stdin?.on('error', () => undefined);
  shells.add(shell);
  return shell;
}

const signalNames = new Map(Object.entries(constants.signals).map(([name, number]) => [number, name]));

/** A shell tells of an end by a signal as 128 and the signal's number. */
function endOf(status: number): { exitCode: number | undefined; killedBy: string | undefined } {
  const killedBy = status > 128 ? signalNames.get(status - 128) : undefined;
  return killedBy ? { exitCode: undefined, killedBy } : { exitCode: status, killedBy: undefined };
}

const streamsOf = ({ child }: Shell) => {
  const [, stdout, stderr, control] = child.stdio as unknown as [Writable, Readable, Readable, Readable];
  return { stdout, stderr, control };
};

// A shell that waits for work does not keep this process alive.
function hold(shell: Shell, on: boolean): void {
  const { child } = shell;
  const handles = [child, ...child.stdio] as unknown as readonly { ref(): void; unref(): void }[];
  for (const handle of handles) {
    if (on) handle.ref();
    else handle.unref();
  }
}

const freeShell = (): Shell | undefined => {
  for (const shell of shells) if (!shell.busy && !shell.ended) return shell;
  return undefined;
};

// First come, first served.
const waiting: ((shell: Shell | undefined) => void)[] = [];
let growTimer: NodeJS.Timeout | undefined;

// From the last shell that came free on, not from when each began to wait: a crowd that is being served must not become a crowd of shells.
function watchProgress(): void {
  clearTimeout(growTimer);
  growTimer = undefined;
  if (waiting.length > 0) growTimer = setTimeout(() => serveFirst(startShell()), patienceMs);
}

function serveFirst(shell: Shell | undefined): void {
  if (shell) shell.busy = true;
  waiting.shift()?.(shell);
  watchProgress();
}

/** Undefined where none can be started. */
async function takeShell(): Promise<Shell | undefined> {
  if (waiting.length === 0) {
    const shell = freeShell() ?? (shells.size < usualShells ? startShell() : undefined);
    if (shell) shell.busy = true;
    if (shell || shells.size < usualShells) return shell;
  }
  return new Promise((resolve) => {
    waiting.push(resolve);
    if (growTimer === undefined) watchProgress();
  });
}

function release(shell: Shell): void {
  shell.busy = false;
  if (shell.ended) {
    hold(shell, false);
    dismiss(shell);
    if (waiting.length > 0) serveFirst(startShell());
  } else if (waiting.length > 0) serveFirst(shell);
  else {
    hold(shell, false);
    shell.idleTimer = setTimeout(() => {
      if (shells.size > keptShells) dismiss(shell);
    }, idleMs).unref();
  }
}

// At the end of its input a shell ends.
function dismiss(shell: Shell): void {
  shells.delete(shell);
  shell.child.stdin?.end();
  for (const stream of [shell.child.stdout, shell.child.stderr, streamsOf(shell).control]) stream?.destroy();
}

function send(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended already.
  }
}

function notStarted(reason: unknown): Run {
  const done = Promise.reject(reason);
  done.catch(() => undefined);
  return { kill: () => undefined, done };
}

/** Undefined where there is no shell: to be started otherwise. */
export async function runInShell(words: readonly string[], options: RunOptions): Promise<Run | undefined> {
  const shell = await takeShell();
  if (!shell) return undefined;
  clearTimeout(shell.idleTimer);
  if (options.signal?.aborted) {
    release(shell);
    return notStarted(options.signal.reason);
  }
  hold(shell, true);
  const mark = `stevedore-${randomBytes(12).toString('hex')}`;
  const { stdout, stderr, control } = streamsOf(shell);
  let pid: number | undefined;
  let killTimer: NodeJS.Timeout | undefined;
  const kill = (): void => {
    // What the program started may print later: nothing else is run here.
    shell.ended = true;
    shells.delete(shell);
    if (pid !== undefined) send(pid);
    // The shell tells of the end and reaps the program; one that cannot is ended too.
    killTimer ??= setTimeout(() => send(-shell.child.pid!), pid === undefined ? 0 : 100);
  };
  const done = Promise.withResolvers<Awaited<Run['done']>>();
  const out = collect(stdout, `${mark} `, options.onOutput);
  const err = collect(stderr, mark, options.onOutput);
  const onControl = (chunk: Buffer): void => {
    pid = Number(chunk.toString('latin1').trim());
    options.onSpawn?.(pid);
  };
  const onExit = (): void => done.reject(new Error('the shell that started it ended'));
  const stop = (): void => {
    out.stop();
    err.stop();
    control.off('data', onControl);
    shell.child.off('exit', onExit);
  };
  control.on('data', onControl);
  shell.child.on('exit', onExit);
  Promise.all([out.done, err.done])
    .then(([said, complained]) =>
      done.resolve({ ...endOf(Number(said.after)), stdout: said.before, stderr: complained.before }),
    )
    .catch(done.reject);
  shell.child.stdin?.write(script(words, mark, options));
  return {
    kill,
    done: done.promise.finally(() => {
      stop();
      clearTimeout(killTimer);
      release(shell);
    }),
  };
}

interface Collected {
  readonly before: Buffer;
  /** What follows the mark on its line. */
  readonly after: string;
}

/** Reads up to the mark, which is the last thing said and may come in pieces. */
function collect(stream: Readable, mark: string, onOutput: ((bytes: number) => void) | undefined) {
  const found = Promise.withResolvers<Collected>();
  const parts: Buffer[] = [];
  const tail = (): Buffer => {
    let from = parts.length;
    for (let size = 0; from > 0 && size < mark.length + 8; size += parts[from]!.length) from--;
    return Buffer.concat(parts.slice(from));
  };
  const onData = (chunk: Buffer): void => {
    parts.push(chunk);
    onOutput?.(chunk.length);
    if (chunk.at(-1) !== newline || !tail().includes(mark)) return;
    const whole = Buffer.concat(parts);
    const at = whole.lastIndexOf(mark);
    found.resolve({ before: whole.subarray(0, at), after: whole.toString('latin1', at + mark.length).trim() });
  };
  stream.on('data', onData);
  return { done: found.promise, stop: () => void stream.off('data', onData) };
}
