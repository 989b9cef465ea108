// The volumes of pods on real mounts, as root: what conformance asserts of emptyDir, configMap, secret, projected, downwardAPI, hostPath, subPath.
import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, stat, statfs, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { readMountTable } from '../../agent/volumes/mount-table.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { labPod, signal, type VolumesLab, volumesLab } from '../lab/volumes.ts';

const run = promisify(execFile);
let lab: VolumesLab;
beforeEach(async () => {
  if (process.getuid?.() !== 0) throw new Error('this test needs root');
  lab = await volumesLab();
});
afterEach(async () => {
  await lab.close();
});

const pathOf = (pod: Pod, plugin: string, name: string): string =>
  join(lab.root, 'pods', pod.metadata.uid!, 'volumes', `kubernetes.io~${plugin}`, name);
const modeOf = async (path: string): Promise<string> => ((await stat(path)).mode & 0o7777).toString(8);
const text = (path: string): Promise<string> => readFile(path, 'utf8');
const base64 = (value: string): string => Buffer.from(value).toString('base64');
const mountsBelow = async (path: string): Promise<number> => (await readMountTable()).under(path).length;

async function until(what: () => Promise<boolean>, ms = 5_000): Promise<number> {
  const from = performance.now();
  while (!(await what())) {
    if (performance.now() - from > ms) throw new Error(`not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return performance.now() - from;
}

async function gone(pod: Pod): Promise<void> {
  await lab.volumes.tearDown(pod.metadata.uid!, signal());
  expect(await mountsBelow(join(lab.root, 'pods', pod.metadata.uid!))).toBe(0);
  await expect(stat(join(lab.root, 'pods', pod.metadata.uid!))).rejects.toThrow('ENOENT');
}

describe('emptyDir', () => {
  const tmpfsMagic = 0x01021994;
  const asUser = (uid: number, gid: number, script: string) =>
    run('setpriv', [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups', 'sh', '-c', script]);

  for (const medium of ['', 'Memory'])
    for (const fsGroup of [undefined, 1234])
      for (const fileMode of ['0644', '0666', '0777'])
        it(`medium "${medium}", fsGroup ${fsGroup}, files of ${fileMode}`, async () => {
          const pod = labPod({
            volumes: [{ name: 'v', emptyDir: { medium } }],
            ...(fsGroup === undefined ? {} : { securityContext: { fsGroup } }),
          });
          await lab.volumes.setUp(pod, signal());
          expect(lab.volumes.isUp(pod)).toBe(true);
          const path = pathOf(pod, 'empty-dir', 'v');
          expect((await stat(path)).mode & 0o777).toBe(0o777);
          expect((await statfs(path)).type === tmpfsMagic).toBe(medium === 'Memory');
          const { mounts } = await lab.volumes.mountsFor(pod, pod.spec.containers[0]!, {}, signal());
          expect(mounts).toEqual([
            {
              containerPath: '/mnt/v',
              hostPath: path,
              readonly: false,
              recursiveReadOnly: false,
              selinuxRelabel: true,
              propagation: 'private',
            },
          ]);
          for (const [uid, name] of [
            [0, 'root'],
            [1001, 'other'],
          ] as const) {
            // The way to the volume is the runtime's bind mount; a mode there must not hide it in this test.
            const file = `/proc/self/fd/9/${name}`;
            const gid = uid === 0 ? 0 : 1001;
            await run('sh', [
              '-c',
              `exec 9<"$1"; exec setpriv --reuid=${uid} --regid=${gid} --clear-groups sh -c 'umask 0; echo hi > ${file}; chmod ${fileMode} ${file}'`,
              'sh',
              path,
            ]);
            const made = await stat(join(path, name));
            expect([made.uid, made.gid, (made.mode & 0o777).toString(8)]).toEqual([
              uid,
              fsGroup ?? gid,
              fileMode.slice(1),
            ]);
          }
          await gone(pod);
        });

  it('keeps to its size in memory', async () => {
    const pod = labPod({ volumes: [{ name: 'v', emptyDir: { medium: 'Memory', sizeLimit: '1Mi' } }] });
    await lab.volumes.setUp(pod, signal());
    const path = pathOf(pod, 'empty-dir', 'v');
    await expect(writeFile(join(path, 'big'), Buffer.alloc(2 * 1024 * 1024))).rejects.toThrow('ENOSPC');
    await gone(pod);
  });

  it('is not opened again when the agent comes back', async () => {
    const pod = labPod({ volumes: [{ name: 'v', emptyDir: {} }] });
    await lab.volumes.setUp(pod, signal());
    const path = pathOf(pod, 'empty-dir', 'v');
    await run('chmod', ['0700', path]);
    await writeFile(join(path, 'kept'), 'x');
    await lab.restart().setUp(pod, signal());
    expect(await modeOf(path)).toBe('700');
    expect(await text(join(path, 'kept'))).toBe('x');
    await asUser(0, 0, 'true');
    await gone(pod);
  });

  it('leaves what is mounted inside untouched', async () => {
    const precious = join(lab.root, 'precious');
    await mkdir(precious);
    await writeFile(join(precious, 'data'), 'x');
    const pod = labPod({ volumes: [{ name: 'v', emptyDir: {} }] });
    await lab.volumes.setUp(pod, signal());
    const inside = join(pathOf(pod, 'empty-dir', 'v'), 'inside');
    await mkdir(inside);
    await run('mount', ['--bind', precious, inside]);
    await gone(pod);
    expect(await text(join(precious, 'data'))).toBe('x');
  });

  it('refuses a medium that nobody knows', async () => {
    const pod = labPod({ volumes: [{ name: 'v', emptyDir: { medium: 'Tape' } }] });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toMatchObject({
      reason: 'FailedMount',
      waiting: false,
      message: 'MountVolume.SetUp failed for volume "v" : unknown storage medium "Tape"',
    });
    await gone(pod);
  });
});

describe('configMap', () => {
  const configMap = (data: Record<string, string>, version = '1') => ({
    metadata: { name: 'conf', namespace: 'default', resourceVersion: version },
    data,
    binaryData: { bin: base64('\u0000\u0001') },
  });

  it('shows keys as files and follows changes at once', async () => {
    lab.objects.set(resources.configMaps, configMap({ a: '1', b: '2' }));
    const pod = labPod({ volumes: [{ name: 'v', configMap: { name: 'conf' } }] });
    await lab.volumes.setUp(pod, signal());
    const path = pathOf(pod, 'configmap', 'v');
    expect((await readdir(path)).filter((name) => !name.startsWith('..')).sort()).toEqual(['a', 'b', 'bin']);
    expect(await text(join(path, 'a'))).toBe('1');
    expect(await modeOf(join(path, 'a'))).toBe('644');
    expect((await readFile(join(path, 'bin'))).equals(Buffer.from([0, 1]))).toBe(true);
    lab.objects.set(resources.configMaps, configMap({ a: 'new', c: '3' }, '2'));
    const ms = await until(async () => (await text(join(path, 'a'))) === 'new');
    expect(ms).toBeLessThan(1_000);
    await until(async () => !(await readdir(path)).includes('b'));
    expect(await text(join(path, 'c'))).toBe('3');
    expect((await lab.volumes.mountsFor(pod, pod.spec.containers[0]!, {}, signal())).mounts[0]?.readonly).toBe(true);
    await gone(pod);
    expect(lab.objects.holders()).toEqual([]);
  });

  it('projects items with their modes, and the group', async () => {
    lab.objects.set(resources.configMaps, configMap({ a: '1' }));
    const pod = labPod({
      securityContext: { fsGroup: 1234 },
      volumes: [
        {
          name: 'v',
          configMap: {
            name: 'conf',
            defaultMode: 0o400,
            items: [
              { key: 'a', path: 'deep/er/a' },
              { key: 'bin', path: 'b', mode: 0o040 },
            ],
          },
        },
      ],
    });
    await lab.volumes.setUp(pod, signal());
    const path = pathOf(pod, 'configmap', 'v');
    expect(await modeOf(join(path, 'deep/er/a'))).toBe('440');
    expect(await modeOf(join(path, 'b'))).toBe('440');
    expect((await stat(join(path, 'deep/er/a'))).gid).toBe(1234);
    expect((await stat(join(path, 'deep'))).mode & 0o2000).toBe(0o2000);
    expect((await stat(path)).gid).toBe(1234);
    await gone(pod);
  });

  it('waits for a missing one and wakes the pod when it comes', async () => {
    const pod = labPod({ volumes: [{ name: 'v', configMap: { name: 'conf' } }] });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toMatchObject({
      reason: 'FailedMount',
      waiting: true,
      message: 'MountVolume.SetUp failed for volume "v" : configmap "conf" not found',
    });
    expect(lab.volumes.isUp(pod)).toBe(false);
    lab.objects.set(resources.configMaps, configMap({ a: '1' }));
    expect(lab.woken).toEqual([pod.metadata.uid]);
    await lab.volumes.setUp(pod, signal());
    await gone(pod);
  });

  it('says which key is missing', async () => {
    lab.objects.set(resources.configMaps, configMap({ a: '1' }));
    const volume = (optional: boolean) => ({
      name: 'v',
      configMap: { name: 'conf', optional, items: [{ key: 'x', path: 'x' }] },
    });
    const pod = labPod({ volumes: [volume(false)] });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow(
      'MountVolume.SetUp failed for volume "v" : configmap references non-existent config key: x',
    );
    await gone(pod);
    const lenient = labPod({ volumes: [volume(true)] });
    await lab.volumes.setUp(lenient, signal());
    expect(await readdir(pathOf(lenient, 'configmap', 'v'))).not.toContain('x');
    await gone(lenient);
  });

  it('lets an optional one come and go', async () => {
    const pod = labPod({ volumes: [{ name: 'v', configMap: { name: 'conf', optional: true } }] });
    await lab.volumes.setUp(pod, signal());
    const path = pathOf(pod, 'configmap', 'v');
    lab.objects.set(resources.configMaps, configMap({ a: '1' }));
    await until(async () => (await readdir(path)).includes('a'));
    lab.objects.remove(resources.configMaps, { namespace: 'default', name: 'conf' });
    await until(async () => !(await readdir(path)).includes('a'));
    await gone(pod);
  });

  it('keeps its files when a mandatory one is deleted, and says so', async () => {
    lab.objects.set(resources.configMaps, configMap({ a: '1' }));
    const pod = labPod({ volumes: [{ name: 'v', configMap: { name: 'conf' } }] });
    await lab.volumes.setUp(pod, signal());
    lab.objects.remove(resources.configMaps, { namespace: 'default', name: 'conf' });
    // Not at once: it may be that the pod goes too.
    expect(await until(() => Promise.resolve(lab.events.length > 0), 20_000)).toBeGreaterThan(900);
    expect(lab.events[0]).toMatchObject({
      reason: 'FailedMount',
      message: 'MountVolume.SetUp failed for volume "v" : configmap "conf" not found',
    });
    expect(await text(join(pathOf(pod, 'configmap', 'v'), 'a'))).toBe('1');
    await gone(pod);
  });

  it('cannot be told to write outside', async () => {
    lab.objects.set(resources.configMaps, configMap({ a: '1' }));
    for (const path of ['../x', '/x', 'a/../../x', '..x']) {
      const pod = labPod({ volumes: [{ name: 'v', configMap: { name: 'conf', items: [{ key: 'a', path }] } }] });
      await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow('invalid path');
      await gone(pod);
    }
  });
});

describe('secret', () => {
  it('lives in memory, with modes never wider than asked', async () => {
    lab.objects.set(resources.secrets, { metadata: { name: 's', namespace: 'default' }, data: { k: base64('hush') } });
    const pod = labPod({ volumes: [{ name: 'v', secret: { secretName: 's', defaultMode: 0o400 } }] });
    await lab.volumes.setUp(pod, signal());
    const path = pathOf(pod, 'secret', 'v');
    expect((await readMountTable()).at(path)?.fsType).toBe('tmpfs');
    expect(await text(join(path, 'k'))).toBe('hush');
    expect(await modeOf(join(path, 'k'))).toBe('400');
    await gone(pod);
  });

  it('names what is missing', async () => {
    const pod = labPod({ volumes: [{ name: 'v', secret: { secretName: 's' } }] });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow(
      'MountVolume.SetUp failed for volume "v" : secret "s" not found',
    );
    lab.objects.failWith(new Error('connection refused'));
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow('failed to sync secret cache: connection refused');
    lab.objects.failWith(undefined);
    await gone(pod);
  });
});

describe('projected and downwardAPI', () => {
  it('puts a token, a configMap and fields of the pod side by side', async () => {
    lab.objects.set(resources.configMaps, {
      metadata: { name: 'ca', namespace: 'default' },
      data: { 'ca.crt': 'CERT' },
    });
    const pod = labPod({
      securityContext: { fsGroup: 4321, runAsUser: 1000 },
      volumes: [
        {
          name: 'v',
          projected: {
            sources: [
              { serviceAccountToken: { path: 'token', expirationSeconds: 3607, audience: 'aud' } },
              { configMap: { name: 'ca', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
              { downwardAPI: { items: [{ path: 'ns', fieldRef: { fieldPath: 'metadata.namespace' } }] } },
            ],
          },
        },
      ],
    });
    const from = performance.now();
    await lab.volumes.setUp(pod, signal());
    const ms = performance.now() - from;
    const path = pathOf(pod, 'projected', 'v');
    expect(await text(join(path, 'token'))).toBe('token-1');
    const token = await stat(join(path, 'token'));
    expect([token.uid, token.gid, (token.mode & 0o7777).toString(8)]).toEqual([1000, 4321, '640']);
    expect(await text(join(path, 'ca.crt'))).toBe('CERT');
    expect(await text(join(path, 'ns'))).toBe('default');
    expect(lab.tokenRequests[0]?.spec).toEqual({
      audiences: ['aud'],
      expirationSeconds: 3607,
      boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: pod.metadata.name, uid: pod.metadata.uid },
    });
    expect((await readMountTable()).at(path)?.fsType).toBe('tmpfs');
    expect(ms).toBeLessThan(500);
    await gone(pod);
  });

  it('gives tokens 0644 where no user or group is asked for, and renews them in time', async () => {
    const pod = labPod({
      volumes: [
        { name: 'v', projected: { sources: [{ serviceAccountToken: { path: 'token', expirationSeconds: 2 } }] } },
      ],
    });
    await lab.volumes.setUp(pod, signal());
    const path = join(pathOf(pod, 'projected', 'v'), 'token');
    expect(await modeOf(path)).toBe('644');
    const ms = await until(async () => (await text(path)) === 'token-2');
    expect(ms).toBeLessThan(2_000);
    await gone(pod);
  });

  it('follows labels, annotations and resources of the pod', async () => {
    const items = [
      { path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } },
      { path: 'annotations', fieldRef: { fieldPath: 'metadata.annotations' } },
      { path: 'cpu', resourceFieldRef: { containerName: 'main', resource: 'limits.cpu' } },
      {
        path: 'memory',
        resourceFieldRef: { containerName: 'main', resource: 'limits.memory', divisor: '1Mi' },
        mode: 0o400,
      },
    ];
    const pod = labPod({ volumes: [{ name: 'v', downwardAPI: { items } }] });
    await lab.volumes.setUp(pod, signal());
    const path = pathOf(pod, 'downward-api', 'v');
    expect(await text(join(path, 'labels'))).toBe('app="web"');
    expect(await text(join(path, 'annotations'))).toBe('');
    expect(await text(join(path, 'cpu'))).toBe('2');
    expect(await text(join(path, 'memory'))).toBe('512');
    expect(await modeOf(join(path, 'memory'))).toBe('400');
    const changed: Pod = { ...pod, metadata: { ...pod.metadata, labels: { app: 'new' } } };
    expect(lab.volumes.isUp(changed)).toBe(false);
    await lab.volumes.setUp(changed, signal());
    expect(lab.volumes.isUp(changed)).toBe(true);
    expect(await text(join(path, 'labels'))).toBe('app="new"');
    await gone(pod);
  });
});

describe('hostPath', () => {
  it.each([
    ['Directory', 'file', 'is not a directory'],
    ['File', 'folder', 'is not a file'],
    ['Socket', 'file', 'is not a socket file'],
    ['CharDevice', 'file', 'is not a character device'],
    ['BlockDevice', 'folder', 'is not a block device'],
    ['Directory', 'none', 'is not a directory'],
    ['FileOrCreate', 'folder', 'is not a file'],
    ['DirectoryOrCreate', 'file', 'is not a directory'],
  ] as const)('of type %s refuses a %s', async (type, there, message) => {
    const path = join(lab.root, 'host');
    if (there === 'file') await writeFile(path, '');
    if (there === 'folder') await mkdir(path);
    const pod = labPod({ volumes: [{ name: 'v', hostPath: { path, type } }] });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow(`hostPath type check failed: ${path} ${message}`);
    await gone(pod);
  });

  it('takes what is of the type that is asked for, links followed, and any type where none is', async () => {
    const at = (name: string): string => join(lab.root, name);
    await mkdir(at('folder'));
    await writeFile(at('file'), '');
    await symlink(at('file'), at('link'));
    await writeFile(at('disk'), Buffer.alloc(1 << 20));
    const listener = createServer();
    await new Promise<void>((resolve) => listener.listen(at('socket'), resolve));
    const device = (await run('losetup', ['--find', '--show', at('disk')])).stdout.trim();
    try {
      const fitting = [
        ['Directory', at('folder')],
        ['DirectoryOrCreate', at('folder')],
        ['File', at('file')],
        ['FileOrCreate', at('file')],
        ['File', at('link')],
        ['Socket', at('socket')],
        ['CharDevice', '/dev/null'],
        ['BlockDevice', device],
        ['', at('folder')],
        ['', at('none')],
      ] as const;
      for (const [type, path] of fitting) {
        const pod = labPod({ volumes: [{ name: 'v', hostPath: { path, type } }] });
        await lab.volumes.setUp(pod, signal());
        const { mounts } = await lab.volumes.mountsFor(pod, pod.spec.containers[0]!, {}, signal());
        expect(mounts).toMatchObject([{ hostPath: path, selinuxRelabel: false }]);
        await gone(pod);
      }
      expect(await readdir(lab.root)).toEqual(expect.arrayContaining(['folder', 'file', 'link', 'socket']));
      await expect(stat(at('none'))).rejects.toThrow('ENOENT');
      const back = labPod({
        volumes: [{ name: 'v', hostPath: { path: `${lab.root}/../x`, type: 'DirectoryOrCreate' } }],
      });
      await expect(lab.volumes.setUp(back, signal())).rejects.toThrow('invalid HostPath');
    } finally {
      listener.close();
      await run('losetup', ['--detach', device]);
    }
  });

  it('makes what may be made, and never removes it', async () => {
    const folder = join(lab.root, 'a/b');
    const file = join(lab.root, 'a/b/file');
    const first = labPod({ volumes: [{ name: 'v', hostPath: { path: folder, type: 'DirectoryOrCreate' } }] });
    await lab.volumes.setUp(first, signal());
    expect(await modeOf(folder)).toBe('755');
    const second = labPod({ volumes: [{ name: 'v', hostPath: { path: file, type: 'FileOrCreate' } }] });
    await lab.volumes.setUp(second, signal());
    expect(await modeOf(file)).toBe('644');
    const device = labPod({ volumes: [{ name: 'v', hostPath: { path: '/dev/null', type: 'CharDevice' } }] });
    await lab.volumes.setUp(device, signal());
    for (const pod of [first, second, device]) await gone(pod);
    expect(await modeOf(file)).toBe('644');
  });
});

describe('subPath', () => {
  const withSubPath = (subPath: string, path: string, expr = false): Pod => {
    const pod = labPod({ volumes: [{ name: 'v', hostPath: { path } }] });
    pod.spec.containers[0]!.volumeMounts = [
      { name: 'v', mountPath: '/x', ...(expr ? { subPathExpr: subPath } : { subPath }) },
    ];
    return pod;
  };
  const mount = async (pod: Pod, env: Record<string, string> = {}) => {
    await lab.volumes.setUp(pod, signal());
    return (await lab.volumes.mountsFor(pod, pod.spec.containers[0]!, env, signal())).mounts[0]!.hostPath;
  };
  let base: string;
  beforeEach(async () => {
    base = join(lab.root, 'volume');
    await mkdir(join(base, 'dir'), { recursive: true });
    await writeFile(join(base, 'dir/file'), 'inside');
    await mkdir(join(lab.root, 'outside'));
    await writeFile(join(lab.root, 'outside/secret'), 'outside');
  });

  it('binds a folder and a file', async () => {
    const folder = withSubPath('dir', base);
    const path = await mount(folder);
    expect(path).toBe(join(lab.root, 'pods', folder.metadata.uid!, 'volume-subpaths/v/main/0'));
    expect(await text(join(path, 'file'))).toBe('inside');
    expect(await mount(folder)).toBe(path);
    expect(await mountsBelow(path)).toBe(1);
    await gone(folder);
    const file = withSubPath('dir/file', base);
    expect(await text(await mount(file))).toBe('inside');
    await gone(file);
    expect(await text(join(base, 'dir/file'))).toBe('inside');
  });

  it('makes a missing folder with the mode of the volume', async () => {
    await run('chmod', ['2775', base]);
    await run('chgrp', ['1234', base]);
    const pod = withSubPath('new/er', base);
    await mount(pod);
    expect(await modeOf(join(base, 'new/er'))).toBe('2775');
    expect((await stat(join(base, 'new/er'))).gid).toBe(1234);
    await gone(pod);
    expect(await readdir(join(base, 'new'))).toEqual(['er']);
  });

  it.each([
    ['a link to a folder outside', '../outside', 'link'],
    ['a link to a file outside', '../outside/secret', 'link'],
    ['a link to nothing outside', '../nowhere', 'link'],
    ['something below a link outside', '../outside', 'link/secret'],
    ['a new folder below a link outside', '../outside', 'link/new'],
    ['an absolute link', '/etc/passwd', 'link'],
  ])('does not follow %s', async (_, target, subPath) => {
    await symlink(target, join(base, 'link'));
    const pod = withSubPath(subPath, base);
    await expect(mount(pod)).rejects.toMatchObject({
      reason: 'CreateContainerConfigError',
      message: 'failed to prepare subPath for volumeMount "v" of container "main"',
    });
    expect(await readdir(join(lab.root, 'outside'))).toEqual(['secret']);
    await gone(pod);
  });

  it('follows links that stay inside', async () => {
    await symlink('dir', join(base, 'link'));
    const pod = withSubPath('link/file', base);
    expect(await text(await mount(pod))).toBe('inside');
    await gone(pod);
  });

  it('does not step back, nor start at the root', async () => {
    await expect(mount(withSubPath('a/../..', base))).rejects.toThrow(
      "unable to provision SubPath `a/../..`: must not contain '..'",
    );
    await expect(mount(withSubPath('/etc', base))).rejects.toThrow('error SubPath `/etc` must not be an absolute path');
  });

  it('expands variables', async () => {
    const pod = withSubPath('$(POD)/$$(X)', base, true);
    const path = await mount(pod, { POD: 'web-0' });
    await writeFile(join(path, 'f'), 'x');
    expect(await text(join(base, 'web-0/$(X)/f'))).toBe('x');
    await expect(mount(pod, {})).rejects.toThrow('missing value for POD');
    await expect(mount(pod, { POD: '../..' })).rejects.toThrow("must not contain '..'");
    await gone(pod);
  });

  it('cannot be raced out of the volume', async () => {
    await mkdir(join(base, 'race/target'), { recursive: true });
    const swapping = run('sh', [
      '-c',
      'cd "$1"; end=$(($(date +%s)+2)); while [ $(date +%s) -lt $end ]; do mv race kept; ln -s ../outside race; rm race; mv kept race; done',
      'sh',
      base,
    ]);
    await mkdir(join(lab.root, 'outside/target'));
    await writeFile(join(lab.root, 'outside/target/bad'), '');
    let bound = 0;
    const end = Date.now() + 1_800;
    while (Date.now() < end) {
      const pod = withSubPath('race/target', base);
      try {
        const path = await mount(pod);
        bound++;
        expect(await readdir(path)).not.toContain('bad');
      } catch (error) {
        expect((error as Error).message).toContain('subPath');
      }
      await lab.volumes.tearDown(pod.metadata.uid!, signal());
    }
    await swapping;
    expect(bound).toBeGreaterThan(0);
    expect((await readdir(join(lab.root, 'outside/target'))).sort()).toEqual(['bad']);
  });

  it('of a configMap is pinned until the container starts again', async () => {
    const set = (a: string, version: string): void =>
      lab.objects.set(resources.configMaps, {
        metadata: { name: 'c', namespace: 'default', resourceVersion: version },
        data: { a },
      });
    set('1', '1');
    const pod = labPod({ volumes: [{ name: 'v', configMap: { name: 'c' } }] });
    pod.spec.containers[0]!.volumeMounts = [{ name: 'v', mountPath: '/x', subPath: 'a' }];
    const path = await mount(pod);
    set('2', '2');
    await until(async () => (await text(join(pathOf(pod, 'configmap', 'v'), 'a'))) === '2');
    expect(await text(path)).toBe('1');
    expect(await text(await mount(pod))).toBe('2');
    await gone(pod);
  });
});

describe('an image', () => {
  const pod = (): Pod =>
    labPod({ volumes: [{ name: 'v', image: { reference: 'example.com/i:1', pullPolicy: 'Always' } }] });

  it('is pulled as its policy says, and mounted read-only by what the runtime calls it', async () => {
    const asked: unknown[] = [];
    const volumes = lab.restart({
      ensureImage: (_pod, reference, policy) => {
        asked.push([reference, policy]);
        return Promise.resolve({ image: 'sha256:abc' });
      },
    });
    const mounting = pod();
    await volumes.setUp(mounting, signal());
    expect(asked).toEqual([['example.com/i:1', 'Always']]);
    const { mounts } = await volumes.mountsFor(mounting, mounting.spec.containers[0]!, {}, signal());
    expect(mounts).toMatchObject([{ containerPath: '/mnt/v', image: { image: 'sha256:abc' }, readonly: true }]);
    await volumes.tearDown(mounting.metadata.uid!, signal());
    expect(await volumes.known()).not.toContain(mounting.metadata.uid);
  });

  it('that cannot be pulled is said so, and one is refused where the runtime has no such volumes', async () => {
    const failing = lab.restart({ ensureImage: () => Promise.reject(new Error('no such image')) });
    await expect(failing.setUp(pod(), signal())).rejects.toMatchObject({
      message: 'MountVolume.SetUp failed for volume "v" : no such image',
      waiting: false,
    });
    await expect(lab.volumes.setUp(pod(), signal())).rejects.toThrow(
      'the container runtime of this node cannot mount images as volumes',
    );
  });
});

describe('the statistics of volumes', () => {
  it('are of what is in them, by name; what is the host’s own is left out', async () => {
    lab.objects.set(resources.configMaps, {
      metadata: { name: 'c', namespace: 'default' },
      data: { key: 'x'.repeat(9000) },
    });
    const pod = labPod({
      volumes: [
        { name: 'disk', emptyDir: {} },
        { name: 'memory', emptyDir: { medium: 'Memory', sizeLimit: '4Mi' } },
        { name: 'config', configMap: { name: 'c' } },
        { name: 'host', hostPath: { path: lab.root } },
      ],
    });
    await lab.volumes.setUp(pod, signal());
    await writeFile(join(pathOf(pod, 'empty-dir', 'disk'), 'big'), Buffer.alloc(3 << 20, 1));
    await writeFile(join(pathOf(pod, 'empty-dir', 'memory'), 'some'), Buffer.alloc(1 << 20, 1));
    await mkdir(join(pathOf(pod, 'empty-dir', 'disk'), 'folder'));
    const all = new Map((await lab.volumes.stats(pod)).map((each) => [each.name, each]));
    expect([...all.keys()].sort()).toEqual(['config', 'disk', 'memory']);
    const [disk, memory, config] = ['disk', 'memory', 'config'].map((name) => all.get(name)!);
    expect(disk!.usedBytes).toBeGreaterThanOrEqual(3 << 20);
    expect(disk!.usedBytes).toBeLessThan(4 << 20);
    expect(disk!.inodesUsed).toBe(3);
    expect(disk!.capacityBytes).toBeGreaterThan(disk!.usedBytes!);
    expect(memory).toMatchObject({ capacityBytes: 4 << 20, usedBytes: 1 << 20, availableBytes: 3 << 20 });
    expect(config!.usedBytes).toBeGreaterThanOrEqual(9000);
    expect(config!.usedBytes).toBeLessThan(100_000);
    for (const each of all.values()) expect(each.time).toMatch(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
    await gone(pod);
  });
});

describe('a pod', () => {
  it('with a volume that nobody supports is refused by its name', async () => {
    const pod = labPod({ volumes: [{ name: 'v', iscsi: { targetPortal: 'x' } }] });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow(
      'volumes of type iscsi are not supported by this node',
    );
    await gone(pod);
  });

  it('brings up only what it mounts', async () => {
    const pod = labPod({ volumes: [{ name: 'v', configMap: { name: 'none' } }] }, []);
    await lab.volumes.setUp(pod, signal());
    await gone(pod);
  });

  it('finds the place for a nested mount', async () => {
    lab.objects.set(resources.configMaps, { metadata: { name: 'c', namespace: 'default' }, data: { a: '1' } });
    const pod = labPod(
      {
        volumes: [
          { name: 'outer', configMap: { name: 'c' } },
          { name: 'inner', emptyDir: {} },
        ],
      },
      [
        ['outer', '/conf'],
        ['inner', '/conf/cache'],
      ],
    );
    await lab.volumes.setUp(pod, signal());
    expect((await stat(join(pathOf(pod, 'configmap', 'outer'), 'cache'))).isDirectory()).toBe(true);
    await gone(pod);
  });

  it('is taken down by a new agent that knows only its uid', async () => {
    lab.objects.set(resources.secrets, { metadata: { name: 's', namespace: 'default' }, data: { k: base64('x') } });
    const pod = labPod({
      volumes: [
        { name: 'a', secret: { secretName: 's' } },
        { name: 'b', emptyDir: { medium: 'Memory' } },
      ],
    });
    pod.spec.containers[0]!.volumeMounts!.push({ name: 'b', mountPath: '/sub', subPath: 'sub' });
    await lab.volumes.setUp(pod, signal());
    await lab.volumes.mountsFor(pod, pod.spec.containers[0]!, {}, signal());
    const next = lab.restart();
    expect(await next.known()).toEqual([pod.metadata.uid]);
    await next.tearDown(pod.metadata.uid!, signal());
    await next.tearDown(pod.metadata.uid!, signal());
    expect(await next.known()).toEqual([]);
    expect(await mountsBelow(lab.root)).toBe(0);
  });
});
