// Who reaches a server that listens on an unspecified address.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { expect, it } from 'vitest';
import { bindTo } from './bind.ts';

const hasIpv6 = Object.values(networkInterfaces()).some((list) => list?.some(({ address }) => address === '::1'));

async function reached(host: string): Promise<string[]> {
  const server = createServer((_request, response) => response.end('yes'));
  await new Promise<void>((resolve) => server.listen(bindTo(host, 0), resolve));
  const { port } = server.address() as AddressInfo;
  const clients = ['127.0.0.1', ...(hasIpv6 ? ['[::1]'] : [])];
  const answers = await Promise.all(
    clients.map((client) =>
      fetch(`http://${client}:${port}/`).then(
        () => [client],
        () => [],
      ),
    ),
  );
  await new Promise<void>((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
  return answers.flat();
}

it.each(['0.0.0.0', '::', ''])('on %j everybody does', async (host) => {
  expect(await reached(host)).toEqual(['127.0.0.1', ...(hasIpv6 ? ['[::1]'] : [])]);
});

it('on an address of its own who asks there does', async () => {
  expect(await reached('127.0.0.1')).toEqual(['127.0.0.1']);
});
