// Results of CNI that a loss of power left empty.
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { silentLog } from '../../lib/log.ts';
import { RuntimeError } from '../errors.ts';
import { removeBrokenResults } from './cni-results.ts';

const failure = (text: string): RuntimeError => new RuntimeError('unknown', 'StopPodSandbox', text);
const broken = failure(
  'failed to destroy network for sandbox "s1": failed to get network "vm" cached result: decoding version from network config: unexpected end of JSON input',
);

async function setUp() {
  const folder = await mkdtemp(join(tmpdir(), 'sv-results-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const files = {
    'vm-s1-eth0': '',
    'vm-s1-net1': '{"kind":"cniCacheV1"}',
    'vm-s2-eth0': '',
    'cni-loopback-s1-lo': '{"ki',
  };
  for (const [name, text] of Object.entries(files)) await writeFile(join(folder, name), text);
  return { folder, left: async () => (await readdir(folder)).sort() };
}

it('removes those of the sandbox that are not whole, and nobody else’s', async () => {
  const { folder, left } = await setUp();
  expect(await removeBrokenResults('s1', broken, { log: silentLog, folder })).toBe(true);
  expect(await left()).toEqual(['vm-s1-net1', 'vm-s2-eth0']);
  expect(await removeBrokenResults('s1', broken, { log: silentLog, folder })).toBe(false);
});

it('touches nothing for another failure, and bears a folder that is not there', async () => {
  const { folder, left } = await setUp();
  expect(
    await removeBrokenResults('s1', failure('plugin type="bridge" failed (delete)'), { log: silentLog, folder }),
  ).toBe(false);
  expect((await left()).length).toBe(4);
  expect(await removeBrokenResults('s1', broken, { log: silentLog, folder: join(folder, 'none') })).toBe(false);
});
