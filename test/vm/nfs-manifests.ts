// Pods of the NFS story, and the claim that one of them uses. All lie on the machine's own network: what is shown are volumes.
import { demoImageName } from '../../cri/local-images.ts';
import { network } from './image.ts';
import { nodeName } from './world.ts';

const server = network.guest;

interface Mount {
  readonly name: string;
  readonly mountPath: string;
  readonly readOnly?: boolean;
  readonly subPath?: string;
}

const pod = (name: string, loop: string, mounts: readonly Mount[], volumes: readonly object[]): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name },
  spec: {
    nodeName,
    hostNetwork: true,
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: 2,
    containers: [
      {
        name: 'main',
        image: demoImageName,
        imagePullPolicy: 'IfNotPresent',
        command: ['/bin/sh', '-c', `trap "exit 0" TERM; while :; do ${loop}; sleep 2; done`],
        volumeMounts: mounts,
      },
    ],
    volumes,
  },
});

const data = { name: 'data', nfs: { server, path: '/srv/nfs' } };

/** Writes the time into the volume once a second; has it writable, read-only and in part, and three other ways to be given a folder of the server. */
export const main = pod(
  'main',
  'date +%s >> /data/main.log',
  [
    { name: 'data', mountPath: '/data' },
    { name: 'data', mountPath: '/same', readOnly: true },
    { name: 'data', mountPath: '/part', subPath: 'sub/inner' },
    { name: 'fixed', mountPath: '/fixed' },
    { name: 'claim', mountPath: '/claim' },
  ],
  [
    data,
    { name: 'fixed', nfs: { server, path: '/srv/nfs/read-only', readOnly: true } },
    { name: 'claim', persistentVolumeClaim: { claimName: 'disk' } },
  ],
);

export const claim = {
  apiVersion: 'v1',
  kind: 'List',
  items: [
    {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: 'nfs-disk' },
      spec: {
        capacity: { storage: '1Gi' },
        accessModes: ['ReadWriteMany'],
        storageClassName: '',
        persistentVolumeReclaimPolicy: 'Retain',
        mountOptions: ['nfsvers=4.1', 'noatime'],
        claimRef: { namespace: 'default', name: 'disk' },
        nfs: { server, path: '/srv/nfs/claim' },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: { name: 'disk' },
      spec: {
        accessModes: ['ReadWriteMany'],
        storageClassName: '',
        volumeName: 'nfs-disk',
        resources: { requests: { storage: '1Gi' } },
      },
    },
  ],
};

/** Its process hangs in the kernel when the server is gone, and it is deleted then. */
export const doomed = pod('doomed', 'date +%s > /data/doomed', [{ name: 'data', mountPath: '/data' }], [data]);

/** Has nothing to do with NFS: says the time once a second. */
export const bystander = (name: string): object =>
  pod(name, 'date +%s', [{ name: 'own', mountPath: '/own' }], [{ name: 'own', emptyDir: {} }]);

/** Made while the server is gone. */
export const late = (name: string): object =>
  pod(name, `date +%s > /data/${name}`, [{ name: 'data', mountPath: '/data' }], [data]);
