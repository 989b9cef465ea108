// Volumes of a CSI driver over real sockets and real mounts.
import { lstat, readdir, readFile, readlink, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { status } from '@grpc/grpc-js';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { attachmentName, inlineHandle } from '../../agent/volumes/csi/vol-data.ts';
import { readMountTable } from '../../agent/volumes/mount-table.ts';
import { createFakeClient, type FakeClient } from '../../kube/fake-client.ts';
import { resources } from '../../kube/resources.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { CsiDriver } from '../../kube/types/volume.ts';
import { type CsiTestDriver, startCsiDriver } from '../lab/csi-driver.ts';
import { labPod, signal, type VolumesLab, volumesLab } from '../lab/volumes.ts';

const driverName = 'test.csi.example.com';
const nodeObject: Node = { metadata: { name: 'lab', uid: 'node-uid' }, spec: {}, status: {} };
let client: FakeClient;
let lab: VolumesLab;
let driver: CsiTestDriver;

async function until(what: () => boolean | Promise<boolean>, ms = 10_000): Promise<void> {
  const end = performance.now() + ms;
  while (!(await what())) {
    if (performance.now() > end) throw new Error(`not within ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

const startDriver = (more: Partial<Parameters<typeof startCsiDriver>[0]> = {}): Promise<CsiTestDriver> =>
  startCsiDriver({
    name: driverName,
    folder: join(lab.root, 'driver'),
    registry: join(lab.root, 'plugins_registry'),
    ...more,
  });

async function begin(more: Partial<Parameters<typeof startCsiDriver>[0]> = {}): Promise<void> {
  driver = await startDriver(more);
  await until(() => driver.notices.length > 0);
}

beforeEach(async () => {
  if (process.getuid?.() !== 0) throw new Error('this test needs root');
  client = createFakeClient();
  client.seed(resources.nodes, nodeObject);
  client.answer(
    (call) => call.subresource === 'token',
    (call) => ({
      ...(call.body as object),
      status: { token: 'the-token', expirationTimestamp: new Date(Date.now() + 3_600_000).toISOString() },
    }),
  );
  lab = await volumesLab({ client, node: () => client.find(resources.nodes, { name: 'lab' }) });
});
afterEach(async () => {
  await driver?.stop();
  await lab.close();
});

const csiDriver = (spec: CsiDriver['spec']): void =>
  void client.seed(resources.csiDrivers, { metadata: { name: driverName }, spec });

function claim(name: string, spec: Record<string, unknown> = {}, size = '1Gi'): void {
  client.seed(resources.persistentVolumeClaims, {
    metadata: { name, namespace: 'default', uid: `uid-${name}` },
    spec: { volumeName: `pv-${name}` },
    status: { phase: 'Bound', capacity: { storage: '1Gi' } },
  });
  client.seed(resources.persistentVolumes, {
    metadata: { name: `pv-${name}` },
    spec: {
      accessModes: ['ReadWriteOnce'],
      capacity: { storage: size },
      claimRef: { namespace: 'default', name, uid: `uid-${name}` },
      csi: { driver: driverName, volumeHandle: `handle-${name}`, fsType: 'ext4', volumeAttributes: { a: 'b' } },
      ...spec,
    },
  });
}

const podWith = (claimName: string): Pod => labPod({ volumes: [{ name: 'v', persistentVolumeClaim: { claimName } }] });
const target = (pod: Pod, name: string): string =>
  join(lab.root, 'pods', pod.metadata.uid!, 'volumes/kubernetes.io~csi', name, 'mount');
const methods = (): string[] =>
  driver.calls.map((call) => call.method).filter((name) => /Stage|Publish|Unpublish|Unstage|Expand/i.test(name));
const gone = async (pod: Pod): Promise<void> => {
  await lab.volumes.tearDown(pod.metadata.uid!, signal());
  expect((await readMountTable()).under(join(lab.root, 'pods', pod.metadata.uid!))).toEqual([]);
  await expect(stat(join(lab.root, 'pods', pod.metadata.uid!))).rejects.toThrow('ENOENT');
};

describe('registration', () => {
  it('tells the control plane of the driver, and of its going', async () => {
    await begin({ topology: { 'topology.example.com/zone': 'z1' } });
    expect(driver.notices).toEqual([{ pluginRegistered: true, error: '' }]);
    expect(client.find(resources.csiNodes, { name: 'lab' })).toMatchObject({
      metadata: {
        ownerReferences: [
          { kind: 'Node', name: 'lab', uid: client.find(resources.nodes, { name: 'lab' })!.metadata.uid },
        ],
      },
      spec: {
        drivers: [
          {
            name: driverName,
            nodeID: `${driverName}-node`,
            topologyKeys: ['topology.example.com/zone'],
            allocatable: { count: 7 },
          },
        ],
      },
    });
    const node = client.find(resources.nodes, { name: 'lab' })!;
    expect(node.metadata.labels).toEqual({ 'topology.example.com/zone': 'z1' });
    expect(JSON.parse(node.metadata.annotations!['csi.volume.kubernetes.io/nodeid']!)).toEqual({
      [driverName]: `${driverName}-node`,
    });
    await driver.stop();
    await until(() => client.find(resources.csiNodes, { name: 'lab' })!.spec.drivers.length === 0);
  });

  it('refuses what it cannot speak to, in words', async () => {
    await begin({ versions: ['2.0.0'] });
    expect(driver.notices[0]).toMatchObject({ pluginRegistered: false });
    expect(driver.notices[0]!.error).toContain('this node speaks v1');
  });

  it('wakes a pod that waits for the driver', async () => {
    csiDriver({ attachRequired: false });
    claim('a');
    const pod = podWith('a');
    await expect(lab.volumes.setUp(pod, signal())).rejects.toMatchObject({
      waiting: true,
      message: `MountVolume.SetUp failed for volume "pv-a" : kubernetes.io/csi: failed to get CSI client: driver name ${driverName} not found in the list of registered CSI drivers`,
    });
    await begin();
    await until(() => lab.woken.includes(pod.metadata.uid!));
    await lab.volumes.setUp(pod, signal());
    await gone(pod);
  });
});

describe('a persistent volume', () => {
  it('is staged once, published for each pod, and taken down in order', async () => {
    csiDriver({ attachRequired: false });
    claim('a');
    await begin();
    const first = podWith('a');
    const second = podWith('a');
    await lab.volumes.setUp(first, signal());
    await lab.volumes.setUp(second, signal());
    expect(methods()).toEqual(['NodeStageVolume', 'NodePublishVolume', 'NodePublishVolume']);
    const staging = driver.calls.find((call) => call.method === 'NodeStageVolume')!.request.stagingTargetPath as string;
    expect(staging).toMatch(
      new RegExp(`${lab.root}/plugins/kubernetes.io/csi/${driverName}/[0-9a-f]{64}/globalmount$`),
    );
    expect(driver.calls.find((call) => call.method === 'NodePublishVolume')!.request).toMatchObject({
      volumeId: 'handle-a',
      stagingTargetPath: staging,
      targetPath: target(first, 'pv-a'),
      volumeContext: { a: 'b' },
      readonly: false,
      volumeCapability: { accessMode: { mode: 1 }, mount: { fsType: 'ext4', mountFlags: [] } },
    });
    expect(JSON.parse(await readFile(join(target(first, 'pv-a'), '../vol_data.json'), 'utf8'))).toEqual({
      specVolID: 'pv-a',
      volumeHandle: 'handle-a',
      driverName,
      nodeName: 'lab',
      attachmentID: attachmentName('handle-a', driverName, 'lab'),
      volumeLifecycleMode: 'Persistent',
    });
    expect(lab.volumes.volumesInUse()).toEqual([`kubernetes.io/csi/${driverName}^handle-a`]);
    await writeFile(join(target(first, 'pv-a'), 'data'), 'kept');
    expect(await readFile(join(target(second, 'pv-a'), 'data'), 'utf8')).toBe('kept');
    expect(await lab.volumes.stats(first)).toMatchObject([
      {
        name: 'v',
        pvcRef: { namespace: 'default', name: 'a' },
        capacityBytes: 100,
        availableBytes: 60,
        usedBytes: 40,
        inodes: 10,
        inodesFree: 6,
        inodesUsed: 4,
        volumeHealthStats: { abnormal: false },
      },
    ]);
    await gone(first);
    expect(methods().at(-1)).toBe('NodeUnpublishVolume');
    expect(lab.volumes.volumesInUse()).toHaveLength(1);
    await gone(second);
    expect(methods().slice(-2)).toEqual(['NodeUnpublishVolume', 'NodeUnstageVolume']);
    expect(lab.volumes.volumesInUse()).toEqual([]);
    expect(await readFile(join(driver.dataOf('handle-a'), 'data'), 'utf8')).toBe('kept');
    await expect(stat(join(staging, '..'))).rejects.toThrow('ENOENT');
  });

  it('waits for the control plane to attach it', async () => {
    claim('a');
    await begin();
    const pod = podWith('a');
    await expect(lab.volumes.setUp(pod, signal())).rejects.toMatchObject({
      reason: 'FailedAttachVolume',
      waiting: true,
      message: 'AttachVolume.Attach for volume "pv-a" : waiting for the control plane to attach it to this node',
    });
    expect(lab.volumes.volumesInUse()).toEqual([`kubernetes.io/csi/${driverName}^handle-a`]);
    await until(() => lab.woken.includes(pod.metadata.uid!));
    client.seed(resources.volumeAttachments, {
      metadata: { name: attachmentName('handle-a', driverName, 'lab') },
      spec: { attacher: driverName, nodeName: 'lab', source: { persistentVolumeName: 'pv-a' } },
      status: { attached: true, attachmentMetadata: { disk: '/dev/sdx' } },
    });
    await expect(lab.volumes.setUp(pod, signal())).resolves.toBeUndefined();
    expect(driver.calls.find((call) => call.method === 'NodeStageVolume')!.request.publishContext).toEqual({
      disk: '/dev/sdx',
    });
    await gone(pod);
  });

  it('is no longer in use where the pod goes before it was attached', async () => {
    claim('a');
    await begin();
    const pod = podWith('a');
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow('waiting for the control plane');
    await lab.volumes.tearDown(pod.metadata.uid!, signal());
    expect(lab.volumes.volumesInUse()).toEqual([]);
  });

  it('grows where the driver can, and the claim is told', async () => {
    csiDriver({ attachRequired: false });
    claim('a', {}, '2Gi');
    await begin();
    const pod = podWith('a');
    await lab.volumes.setUp(pod, signal());
    expect(methods()).toContain('NodeExpandVolume');
    const after = client.find(resources.persistentVolumeClaims, { namespace: 'default', name: 'a' });
    expect(after?.status?.capacity).toEqual({ storage: '2Gi' });
    await gone(pod);
  });

  it('is given to the fsGroup as the driver wishes', async () => {
    csiDriver({ attachRequired: false, fsGroupPolicy: 'File' });
    claim('a');
    await begin();
    const pod = podWith('a');
    pod.spec.securityContext = { fsGroup: 1234 };
    await lab.volumes.setUp(pod, signal());
    expect((await stat(target(pod, 'pv-a'))).gid).toBe(1234);
    await gone(pod);
  });

  it('of mode Block is a device behind a link', async () => {
    csiDriver({ attachRequired: false });
    claim('a', { volumeMode: 'Block' });
    await begin();
    const pod = podWith('a');
    pod.spec.containers[0]!.volumeMounts = [];
    pod.spec.containers[0]!.volumeDevices = [{ name: 'v', devicePath: '/dev/xvda' }];
    await lab.volumes.setUp(pod, signal());
    const { devices, mounts } = await lab.volumes.mountsFor(pod, pod.spec.containers[0]!, {}, signal());
    const link = join(lab.root, 'pods', pod.metadata.uid!, 'volumeDevices/kubernetes.io~csi/pv-a');
    expect(devices).toEqual([{ containerPath: '/dev/xvda', hostPath: link, permissions: 'mrw' }]);
    expect(mounts).toEqual([]);
    expect(await readlink(link)).toBe(
      join(lab.root, 'plugins/kubernetes.io/csi/volumeDevices/publish/pv-a', pod.metadata.uid!),
    );
    expect((await stat(link)).isCharacterDevice()).toBe(true);
    await gone(pod);
    expect(methods()).toEqual(['NodeStageVolume', 'NodePublishVolume', 'NodeUnpublishVolume', 'NodeUnstageVolume']);
    expect(await readdir(join(lab.root, 'plugins/kubernetes.io/csi/volumeDevices'))).toEqual(['publish', 'staging']);
  });

  it('for one pod only is not given to a second', async () => {
    csiDriver({ attachRequired: false });
    claim('a', { accessModes: ['ReadWriteOncePod'] });
    await begin();
    const first = podWith('a');
    const second = podWith('a');
    await lab.volumes.setUp(first, signal());
    await expect(lab.volumes.setUp(second, signal())).rejects.toThrow(
      'volume uses the ReadWriteOncePod access mode and is already in use by another pod',
    );
    await gone(first);
    await lab.volumes.setUp(second, signal());
    await gone(second);
  });

  it('of a driver that mounts with SELinux labels is given one, on hosts that have SELinux', async () => {
    csiDriver({ attachRequired: false, seLinuxMount: true });
    claim('a', { accessModes: ['ReadWriteOncePod'], mountOptions: ['noatime'] });
    await begin();
    const pod = podWith('a');
    pod.spec.securityContext = { seLinuxOptions: { level: 's0:c7,c9' } };
    const asked = () =>
      driver.calls
        .filter(({ method }) => method === 'NodeStageVolume' || method === 'NodePublishVolume')
        .map(({ request }) => (request.volumeCapability as { mount: { mountFlags: string[] } }).mount.mountFlags);
    const relabelled = async (volumes = lab.volumes) =>
      (await volumes.mountsFor(pod, pod.spec.containers[0]!, {}, signal())).mounts.map((mount) => mount.selinuxRelabel);
    const plain = lab.restart({ selinux: () => Promise.resolve(undefined) });
    await until(() => driver.notices.length > 1);
    await plain.setUp(pod, signal());
    expect(asked()).toEqual([['noatime'], ['noatime']]);
    expect(await relabelled(plain)).toEqual([true]);
    await plain.tearDown(pod.metadata.uid!, signal());

    driver.calls.length = 0;
    const labelling = lab.restart({
      selinux: () => Promise.resolve({ fileLabel: 'system_u:object_r:container_file_t:s0' }),
    });
    await until(() => driver.notices.length > 2);
    await labelling.setUp(pod, signal());
    const flags = ['noatime', 'context="system_u:object_r:container_file_t:s0:c7,c9"'];
    expect(asked()).toEqual([flags, flags]);
    expect(await relabelled(labelling)).toEqual([false]);
    await labelling.tearDown(pod.metadata.uid!, signal());
  });

  it('is adopted by a new agent, which knows it in use before any pod is looked at', async () => {
    csiDriver({ attachRequired: false });
    claim('a');
    await begin();
    const pod = podWith('a');
    await lab.volumes.setUp(pod, signal());
    const next = lab.restart();
    await until(() => next.volumesInUse().length === 1);
    await until(() => driver.notices.length > 1);
    await next.tearDown(pod.metadata.uid!, signal());
    expect(next.volumesInUse()).toEqual([]);
    expect((await readMountTable()).under(join(lab.root, 'plugins'))).toEqual([]);
  });
});

describe('an inline volume', () => {
  it('is published alone, with what is known of the pod and its tokens', async () => {
    csiDriver({
      volumeLifecycleModes: ['Ephemeral'],
      podInfoOnMount: true,
      tokenRequests: [{ audience: 'vault', expirationSeconds: 3600 }],
      requiresRepublish: true,
    });
    await begin();
    const pod = labPod({
      volumes: [{ name: 'v', csi: { driver: driverName, readOnly: true, volumeAttributes: { k: 'x' } } }],
    });
    await lab.volumes.setUp(pod, signal());
    const published = driver.calls.find((call) => call.method === 'NodePublishVolume')!.request;
    expect(published).toMatchObject({
      volumeId: inlineHandle(pod.metadata.uid!, 'v'),
      readonly: true,
      stagingTargetPath: '',
    });
    const context = published.volumeContext as Record<string, string>;
    expect(context).toMatchObject({
      k: 'x',
      'csi.storage.k8s.io/pod.name': pod.metadata.name,
      'csi.storage.k8s.io/pod.uid': pod.metadata.uid,
      'csi.storage.k8s.io/ephemeral': 'true',
    });
    expect(JSON.parse(context['csi.storage.k8s.io/serviceAccount.tokens']!)).toMatchObject({
      vault: { token: 'the-token' },
    });
    expect(methods()).toEqual(['NodePublishVolume']);
    await gone(pod);
    expect(methods()).toEqual(['NodePublishVolume', 'NodeUnpublishVolume']);
  });

  it('is refused where the driver does not offer them', async () => {
    csiDriver({ volumeLifecycleModes: ['Persistent'] });
    await begin();
    const pod = labPod({ volumes: [{ name: 'v', csi: { driver: driverName } }] });
    await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow(
      `volume mode "Ephemeral" not supported by driver ${driverName}`,
    );
    await gone(pod);
  });
});

describe('a driver with faults', () => {
  beforeEach(async () => {
    csiDriver({ attachRequired: false });
    claim('a');
    await begin();
  });

  for (const method of ['NodeStageVolume', 'NodePublishVolume'])
    for (const fault of [{ fail: status.INTERNAL }, { late: status.INTERNAL }, { late: status.UNAVAILABLE }])
      it(`${method} ${JSON.stringify(fault)} is tried again, and undone`, async () => {
        const pod = podWith('a');
        driver.faults.set(method, fault);
        await expect(lab.volumes.setUp(pod, signal())).rejects.toThrow(
          /MountVolume.SetUp failed for volume "pv-a" : rpc error: code = (Internal|Unavailable)/,
        );
        expect(lab.volumes.isUp(pod)).toBe(false);
        driver.faults.clear();
        await lab.volumes.setUp(pod, signal());
        expect((await readMountTable()).at(target(pod, 'pv-a'))).toBeDefined();
        driver.faults.set(method, fault);
        const other = podWith('a');
        await lab.volumes.setUp(other, signal()).catch(() => undefined);
        driver.faults.clear();
        await gone(pod);
        await gone(other);
        expect((await readMountTable()).under(lab.root)).toEqual([]);
      });

  it('that hangs holds up nobody else, and the call ends with the pod', async () => {
    driver.faults.set('NodeStageVolume', { hang: true });
    const stuck = podWith('a');
    const hanging = lab.volumes.setUp(stuck, signal());
    hanging.catch(() => undefined);
    await until(() => methods().includes('NodeStageVolume'));
    const other = labPod({ volumes: [{ name: 'v', emptyDir: {} }] });
    await lab.volumes.setUp(other, signal());
    await gone(other);
    driver.faults.clear();
    await gone(stuck);
    await expect(hanging).rejects.toThrow('taken down');
  });

  it('that is away when the pod goes is waited for', async () => {
    const pod = podWith('a');
    await lab.volumes.setUp(pod, signal());
    await driver.stop();
    await until(() => client.find(resources.csiNodes, { name: 'lab' })!.spec.drivers.length === 0);
    await expect(lab.volumes.tearDown(pod.metadata.uid!, signal())).rejects.toMatchObject({
      reason: 'FailedUnmount',
      volume: 'pv-a',
    });
    await lstat(target(pod, 'pv-a'));
    await begin();
    await until(() => lab.woken.includes(pod.metadata.uid!));
    await gone(pod);
  });

  it('that leaves a mount behind is not believed', async () => {
    const pod = podWith('a');
    await lab.volumes.setUp(pod, signal());
    await writeFile(join(driver.dataOf('handle-a'), 'data'), 'kept');
    driver.faults.set('NodeUnpublishVolume', { fail: status.INTERNAL });
    await expect(lab.volumes.tearDown(pod.metadata.uid!, signal())).rejects.toThrow('code = Internal');
    expect(await readFile(join(driver.dataOf('handle-a'), 'data'), 'utf8')).toBe('kept');
    driver.faults.clear();
    await gone(pod);
    expect(await readFile(join(driver.dataOf('handle-a'), 'data'), 'utf8')).toBe('kept');
  });
});
