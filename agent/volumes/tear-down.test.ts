// Tear-down of what is on disk, beside mounts that another hides; with real folders and a table of mounts in memory.
import { mkdir, mkdtemp, readdir, realpath, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { KubeClient } from '../../kube/client.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createLog } from '../../lib/log.ts';
import { removePodDirectory } from '../pods/parts.ts';
import { createFakeMounts, type FakeMounts } from './fake-mounts.ts';
import { createFakeObjectSource } from './fake-object-source.ts';
import { createPodVolumes, type PodVolumes } from './pod-volumes.ts';

let root = '';
let mounts: FakeMounts;
let lines: string[];
const uid = 'a';
const { signal } = new AbortController();
const at = (...names: string[]): string => join(root, 'pods', uid, ...names);
const emptyDir = () => at('volumes', 'kubernetes.io~empty-dir', 'data');
const secret = () => at('volumes', 'kubernetes.io~secret', 'keys');
const local = () => at('volumes', 'kubernetes.io~local-volume', 'pv1');

const agent = (): PodVolumes => {
  const log = createLog({ level: 'info', format: 'text', write: (line) => void lines.push(line) });
  const deps = { clock: createFakeClock(), log, client: {} as KubeClient, objects: createFakeObjectSource() };
  const more = { mounter: mounts, node: () => undefined, wake: () => undefined };
  return createPodVolumes({ ...deps, ...more }, { rootDir: root, nodeName: 'n' });
};

beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), 'tear-down-')));
  lines = [];
  mounts = createFakeMounts();
  for (const path of [emptyDir(), secret(), local()]) await mkdir(path, { recursive: true });
  await writeFile(join(emptyDir(), 'file'), 'of the pod');
  await mounts.tmpfs(secret(), undefined);
  await mounts.bind('/srv/data', local(), {});
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** As a kubelet does that takes the node over. */
const cover = async (): Promise<void> => {
  await mounts.bind(root, root, {});
  await mounts.share(root);
};
/** The folder goes with the mount where it is empty, as the tool does it. */
const removeToo = (): void => {
  const { unmountHidden } = mounts;
  mounts.unmountHidden = async (hidden, inner) => {
    expect(await readdir(hidden.mountPoint)).toEqual([]);
    await unmountHidden(hidden, inner);
    await rm(hidden.mountPoint, { recursive: true });
  };
};
const refuse = (verb: string, path = ''): void => {
  mounts.before = (tried, place) => {
    if (tried === verb && place.includes(path)) throw new Error('unshare failed: Operation not permitted');
  };
};
const remove = async (volumes: PodVolumes): Promise<void> => {
  await volumes.tearDown(uid, signal);
  await removePodDirectory(at(), () => volumes.held(uid));
};

describe('volumes that another mount hides', () => {
  it('are taken off with the rest', async () => {
    await cover();
    removeToo();
    const volumes = agent();
    expect(await volumes.known()).toEqual([uid]);
    await remove(volumes);
    expect(await readdir(join(root, 'pods'))).toEqual([]);
    expect(mounts.now().hidden('/')).toEqual([]);
    expect(mounts.now().at(root)?.shared).toBe(true);
    expect(lines).toEqual([]);
  });

  it('are taken off after what is mounted anew in their place', async () => {
    await cover();
    removeToo();
    await mounts.tmpfs(secret(), undefined);
    await remove(agent());
    expect(mounts.seen()).toEqual({ '/': '8:1 /', [root]: `8:1 ${root}` });
    expect(await readdir(join(root, 'pods'))).toEqual([]);
  });

  it('hold up no pod where they stay, and are told of once', async () => {
    await cover();
    refuse('unmountHidden');
    const volumes = agent();
    await remove(volumes);
    expect(await volumes.held(uid)).toEqual([secret(), local()]);
    // What nothing holds has gone.
    expect(await readdir(at('volumes'))).toEqual(['kubernetes.io~local-volume', 'kubernetes.io~secret']);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/WARN {2}folders of a pod that is gone stay.*Operation not permitted/);
    // Nothing could be done for it now.
    expect(await volumes.known()).toEqual([]);
    await remove(volumes);
    expect(lines).toHaveLength(1);
  });

  it('are taken down when they are hidden no more', async () => {
    await cover();
    refuse('unmountHidden');
    const volumes = agent();
    await remove(volumes);
    await mounts.unmount(root);
    expect(await volumes.known()).toEqual([uid]);
    await remove(volumes);
    expect(await readdir(join(root, 'pods'))).toEqual([]);
    expect(mounts.now().entries).toHaveLength(1);
  });

  it('are tried again by the next agent', async () => {
    await cover();
    refuse('unmountHidden');
    await remove(agent());
    mounts.before = () => undefined;
    removeToo();
    const next = agent();
    expect(await next.known()).toEqual([uid]);
    await remove(next);
    expect(await readdir(join(root, 'pods'))).toEqual([]);
  });

  it('keep a folder of the pod from being walked when they are in it', async () => {
    await mounts.bind('/srv/other', join(emptyDir(), 'inside'), {});
    await mkdir(join(emptyDir(), 'inside'));
    await cover();
    refuse('unmountHidden', 'inside');
    removeToo();
    await remove(agent());
    expect((await readdir(emptyDir())).sort()).toEqual(['file', 'inside']);
    expect(await readdir(at('volumes'))).toEqual(['kubernetes.io~empty-dir']);
  });

  it('are no excuse for another failure', async () => {
    await cover();
    await mounts.tmpfs(local(), undefined);
    refuse('unmount', 'pv1');
    removeToo();
    await expect(agent().tearDown(uid, signal)).rejects.toThrow(/UnmountVolume.TearDown failed for volume "pv1"/);
  });
});

it('volumes that nothing hides are unmounted and removed', async () => {
  await remove(agent());
  expect(mounts.now().entries).toHaveLength(1);
  expect(await readdir(join(root, 'pods'))).toEqual([]);
});
