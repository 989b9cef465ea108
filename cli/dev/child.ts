// A program that runs beside us: started with its output in a file, told to end, found again by its pid file after we were killed.
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, open, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Clock } from '../../lib/clock.ts';

export interface ChildOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly logPath: string;
  readonly pidPath: string;
}

export interface Child {
  /** Rejects, with the end of its log, as soon as the program ends though nobody asked it to. */
  readonly ended: Promise<never>;
  /** SIGTERM, then SIGKILL after `patienceMs`. Resolves when it is gone. */
  stop(patienceMs: number): Promise<void>;
}

const keptLogBytes = 3000;

export async function startChild(clock: Clock, options: ChildOptions): Promise<Child> {
  await mkdir(dirname(options.logPath), { recursive: true });
  await mkdir(dirname(options.pidPath), { recursive: true });
  const log = await open(options.logPath, 'w', 0o600);
  // A group of its own: Ctrl-C at the terminal reaches us alone, and we end things in order.
  const child: ChildProcess = spawn(options.command, options.args, {
    stdio: ['ignore', log.fd, log.fd],
    env: { ...process.env, ...options.env },
    detached: true,
  });
  await log.close();
  if (child.pid !== undefined) await writeFile(options.pidPath, `${child.pid}\n`);
  let stopping = false;
  const closed = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(signal ? `signal ${signal}` : `exit code ${code}`));
  });
  const ended = closed.then(async (how) => {
    if (stopping) return new Promise<never>(() => undefined);
    const said = await readFile(options.logPath, 'utf8').catch(() => '');
    throw new Error(
      `${options.command} ended by itself (${how}); its log, ${options.logPath}, ends:\n${said.slice(-keptLogBytes)}`,
    );
  });
  ended.catch(() => undefined);
  return {
    ended,
    async stop(patienceMs) {
      stopping = true;
      child.kill('SIGTERM');
      const timer = clock.setTimer(patienceMs, () => child.kill('SIGKILL'));
      await closed;
      timer.cancel();
      await rm(options.pidPath, { force: true });
    },
  };
}

/** Ends what an earlier run left: the process of the pid file, if its command line still names `mark`. */
export async function endLeftover(clock: Clock, pidPath: string, mark: string): Promise<boolean> {
  const pid = Number(await readFile(pidPath, 'utf8').catch(() => '0'));
  const command = (): Promise<string> => readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  if (!(pid > 1) || !(await command()).includes(mark)) return false;
  for (const signal of ['SIGTERM', 'SIGKILL'] as const) {
    try {
      process.kill(pid, signal);
    } catch {
      return true;
    }
    for (let tries = 0; tries < 100; tries++) {
      if (!(await command()).includes(mark)) return true;
      await clock.sleep(100);
    }
  }
  throw new Error(`process ${pid} of an earlier run does not end; end it with: kill -9 ${pid}`);
}
