// PersistentVolumeClaims on this host: local folders, local devices, hostPath, nfs and generic ephemeral volumes; and what goes wrong with disks.
import { execFile } from 'node:child_process';
import { chmod, mkdir, readFile, readlink, stat, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readMountTable } from '../../agent/volumes/mount-table.ts';
import { createFakeClient, type FakeClient } from '../../kube/fake-client.ts';
import { resources } from '../../kube/resources.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { PersistentVolume, PersistentVolumeClaim } from '../../kube/types/volume.ts';
import { createMounter } from '../../agent/volumes/mounter.ts';
import { labPod, signal, type VolumesLab, volumesLab } from '../lab/volumes.ts';

const run = promisify(execFile);
let client: FakeClient;
let lab: VolumesLab;
let loop: string | undefined;
const node: Node = { metadata: { name: 'lab', labels: { zone: 'a' } }, spec: {}, status: {} };

beforeEach(async () => {
  if (process.getuid?.() !== 0) throw new Error('this test needs root');
  client = createFakeClient();
  client.seed(resources.nodes, node);
  lab = await volumesLab({ client, node: () => node });
});
afterEach(async () => {
  await lab.close();
  if (loop) await run('losetup', ['-d', loop]);
  loop = undefined;
});

function bind(
  name: string,
  source: Partial<PersistentVolume['spec']>,
  more: { claim?: Partial<PersistentVolumeClaim['spec']>; phase?: string; meta?: object; pvMeta?: object } = {},
): void {
  client.seed(resources.persistentVolumeClaims, {
    metadata: { name, namespace: 'default', uid: `uid-${name}`, ...more.meta },
    spec: { volumeName: `pv-${name}`, ...more.claim },
    status: { phase: more.phase ?? 'Bound' },
  });
  client.seed(resources.persistentVolumes, {
    metadata: { name: `pv-${name}`, ...more.pvMeta },
    spec: { accessModes: ['ReadWriteOnce'], claimRef: { namespace: 'default', name, uid: `uid-${name}` }, ...source },
  });
}
const podWith = (claimName: string, readOnly = false): Pod =>
  labPod({ volumes: [{ name: 'v', persistentVolumeClaim: { claimName, readOnly } }] });
const name = (claim: string) => ({ namespace: 'default', name: claim });
const localPath = (pod: Pod, pv: string): string =>
  join(lab.root, 'pods', pod.metadata.uid!, 'volumes/kubernetes.io~local-volume', pv);
async function gone(pod: Pod): Promise<void> {
  await lab.volumes.tearDown(pod.metadata.uid!, signal());
  await expect(stat(join(lab.root, 'pods', pod.metadata.uid!))).rejects.toThrow('ENOENT');
}
async function blankDevice(): Promise<string> {
  const image = join(lab.root, 'disk');
  await run('truncate', ['-s', '32M', image]);
  loop = (await run('losetup', ['--find', '--show', image])).stdout.trim();
  return loop;
}

