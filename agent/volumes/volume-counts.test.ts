import { rm } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { resources } from '../../kube/resources.ts';
import type { ConfigMap } from '../../kube/types/core.ts';
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

  it('while one object is missing, those that are there are not written again and again', async () => {
    const told: string[] = [];
    const lab = await volumesLab({
      operated: (_operation, plugin, _tookMs, error) => void (error === undefined && told.push(plugin)),
    });
    try {
      const configMap = (name: string): ConfigMap => ({ metadata: { name, namespace: 'default' }, data: { a: '1' } });
      lab.objects.set(resources.configMaps, configMap('there'));
      const pod = podWith(
        { name: 'there', configMap: { name: 'there' } },
        { name: 'gone', configMap: { name: 'gone' } },
        { name: 'me', downwardAPI: { items: [{ path: 'l', fieldRef: { fieldPath: 'metadata.labels' } }] } },
      );
      for (let time = 0; time < 3; time++)
        await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow('configmap "gone" not found');
      expect(told.sort()).toEqual(['kubernetes.io/configmap', 'kubernetes.io/downward-api']);
      // What shows the pod follows it, also while another volume is waited for; and so does the object that changed.
      const labelled = { ...pod, metadata: { ...pod.metadata, labels: { a: 'b' } } };
      told.length = 0;
      await expect(lab.volumes.setUp(labelled, signal())).rejects.toThrow('configmap "gone" not found');
      expect(told).toEqual(['kubernetes.io/downward-api']);
      lab.objects.set(resources.configMaps, configMap('gone'));
      told.length = 0;
      await lab.volumes.setUp(labelled, signal());
      expect(told).toEqual(['kubernetes.io/configmap']);
      expect(lab.volumes.isUp(labelled)).toBe(true);
      await lab.volumes.tearDown('uid-p', signal());
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
