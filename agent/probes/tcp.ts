// Whether something accepts connections.
import { connect } from 'node:net';
import { describeSocketError } from './addresses.ts';

/** Undefined: it does. Otherwise why not, in Go's words. Rejects with the signal's reason. */
export function tryTcp(host: string, port: number, signal: AbortSignal): Promise<string | undefined> {
  return new Promise((resolve, reject) => {
    if (signal.aborted) {
      reject(signal.reason);
      return;
    }
    const socket = connect({ host, port });
    const finish = (): void => {
      signal.removeEventListener('abort', onAbort);
      socket.destroy();
    };
    const onAbort = (): void => {
      finish();
      reject(signal.reason);
    };
    signal.addEventListener('abort', onAbort, { once: true });
    socket.on('connect', () => {
      finish();
      resolve(undefined);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      finish();
      resolve(describeSocketError(error, host, port, false));
    });
  });
}