describe('local', () => {
  it('binds the folder, gives it to the group, and keeps its data', async () => {
    const path = join(lab.root, 'disks/one');
    await mkdir(path, { recursive: true });
    await writeFile(join(path, 'data'), 'kept');
    bind('a', { local: { path } }, { pvMeta: { annotations: { 'pv.beta.kubernetes.io/gid': '777' } } });
    const pod = podWith('a');
    pod.spec.securityContext = { fsGroup: 1234 };
    await lab.volumes.setUp(pod, signal());
    expect(await readFile(join(localPath(pod, 'pv-a'), 'data'), 'utf8')).toBe('kept');
    const data = await stat(join(path, 'data'));
    expect([data.gid, data.mode & 0o777]).toEqual([1234, 0o664]);
    expect((await stat(path)).mode & 0o2770).toBe(0o2770);
    expect(lab.volumes.supplementalGroups(pod)).toEqual([777]);
    expect(await lab.volumes.stats(pod)).toMatchObject([{ name: 'v', pvcRef: { name: 'a', namespace: 'default' } }]);
    // A second pod with another group does not take it from the first.
    const second = podWith('a');
    second.spec.securityContext = { fsGroup: 4321 };
    await lab.volumes.setUp(second, signal());
    expect((await stat(path)).gid).toBe(1234);
    await gone(second);
    await gone(pod);
    expect(await readFile(join(path, 'data'), 'utf8')).toBe('kept');
  });

  it('leaves owners alone under OnRootMismatch where the root fits', async () => {
    const path = join(lab.root, 'disks/one');
    await mkdir(path, { recursive: true });
    await writeFile(join(path, 'data'), 'x', { mode: 0o600 });
    await run('chgrp', ['1234', path]);
    await chmod(path, 0o2770);
    bind('a', { local: { path } });
    const pod = podWith('a');
    pod.spec.securityContext = { fsGroup: 1234, fsGroupChangePolicy: 'OnRootMismatch' };
    await lab.volumes.setUp(pod, signal());
    expect((await stat(join(path, 'data'))).gid).toBe(0);
    await gone(pod);
  });

  it('is read-only where the claim is used so', async () => {
    const path = join(lab.root, 'disks/one');
    await mkdir(path, { recursive: true });
    bind('a', { local: { path } });
    const pod = podWith('a', true);
    await lab.volumes.setUp(pod, signal());
    await expect(writeFile(join(localPath(pod, 'pv-a'), 'x'), '')).rejects.toThrow('EROFS');
    expect((await lab.volumes.mountsFor(pod, pod.spec.containers[0]!, {}, signal())).mounts[0]?.readonly).toBe(true);
    await gone(pod);
  });

  it('makes a file system on a blank device once, and mounts it for all pods', async () => {
    const path = await blankDevice();
    // Empty as clients write it who mean the default.
    bind('a', { local: { path, fsType: '' } });
    const first = podWith('a');
    const second = podWith('a');
    await lab.volumes.setUp(first, signal());
    await lab.volumes.setUp(second, signal());
    await writeFile(join(localPath(first, 'pv-a'), 'data'), 'kept');
    expect(await readFile(join(localPath(second, 'pv-a'), 'data'), 'utf8')).toBe('kept');
    await gone(first);
    expect((await readMountTable()).at(join(lab.root, 'plugins/kubernetes.io/local-volume/mounts/pv-a'))).toBeDefined();
    await gone(second);
    expect((await readMountTable()).under(lab.root)).toEqual([]);
    const third = podWith('a');
    await lab.volumes.setUp(third, signal());
    expect(await readFile(join(localPath(third, 'pv-a'), 'data'), 'utf8')).toBe('kept');
    await gone(third);
  });

  it('grows with its device while a pod uses it, and tells the claim', async () => {
    const path = await blankDevice();
    bind('a', { local: { path }, capacity: { storage: '32Mi' } });
    const { metadata, spec } = (await client.get(resources.persistentVolumeClaims, name('a')))!;
    const status = { phase: 'Bound', capacity: { storage: '32Mi' } };
    client.seed(resources.persistentVolumeClaims, { metadata, spec, status });
    const first = podWith('a');
    await lab.volumes.setUp(first, signal());
    const sizeKb = async (): Promise<number> => (await statfs(localPath(first, 'pv-a'))).blocks;
    const before = await sizeKb();
    expect(lab.events).toEqual([]);
    await run('truncate', ['-s', '64M', join(lab.root, 'disk')]);
    await run('losetup', ['-c', path]);
    const pv = (await client.get(resources.persistentVolumes, { name: 'pv-a' }))!;
    client.seed(resources.persistentVolumes, { ...pv, spec: { ...pv.spec, capacity: { storage: '64Mi' } } });
    const second = podWith('a');
    await lab.volumes.setUp(second, signal());
    const claim = await client.get(resources.persistentVolumeClaims, name('a'));
    // The kernel lets ext4 grow while it is mounted only for who has CAP_SYS_RESOURCE.
    const capabilities = /^CapEff:\s*(\w+)/m.exec(await readFile('/proc/self/status', 'utf8'))![1]!;
    const may = (BigInt(`0x${capabilities}`) >> 24n) & 1n;
    if (may) {
      expect(await sizeKb()).toBeGreaterThan(before * 1.5);
      expect(claim.status).toMatchObject({ capacity: { storage: '64Mi' } });
      // Of the pod, and of the claim.
      const told = { type: 'Normal', reason: 'FileSystemResizeSuccessful' };
      expect(lab.events).toMatchObject([told, told]);
    } else {
      expect(claim.status).toMatchObject({ capacity: { storage: '32Mi' } });
      expect(lab.events).toMatchObject([{ type: 'Warning', reason: 'VolumeResizeFailed' }]);
      expect(lab.events[0]!.message).toContain('resize2fs: Permission denied to resize filesystem');
    }
    await gone(first);
    await gone(second);
  });

  it('never formats what has something on it', async () => {
    const path = await blankDevice();
    await run('sh', ['-c', `printf 'label: dos\\n,,83\\n' | sfdisk -q "$1"`, 'sh', path]).catch(() => undefined);
    await run('mkfs.ext4', ['-q', '-F', path]);
    const before = (await run('blkid', ['-p', '-s', 'UUID', '-o', 'value', path])).stdout;
    bind('a', { local: { path, fsType: 'ext4' } });
    const pod = podWith('a');
    await lab.volumes.setUp(pod, signal());
    await gone(pod);
    expect((await run('blkid', ['-p', '-s', 'UUID', '-o', 'value', path])).stdout).toBe(before);
  });

  it('of mode Block is a link to the device', async () => {
    const path = await blankDevice();
    bind('a', { local: { path }, volumeMode: 'Block' });
    const pod = podWith('a', true);
    pod.spec.containers[0]!.volumeMounts = [];
    pod.spec.containers[0]!.volumeDevices = [{ name: 'v', devicePath: '/dev/xvda' }];
    await lab.volumes.setUp(pod, signal());
    const link = join(lab.root, 'pods', pod.metadata.uid!, 'volumeDevices/kubernetes.io~local-volume/pv-a');
    const { devices } = await lab.volumes.mountsFor(pod, pod.spec.containers[0]!, {}, signal());
    expect(devices).toEqual([{ containerPath: '/dev/xvda', hostPath: link, permissions: 'r' }]);
    expect(await readlink(link)).toBe(path);
    await gone(pod);
    expect((await stat(path)).isBlockDevice()).toBe(true);
  });

  it('is refused on a node that its affinity does not name', async () => {
    bind('a', {
      local: { path: '/tmp' },
      nodeAffinity: {
        required: { nodeSelectorTerms: [{ matchExpressions: [{ key: 'zone', operator: 'In', values: ['b'] }] }] },
      },
    });
    await expect(lab.volumes.setUp(podWith('a'), signal())).rejects.toThrow(
      'MountVolume.NodeAffinity check failed for volume "pv-a" : no matching NodeSelectorTerms',
    );
  });

  it('says that its path is not there', async () => {
    bind('a', { local: { path: join(lab.root, 'nowhere') } });
    const pod = podWith('a');
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow('does not exist');
    await gone(pod);
  });
});

