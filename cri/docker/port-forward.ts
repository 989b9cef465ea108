// Connects to ports inside a sandbox's network. A small Node process enters the network namespace, connects, and hands the connected socket
// over: the bytes then pass through it no more. It stays for a while, for the next connection.
import { type ChildProcess, spawn } from 'node:child_process';
import { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import type { Clock, Timer } from '../../lib/clock.ts';
import { RuntimeError } from '../errors.ts';
import type { PortOpener } from '../types.ts';

export interface PortForwards {
  /** `pid` finds the process whose network it is, when a connection is wanted. */
  opener(sandbox: string, pid: () => Promise<number>): PortOpener;
  /** Lets go of the sandbox's network. */
  release(sandbox: string): void;
  close(): void;
}

interface Entered {
  readonly child: ChildProcess;
  readonly waiting: Map<number, { resolve(socket: Socket): void; reject(error: Error): void }>;
  idle?: Timer | undefined;
}

const idleMs = 10_000;
const connectMs = 10_000;

// Runs in the pod's network, so it is kept to what it must do. It reads nothing from the sockets: every byte is for whoever takes them over.
const program = `
const net = require('node:net');
process.on('message', ({ id, port }) => {
  const attempt = (hosts, failed) => {
    const host = hosts[0];
    if (host === undefined) return process.send({ id, error: failed.join(', ') });
    const socket = new net.Socket({ allowHalfOpen: true });
    socket.pause();
    socket.once('error', (error) => attempt(hosts.slice(1), [...failed, host + ': ' + (error.code || error.message)]));
    socket.once('connect', () => {
      socket.removeAllListeners('error');
      socket.on('error', () => undefined);
      process.send({ id }, socket, { keepOpen: false });
    });
    socket.connect(port, host);
  };
  attempt(['127.0.0.1', '::1'], []);
});
process.on('disconnect', () => process.exit(0));
`;

export function createPortForwards(deps: { readonly clock: Clock }): PortForwards {
  const entered = new Map<string, Entered>();
  let next = 0;

  const release = (sandbox: string): void => {
    const found = entered.get(sandbox);
    if (!found) return;
    entered.delete(sandbox);
    found.idle?.cancel();
    found.child.kill('SIGKILL');
  };

  function enter(sandbox: string, pid: number): Entered {
    const node = [process.execPath, '--no-warnings', '--eval', program];
    const child = spawn('nsenter', ['--target', String(pid), '--net', '--', ...node], {
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      env: { PATH: process.env.PATH ?? '/usr/sbin:/usr/bin:/sbin:/bin' },
    });
    const found: Entered = { child, waiting: new Map() };
    child.on('message', (message: { id: number; error?: string }, handle: unknown) => {
      const waiting = found.waiting.get(message.id);
      found.waiting.delete(message.id);
      if (handle instanceof Socket && !waiting) handle.destroy();
      if (!waiting) return;
      if (handle instanceof Socket) waiting.resolve(handle);
      else waiting.reject(new Error(message.error ?? 'the connection was not handed over'));
    });
    const gone = (why: string) => (): void => {
      if (entered.get(sandbox) === found) entered.delete(sandbox);
      for (const { reject } of found.waiting.values()) reject(new Error(why));
      found.waiting.clear();
    };
    child.on('error', gone('nsenter cannot be run: it is in the package util-linux'));
    child.on('exit', gone('the sandbox’s network cannot be entered; it may have ended'));
    child.unref();
    child.channel?.unref();
    entered.set(sandbox, found);
    return found;
  }

  async function connect(
    sandbox: string,
    pid: () => Promise<number>,
    port: number,
    signal: AbortSignal,
  ): Promise<Socket> {
    const process = await pid();
    const found = entered.get(sandbox) ?? enter(sandbox, process);
    found.idle?.cancel();
    const id = next++;
    const late = new AbortController();
    const overdue = deps.clock.setTimer(connectMs, () =>
      late.abort(new Error(`no answer within ${connectMs / 1000} s`)),
    );
    const either = AbortSignal.any([signal, late.signal]);
    try {
      return await new Promise<Socket>((resolve, reject) => {
        const onAbort = (): void => {
          found.waiting.delete(id);
          reject(either.reason);
        };
        either.addEventListener('abort', onAbort, { once: true });
        found.waiting.set(id, { resolve, reject });
        found.child.send({ id, port }, (error) => {
          if (error && found.waiting.delete(id)) reject(error);
        });
      });
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      const why = (error as Error).message;
      throw new RuntimeError(
        'invalid',
        'PortForward',
        `failed to connect to localhost:${port} inside sandbox ${sandbox}: ${why}`,
        error,
      );
    } finally {
      overdue.cancel();
      found.idle?.cancel();
      found.idle = deps.clock.setTimer(idleMs, () => {
        if (entered.get(sandbox) === found && found.waiting.size === 0) release(sandbox);
      });
    }
  }

  return {
    opener: (sandbox, pid) => async (port, signal) => {
      const socket = await connect(sandbox, pid, port, signal);
      socket.allowHalfOpen = true;
      const onAbort = (): void => void socket.destroy();
      signal.addEventListener('abort', onAbort, { once: true });
      socket.once('close', () => signal.removeEventListener('abort', onAbort));
      socket.on('error', () => undefined);
      const { readable, writable } = Duplex.toWeb(socket);
      return {
        readable: readable as unknown as ReadableStream<Uint8Array>,
        writable: writable as unknown as WritableStream<Uint8Array>,
      };
    },
    release,
    close() {
      for (const sandbox of [...entered.keys()]) release(sandbox);
    },
  };
}
