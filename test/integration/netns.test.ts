// The lab's own promise: hosts talk over their links, nothing reaches the pod and service ranges, and nothing is left behind.
import { existsSync } from 'node:fs';
import { afterEach, expect, it } from 'vitest';
import { exec } from '../../lib/exec.ts';
import { createLabHost, type LabHost } from '../lab/netns.ts';

const hosts: LabHost[] = [];
const make = async (name: string): Promise<LabHost> => {
  const host = await createLabHost(name);
  hosts.push(host);
  return host;
};
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.stop();
});

const server = `require('net').createServer((s) => s.end('hello from ' + s.localAddress)).listen(8080, '::', () => console.log('up'))`;
const client = (address: string): string =>
  `require('net').connect(8080, '${address}').on('data', (d) => process.stdout.write(d)).on('error', (e) => { console.log(e.code); })`;

it('two linked hosts reach each other on both families', async () => {
  const a = await make('a');
  const b = await make('b');
  const link = await a.link(b);
  const child = b.spawn('node', ['-e', server], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => child.stdout?.once('data', resolve));
  expect((await a.exec('node', ['-e', client(link.peerIpv4)])).stdout).toContain(link.peerIpv4);
  expect((await a.exec('node', ['-e', client(link.peerIpv6)])).stdout).toContain(link.peerIpv6);
  expect(await a.addresses()).toEqual([link.ipv4, link.ipv6]);
});

it('service and pod ranges are unreachable at once', async () => {
  const a = await make('a');
  expect((await a.exec('node', ['-e', client('10.96.0.1')])).stdout.trim()).toMatch(/EHOSTUNREACH|ENETUNREACH/);
  expect((await a.exec('node', ['-e', client('10.244.1.1')])).stdout.trim()).toMatch(/EHOSTUNREACH|ENETUNREACH/);
});

it('stop ends what was started and takes the namespace away', async () => {
  const a = await make('a');
  const child = a.spawn('sleep', ['1000']);
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await a.stop();
  await ended;
  expect(existsSync(a.netnsPath)).toBe(false);
  expect((await exec('ip', ['netns', 'list'])).stdout).not.toContain(a.name);
});
