// Whether something accepts connections.
import { connect } from 'node:net';
import { describeSocketError } from './addresses.ts';

/** Settles with undefined where it does, otherwise with why not, in Go's words. Returns what gives it up. */
export function startTcp(host: string, port: number, settle: (why: string | undefined) => void): () => void {
  const socket = connect({ host, port });
  let over = false;
  const end = (why: string | undefined): void => {
    if (over) return;
    over = true;
    socket.destroy();
    settle(why);
  };
  socket.on('connect', () => end(undefined));
  socket.on('error', (error: NodeJS.ErrnoException) => end(describeSocketError(error, host, port, false)));
  return () => {
    over = true;
    socket.destroy();
  };
}
