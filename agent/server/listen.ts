// Binds a server; what goes wrong with it later is told, not thrown.
import type { AddressInfo, Server } from 'node:net';
import { bindTo } from '../../lib/bind.ts';

/** The port that it has: the one asked for, or for 0 one that was free. Rejects with the system's error where it cannot be had. */
export const listenOn = (
  server: Server,
  where: { readonly port: number; readonly host: string },
  onError: (error: Error) => void,
): Promise<{ readonly port: number }> =>
  new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(bindTo(where.host, where.port), () => {
      server.removeListener('error', reject);
      server.on('error', onError);
      resolve({ port: (server.address() as AddressInfo).port });
    });
  });