describe('a claim', () => {
  it('that is not ready is waited for, and the pod is woken to look again', async () => {
    const pod = podWith('a');
    await expect(lab.volumes.setUp(pod, signal())).rejects.toMatchObject({
      waiting: true,
      message: expect.stringContaining('error processing PVC default/a: failed to fetch PVC from API server'),
    });
    bind('a', { hostPath: { path: lab.root } }, { phase: 'Pending' });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow('error processing PVC default/a: PVC is not bound');
    const end = Date.now() + 5_000;
    while (lab.woken.length === 0 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 10));
    expect(lab.woken).toContain(pod.metadata.uid);
  });

  it('of a hostPath is the path itself', async () => {
    bind('a', { hostPath: { path: lab.root, type: 'Directory' } });
    const pod = podWith('a');
    await lab.volumes.setUp(pod, signal());
    expect((await lab.volumes.mountsFor(pod, pod.spec.containers[0]!, {}, signal())).mounts[0]?.hostPath).toBe(
      lab.root,
    );
    await lab.volumes.tearDown(pod.metadata.uid!, signal());
  });

  it('bound to another is refused', async () => {
    bind('a', { hostPath: { path: lab.root }, claimRef: { namespace: 'default', name: 'b', uid: 'other' } });
    await expect(lab.volumes.setUp(podWith('a'), signal())).rejects.toThrow('does not point to claim.UID uid-a');
  });

  it('made for this pod must be its own', async () => {
    const pod = labPod({ volumes: [{ name: 'v', ephemeral: { volumeClaimTemplate: { spec: {} } } }] });
    const name = `${pod.metadata.name}-v`;
    bind(name, { hostPath: { path: lab.root } });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow(
      `PVC default/${name} was not created for pod default/${pod.metadata.name} (pod is not owner)`,
    );
    client.remove(resources.persistentVolumeClaims, { namespace: 'default', name });
    const owner = { apiVersion: 'v1', kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid!, controller: true };
    bind(name, { hostPath: { path: lab.root } }, { meta: { ownerReferences: [owner] } });
    await lab.volumes.setUp(pod, signal());
    await lab.volumes.tearDown(pod.metadata.uid!, signal());
  });

  it('of a type that is not here is refused by its name', async () => {
    bind('a', { iscsi: { targetPortal: 'x' } });
    await expect(lab.volumes.setUp(podWith('a'), signal())).rejects.toThrow(
      'PersistentVolumes of type iscsi are not supported',
    );
  });
});

