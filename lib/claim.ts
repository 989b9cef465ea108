// A claim that one process on this machine can hold and a dead one cannot: a listening socket, which the kernel closes with its owner. Works across
// network namespaces, as the socket has a path.
import { rm } from 'node:fs/promises';
import { createConnection, createServer, type Server } from 'node:net';

export interface Claim {
  release(): Promise<void>;
}

/** Somebody alive holds it; `holder` is what they say of themselves. */
export class ClaimedError extends Error {
  override name = 'ClaimedError';
  readonly holder: string;
  constructor(path: string, holder: string) {
    super(`${path} is held by ${holder || 'another process'}`);
    this.holder = holder;
  }
}

const answerMs = 2000;

/** What whoever listens at the path says first; undefined where nobody listens. */
export function askHolder(path: string): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    const socket = createConnection({ path });
    let text = '';
    const done = (): void => {
      socket.destroy();
      resolve(text.trim());
    };
    socket.setTimeout(answerMs, done);
    socket.on('data', (chunk) => {
      text += chunk.toString('utf8');
    });
    socket.on('end', done);
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') resolve(undefined);
      else if (error.code === 'ECONNRESET') done();
      else reject(error);
    });
  });
}

const listen = (server: Server, path: string): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const failed = (error: NodeJS.ErrnoException): void => {
      if (error.code === 'EADDRINUSE') resolve(false);
      else reject(error);
    };
    server.once('error', failed);
    server.listen(path, () => {
      server.off('error', failed);
      resolve(true);
    });
  });

/**
 * Takes the claim, also from one who died with it. `holder` is told to those who come later; it must be this process's alone. Rejects with
 * ClaimedError, or with the system's error where the socket cannot be made.
 */
export async function claim(path: string, holder: string): Promise<Claim> {
  for (let tries = 0; ; tries++) {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.end(holder);
    });
    server.unref();
    if (await listen(server, path)) {
      // Two that found a dead one's socket at the same time: the one whose socket is still there has it.
      if ((await askHolder(path)) === holder)
        return {
          release: () => new Promise((resolve) => server.close(() => resolve())),
        };
      server.close();
    }
    const other = await askHolder(path);
    if (other !== undefined) throw new ClaimedError(path, other);
    if (tries > 2) throw new Error(`${path}: is made and gone again and again`);
    await rm(path, { force: true });
  }
}
