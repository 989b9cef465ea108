import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Container, Pod, SELinuxOptions } from '../../../kube/types/pod.ts';
import { contextOption, mountLabel, readSELinux } from './selinux-context.ts';

describe('SELinux of a host', () => {
  let root: string;
  const at = (path: string): string => join(root, path);
  const host = async (files: Record<string, string>): Promise<ReturnType<typeof readSELinux>> => {
    for (const [path, text] of Object.entries(files)) {
      await mkdir(join(at(path), '..'), { recursive: true });
      await writeFile(at(path), text);
    }
    return await readSELinux(at('etc'), at('proc'));
  };
  const on = {
    'proc/self/mounts': 'proc /proc proc rw 0 0\nselinuxfs /sys/fs/selinux selinuxfs rw 0 0\n',
    'proc/self/attr/current': 'system_u:system_r:kubelet_t:s0\0',
    'etc/config': '# a comment\nSELINUX=enforcing\nSELINUXTYPE=mls\n',
    'etc/mls/contexts/lxc_contexts':
      'process = "system_u:system_r:container_t:s0"\ncontent = "system_u:object_r:virt_var_lib_t:s0"\nfile = "system_u:object_r:container_file_t:s0"\n',
  };
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'sv-se-'));
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  it('that has it', async () => expect(await host(on)).toEqual({ fileLabel: 'system_u:object_r:container_file_t:s0' }));
  it.each<[string, Partial<typeof on>]>([
    ['is not built in', { 'proc/self/mounts': 'proc /proc proc rw 0 0\n' }],
    ['has no policy', { 'proc/self/attr/current': 'kernel\0' }],
    ['knows no containers', { 'etc/mls/contexts/lxc_contexts': 'process = "a:b:c:s0"\n' }],
  ])('that %s', async (_what, changed) => expect(await host({ ...on, ...changed })).toBeUndefined());
  it('of these tests is asked too', async () => {
    const found = await readSELinux();
    expect(found === undefined || found.fileLabel.split(':').length >= 4).toBe(true);
  });
});

describe('the label that a volume is mounted with', () => {
  const selinux = { fileLabel: 'system_u:object_r:container_file_t:s0' };
  const driver = { seLinuxMount: true };
  const pv = (...accessModes: string[]) => ({ metadata: { name: 'pv' }, spec: { accessModes } });
  const single = pv('ReadWriteOncePod');
  const container = (name: string, options?: SELinuxOptions, mounts = ['v']): Container => ({
    name,
    image: 'i',
    volumeMounts: mounts.map((each) => ({ name: each, mountPath: `/${each}` })),
    ...(options ? { securityContext: { seLinuxOptions: options } } : {}),
  });
  const pod = (options: SELinuxOptions | undefined, containers: Container[], policy?: string): Pod => ({
    metadata: { name: 'p' },
    spec: {
      containers,
      securityContext: {
        ...(options ? { seLinuxOptions: options } : {}),
        ...(policy ? { seLinuxChangePolicy: policy } : {}),
      },
    },
  });
  const level = { level: 's0:c1,c2' };
  const label = 'system_u:object_r:container_file_t:s0:c1,c2';

  it.each<[string, string | undefined, string | undefined]>([
    ['the pod', label, mountLabel(selinux, driver, single, pod(level, [container('a')]), 'v')],
    ['a container', label, mountLabel(selinux, driver, single, pod({ level: 's0' }, [container('a', level)]), 'v')],
    [
      'a user of its own',
      'u:object_r:container_file_t:s0:c1,c2',
      mountLabel(selinux, driver, single, pod({ ...level, user: 'u', type: 'spc_t' }, [container('a')]), 'v'),
    ],
    [
      'those that mount it alone',
      label,
      mountLabel(selinux, driver, single, pod(level, [container('a'), container('b', { level: 's0' }, ['w'])]), 'v'),
    ],
    ['nobody', undefined, mountLabel(selinux, driver, single, pod(undefined, [container('a')]), 'v')],
    ['no level', undefined, mountLabel(selinux, driver, single, pod({ type: 't' }, [container('a')]), 'v')],
    ['a host without', undefined, mountLabel(undefined, driver, single, pod(level, [container('a')]), 'v')],
    ['a driver without', undefined, mountLabel(selinux, {}, single, pod(level, [container('a')]), 'v')],
    ['an unknown driver', undefined, mountLabel(selinux, undefined, single, pod(level, [container('a')]), 'v')],
    [
      'a volume of many',
      undefined,
      mountLabel(selinux, driver, pv('ReadWriteOncePod', 'ReadWriteOnce'), pod(level, [container('a')]), 'v'),
    ],
    [
      'a pod that wants its files relabelled',
      undefined,
      mountLabel(selinux, driver, single, pod(level, [container('a')], 'Recursive'), 'v'),
    ],
  ])('by %s', (_what, expected, got) => expect(got).toBe(expected));

  it('is one', () =>
    expect(() =>
      mountLabel(selinux, driver, single, pod(level, [container('a'), container('b', { level: 's0:c3' })]), 'v'),
    ).toThrow(
      'multiple SELinux labels found: system_u:object_r:container_file_t:s0:c1,c2,system_u:object_r:container_file_t:s0:c3',
    ));

  it('is quoted as an option', () => expect(contextOption(label)).toBe(`context="${label}"`));
});
