// An unmodified kubectl, run as an operator would: with input, by WebSocket or SPDY, on a terminal.
import { type ChildProcess, spawn } from 'node:child_process';
import { readFile, readlink } from 'node:fs/promises';
import { exec } from '../../lib/exec.ts';
import { findBinary } from './control-plane.ts';

export interface Ran {
  readonly code: number | null;
  readonly stdout: Buffer;
  readonly stderr: string;
}

export interface KubectlOptions {
  readonly input?: string | Buffer;
  /** Default true; else kubectl speaks SPDY. */
  readonly webSockets?: boolean;
  /** Ended after this many milliseconds. Default 60,000. */
  readonly timeoutMs?: number;
}

/** kubectl on a terminal of its own. */
export interface TerminalSession {
  type(text: string): void;
  /** Resolves with all that was shown once the pattern is in it, counted from `from`; rejects after 30 s with what was shown. */
  shown(pattern: RegExp, from?: number): Promise<string>;
  readonly seen: () => string;
  /** As a person who drags the window's corner does. */
  resize(rows: number, columns: number): Promise<void>;
  readonly ended: Promise<number | null>;
  kill(): void;
}

export interface Kubectl {
  start(args: readonly string[], options?: KubectlOptions): ChildProcess;
  run(args: readonly string[], options?: KubectlOptions): Promise<Ran>;
  terminal(args: readonly string[], options?: KubectlOptions): Promise<TerminalSession>;
}

export function createKubectl(kubeconfig: string, dir: string): Kubectl {
  const settings = ({ webSockets = true }: KubectlOptions) => ({
    cwd: dir,
    env: {
      ...process.env,
      HOME: dir,
      SHELL: '/bin/sh',
      TERM: 'dumb',
      KUBECTL_REMOTE_COMMAND_WEBSOCKETS: String(webSockets),
      KUBECTL_PORT_FORWARD_WEBSOCKETS: String(webSockets),
    },
  });
  const words = (args: readonly string[]): string[] => ['--kubeconfig', kubeconfig, ...args];
  const start: Kubectl['start'] = (args, options = {}) =>
    spawn(findBinary('kubectl'), words(args), { stdio: ['pipe', 'pipe', 'pipe'], ...settings(options) });

  return {
    start,
    run: (args, options = {}) =>
      new Promise((resolve, reject) => {
        const child = start(args, options);
        const late = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 60_000);
        const out: Buffer[] = [];
        let stderr = '';
        child.stdout!.on('data', (part: Buffer) => out.push(part));
        child.stderr!.on('data', (part: Buffer) => {
          stderr += part.toString();
        });
        child.on('error', reject);
        child.on('close', (code) => {
          clearTimeout(late);
          resolve({ code, stdout: Buffer.concat(out), stderr });
        });
        child.stdin!.on('error', () => undefined);
        child.stdin!.end(options.input);
      }),

    async terminal(args, options = {}) {
      // script(1) makes the terminal and ends with kubectl's exit code.
      const command = [findBinary('kubectl'), ...words(args)].map((word) => `'${word}'`).join(' ');
      const child = spawn('script', ['-qefc', `exec ${command}`, '/dev/null'], {
        stdio: ['pipe', 'pipe', 'inherit'],
        ...settings(options),
      });
      let seen = '';
      const onMore = new Set<() => void>();
      child.stdout.on('data', (part: Buffer) => {
        seen += part.toString();
        for (const each of onMore) each();
      });
      child.stdin.on('error', () => undefined);
      const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
      return {
        type: (text) => void child.stdin.write(text),
        seen: () => seen,
        ended,
        kill: () => void child.kill('SIGKILL'),
        shown: (pattern, from = 0) =>
          new Promise((resolve, reject) => {
            const look = (): void => {
              if (!pattern.test(seen.slice(from))) return;
              stop();
              resolve(seen);
            };
            const stop = (): void => {
              clearTimeout(late);
              onMore.delete(look);
            };
            const late = setTimeout(() => {
              stop();
              reject(new Error(`${pattern} was not shown within 30 s, but: ${JSON.stringify(seen.slice(from))}`));
            }, 30_000);
            onMore.add(look);
            look();
          }),
        async resize(rows, columns) {
          const children = await readFile(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8');
          const device = await readlink(`/proc/${children.trim().split(' ')[0]}/fd/0`);
          await exec('stty', ['-F', device, 'rows', String(rows), 'cols', String(columns)]);
        },
      };
    },
  };
}
