import { rm } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import type { Volume } from '../../kube/types/volume.ts';
import { signal, volumesLab } from '../../test/lab/volumes.ts';
import { pluginNameOf } from './drivers.ts';

const podWith = (...volumes: Volume[]): Pod => ({
  metadata: { name: 'p', namespace: 'default', uid: 'uid-p' },
  spec: {
    volumes,
    containers: [{ name: 'c', volumeMounts: volumes.map(({ name }) => ({ name, mountPath: `/${name}` })) }],
  },
});

describe('counts of volumes', () => {
  it('what is wanted, what is up, and how each went', async () => {
    const told: string[] = [];
    const lab = await volumesLab({
      operated: (operation, plugin, _tookMs, error) =>
        void told.push(`${operation} ${plugin} ${error === undefined ? 'success' : 'failed'}`),
    });
    try {
      const pod = podWith(
        { name: 'there', hostPath: { path: '/' } },
        { name: 'gone', hostPath: { path: '/gone', type: 'File' } },
      );
      await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow('/gone');
      expect(lab.volumes.counts()).toEqual({
        desired: ['kubernetes.io/host-path', 'kubernetes.io/host-path'],
        actual: ['kubernetes.io/host-path'],
      });
      expect(told.sort()).toEqual([
        'volume_mount kubernetes.io/host-path failed',
        'volume_mount kubernetes.io/host-path success',
      ]);
      await lab.volumes.tearDown('uid-p', signal());
      expect(lab.volumes.counts()).toEqual({ desired: [], actual: [] });
    } finally {
      await lab.close();
      await rm(lab.root, { recursive: true, force: true });
    }
  });

  it.each<[Volume, string]>([
    [{ name: 'v', csi: { driver: 'd.example.com' } }, 'kubernetes.io/csi:d.example.com'],
    [{ name: 'v', downwardAPI: {} }, 'kubernetes.io/downward-api'],
    [{ name: 'v' }, 'kubernetes.io/empty-dir'],
    [{ name: 'v', persistentVolumeClaim: { claimName: 'c' } }, 'N/A'],
  ])('%j is of %s', (volume, plugin) => expect(pluginNameOf(volume, undefined)).toBe(plugin));
});
