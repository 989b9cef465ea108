// Mounts of a root directory on a host where `/` is private: the daemon's own shared mount of it, and volumes that a kubelet hid by making such a
// mount over them. Each story runs in a mount namespace of its own.
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Findings } from '../lab/hidden-volumes.ts';
import { crashPod } from '../lab/volumes-crash.ts';

const program = resolve(import.meta.dirname, '../lab/hidden-volumes.ts');
const uid = crashPod.metadata.uid!;
const other = '99999999-2222-4333-8444-555555555555';
const othersMount = `/pods/${other}/volumes/kubernetes.io~empty-dir/memory`;
let root: string;

beforeEach(async () => {
  if (process.getuid?.() !== 0) throw new Error('this test needs root');
  root = await mkdtemp(join(tmpdir(), 'stevedore-hidden-'));
  for (const folder of ['host', 'local/data', 'driver/data/handle'])
    await mkdir(join(root, folder), { recursive: true });
  await writeFile(join(root, 'host/precious'), 'host');
  await writeFile(join(root, 'local/data/precious'), 'local');
  await writeFile(join(root, 'driver/data/handle/precious'), 'csi');
});
// Other namespaces hold nothing of it: what was mounted went with the story's process.
afterEach(() => rm(root, { recursive: true, force: true }));

async function tell(story: string): Promise<Findings> {
  const args = ['--mount', '--propagation', 'private', process.execPath, program, root, story];
  const { stdout } = await promisify(execFile)('unshare', args, { timeout: 60_000 });
  expect(await readFile(join(root, 'host/precious'), 'utf8')).toBe('host');
  expect(await readFile(join(root, 'local/data/precious'), 'utf8')).toBe('local');
  expect(await readFile(join(root, 'driver/data/handle/precious'), 'utf8')).toBe('csi');
  return JSON.parse(stdout) as Findings;
}

const ofPod = (paths: readonly string[] | undefined): string[] =>
  (paths ?? []).filter((path) => path.startsWith(`/pods/${uid}/`) || path.startsWith('/plugins/'));

describe('volumes that another mount hides', { timeout: 120_000 }, () => {
  it('are taken off with their pod, and nobody else’s are', async () => {
    const { mounts, facts, log } = await tell('covered');
    const hidden = mounts.covered?.hidden ?? [];
    expect(mounts.covered?.seen).toEqual(['']);
    expect(hidden.toSorted()).toEqual(mounts['set up']?.seen.toSorted());
    // Token and secret, memory, local, CSI published and staged, two subPaths.
    expect(ofPod(hidden)).toHaveLength(7);
    expect(facts.rmdir).toBe('EBUSY');
    expect(mounts['torn down']).toEqual({ seen: [''], hidden: [othersMount] });
    expect(mounts.uncovered).toEqual({ seen: [othersMount], hidden: [] });
    expect(facts.pods).toEqual([other]);
    expect(facts.calls).toEqual(['NodeUnpublishVolume', 'NodeUnstageVolume']);
    expect(await readdir(join(root, 'plugins/kubernetes.io/csi', 'crash.csi.example.com'))).toEqual([]);
    expect(log).toEqual([]);
  });

  it('are taken off together with what was mounted in their place', async () => {
    const { mounts, facts } = await tell('covered and set up again');
    expect(ofPod(mounts['set up again']?.seen)).toHaveLength(7);
    expect(ofPod(mounts['set up again']?.hidden)).toHaveLength(7);
    expect(ofPod(mounts['torn down']?.seen)).toEqual([]);
    expect(ofPod(mounts['torn down']?.hidden)).toEqual([]);
    expect(facts.pods).toEqual([other]);
  });

  it('hold up no pod where they stay, and go when they are seen again', async () => {
    const { mounts, facts, log } = await tell('covered for good');
    expect(facts).toMatchObject({ knownWhileHeld: [other], held: 6, podsWhileHeld: [uid, other], file: 'in memory' });
    expect(facts.knownThen).toEqual([uid, other]);
    expect(log.filter((line) => line.includes('folders of a pod that is gone stay'))).toHaveLength(1);
    expect(mounts['torn down']).toEqual({ seen: [othersMount], hidden: [] });
    expect(facts.pods).toEqual([other]);
  });
});

it('a root directory that is made shared takes its mounts along, passes others on, and is given back', async () => {
  const { mounts, facts, log } = await tell('shared');
  expect(mounts.shared?.hidden).toEqual([]);
  expect(mounts.shared?.seen.toSorted()).toEqual(['', ...(mounts['set up']?.seen ?? [])].toSorted());
  expect(facts).toMatchObject({ file: 'in memory', propagated: 'tmpfs', pods: [other], unshared: true });
  expect(mounts['torn down']).toEqual({ seen: [othersMount, ''], hidden: [] });
  expect(mounts.unshared).toEqual({ seen: [], hidden: [] });
  expect(log).toHaveLength(1);
  expect(log[0]).toContain('it is a shared mount of its own now');
}, 120_000);