describe('nfs', () => {
  it('is mounted with its options; a server that refuses or is dead is said so, others go on, nothing stays', async () => {
    const commands: string[][] = [];
    const mounter = createMounter({
      run: (tool, args, options) => {
        commands.push([tool, ...args]);
        // The kernel of this host may have no NFS: the tool is played, not its waiting.
        if (tool === 'mount' && args.includes('nfs'))
          return new Promise((_, reject) => {
            const timer = setTimeout(() => reject(new Error('mount.nfs: Connection timed out')), 300);
            options?.signal?.addEventListener('abort', () => {
              clearTimeout(timer);
              reject(options.signal?.reason);
            });
          });
        return Promise.resolve({ stdout: '', stderr: '' });
      },
    });
    bind('a', { nfs: { server: 'fd00::1', path: '/export', readOnly: true }, mountOptions: ['nfsvers=4.2'] });
    const volumes = lab.restart({ mounter });
    const pod = podWith('a');
    const failing = volumes.setUp(pod, signal());
    failing.catch(() => undefined);
    const other = labPod({ volumes: [{ name: 'v', emptyDir: {} }] });
    await volumes.setUp(other, signal());
    await expect(failing).rejects.toThrow(
      'MountVolume.SetUp failed for volume "pv-a" : mount.nfs: Connection timed out',
    );
    const target = join(lab.root, 'pods', pod.metadata.uid!, 'volumes/kubernetes.io~nfs/pv-a');
    expect(commands[0]).toEqual(['mount', '-t', 'nfs', '-o', 'nfsvers=4.2,ro', '[fd00::1]:/export', target]);
    await expect(stat(target)).rejects.toThrow('ENOENT');
    await volumes.tearDown(pod.metadata.uid!, signal());
    await volumes.tearDown(other.metadata.uid!, signal());
  });
});

it('a mount that hangs in the kernel holds up neither its pod nor others', async () => {
  const mounter = createMounter({ run: () => new Promise(() => undefined) });
  bind('a', { nfs: { server: 'dead', path: '/' } });
  const volumes = lab.restart({ mounter });
  const pod = podWith('a');
  const aborting = new AbortController();
  const hanging = volumes.setUp(pod, aborting.signal);
  hanging.catch(() => undefined);
  while (volumes.waitingFor(pod).length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(volumes.waitingFor(pod)).toEqual(['volume "v" is being set up for 0 s']);
  aborting.abort(new Error('changed my mind'));
  await expect(hanging).rejects.toThrow('changed my mind');
  const other = labPod({ volumes: [{ name: 'v', emptyDir: {} }] });
  await volumes.setUp(other, signal());
  await volumes.tearDown(other.metadata.uid!, signal());
  await volumes.tearDown(pod.metadata.uid!, signal());
  expect(await volumes.known()).toEqual([]);
});

describe('a disk', () => {
  it('that is full or read-only is said so, and recovery needs no restart', async () => {
    const small = join(lab.root, 'pods');
    await mkdir(small);
    await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', small]);
    lab.objects.set(resources.configMaps, {
      metadata: { name: 'big', namespace: 'default' },
      data: { big: 'x'.repeat(200_000) },
    });
    const pod = labPod({ volumes: [{ name: 'v', configMap: { name: 'big' } }] });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow(/MountVolume.SetUp failed for volume "v" : ENOSPC/);
    await run('mount', ['-o', 'remount,size=8m', small]);
    await lab.volumes.setUp(pod, signal());
    const file = join(small, pod.metadata.uid!, 'volumes/kubernetes.io~configmap/v/big');
    expect((await stat(file)).size).toBe(200_000);
    await run('mount', ['-o', 'remount,ro', small]);
    const other = labPod({ volumes: [{ name: 'v', emptyDir: {} }] });
    await expect(lab.volumes.setUp(other, signal())).rejects.toThrow(/EROFS/);
    await run('mount', ['-o', 'remount,rw', small]);
    await lab.volumes.setUp(other, signal());
    await gone(pod);
    await gone(other);
  });
});
