// One agent with a pod of every kind of volume, that is killed by SIGKILL at the fault point it is told to. Run as a program:
//   node volumes-crash.ts ROOT POINT     (POINT -1: not at all; then the names of the points are printed, in order)
// The CSI driver runs in the test that starts this.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createFakeObjectSource } from '../../agent/volumes/fake-object-source.ts';
import { createPodVolumes, type PodVolumes } from '../../agent/volumes/pod-volumes.ts';
import type { VolumeDeps } from '../../agent/volumes/volume-driver.ts';
import { createFakeClient } from '../../kube/fake-client.ts';
import { resources } from '../../kube/resources.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';

export const crashDriver = 'crash.csi.example.com';

export const crashPod: Pod = {
  metadata: { name: 'crash', namespace: 'default', uid: '11111111-2222-4333-8444-555555555555', labels: { a: 'b' } },
  spec: {
    serviceAccountName: 'default',
    securityContext: { fsGroup: 1234 },
    volumes: [
      { name: 'config', configMap: { name: 'c' } },
      { name: 'all', projected: { sources: [{ secret: { name: 's' } }, { serviceAccountToken: { path: 'token' } }] } },
      { name: 'empty', emptyDir: {} },
      { name: 'memory', emptyDir: { medium: 'Memory' } },
      { name: 'host', hostPath: { path: 'HOST' } },
      { name: 'local', persistentVolumeClaim: { claimName: 'local' } },
      { name: 'csi', persistentVolumeClaim: { claimName: 'csi' } },
    ],
    containers: [
      {
        name: 'main',
        volumeMounts: [
          { name: 'config', mountPath: '/config' },
          { name: 'all', mountPath: '/all' },
          { name: 'empty', mountPath: '/empty', subPath: 'a/b' },
          { name: 'memory', mountPath: '/memory' },
          { name: 'host', mountPath: '/host' },
          { name: 'local', mountPath: '/local', subPath: 'data' },
          { name: 'csi', mountPath: '/csi' },
        ],
      },
    ],
  },
};

export function podIn(root: string): Pod {
  const volumes = crashPod.spec.volumes!.map((volume) =>
    volume.hostPath ? { ...volume, hostPath: { path: join(root, 'host') } } : volume,
  );
  return { ...crashPod, spec: { ...crashPod.spec, volumes } };
}

export function crashAgent(
  root: string,
  faultPoint: NonNullable<VolumeDeps['faultPoint']>,
  more: Pick<VolumeDeps, 'log' | 'mounter'> = { log: silentLog },
): { volumes: PodVolumes; refresh: () => void } {
  const client = createFakeClient();
  const objects = createFakeObjectSource();
  client.seed(resources.nodes, { metadata: { name: 'lab' }, spec: {} });
  client.seed(resources.csiDrivers, { metadata: { name: crashDriver }, spec: { attachRequired: false } });
  for (const [name, source] of Object.entries({
    local: { local: { path: join(root, 'local') } },
    csi: { csi: { driver: crashDriver, volumeHandle: 'handle', fsType: 'ext4' } },
  })) {
    const claimRef = { namespace: 'default', name, uid: `uid-${name}` };
    client.seed(resources.persistentVolumeClaims, {
      metadata: { name, namespace: 'default', uid: `uid-${name}` },
      spec: { volumeName: `pv-${name}` },
      status: { phase: 'Bound' },
    });
    client.seed(resources.persistentVolumes, {
      metadata: { name: `pv-${name}` },
      spec: { accessModes: ['ReadWriteOnce'], claimRef, ...source },
    });
  }
  const expirationTimestamp = new Date(Date.now() + 3_600_000).toISOString();
  client.answer(
    (call) => call.subresource === 'token',
    (call) => ({ ...(call.body as object), status: { token: 'a-token', expirationTimestamp } }),
  );
  const configMap = (value: string, resourceVersion: string) => ({
    metadata: { name: 'c', namespace: 'default', resourceVersion },
    data: { key: value },
  });
  objects.set(resources.configMaps, configMap('one', '1'));
  objects.set(resources.secrets, {
    metadata: { name: 's', namespace: 'default' },
    data: { secret: Buffer.from('hush').toString('base64') },
  });
  const volumes = createPodVolumes(
    { clock: systemClock, client, objects, node: () => undefined, wake: () => undefined, faultPoint, ...more },
    { rootDir: root, nodeName: 'lab' },
  );
  return { volumes, refresh: () => objects.set(resources.configMaps, configMap('two', '2')) };
}

/** Calls until it works: the driver registers a moment after the agent starts. */
export async function eventually<T>(work: () => Promise<T>, ms = 20_000): Promise<T> {
  const end = performance.now() + ms;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > end) throw error;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}

export async function live(root: string, agent: ReturnType<typeof crashAgent>): Promise<void> {
  const pod = podIn(root);
  const signal = AbortSignal.timeout(30_000);
  await eventually(() => agent.volumes.setUp(pod, signal));
  for (const container of pod.spec.containers as Container[]) await agent.volumes.mountsFor(pod, container, {}, signal);
  const config = join(root, 'pods', pod.metadata.uid!, 'volumes/kubernetes.io~configmap/config/key');
  agent.refresh();
  await eventually(async () => {
    if ((await readFile(config, 'utf8')) !== 'two') throw new Error('not refreshed yet');
  });
  await writeFile(join(root, 'pods', pod.metadata.uid!, 'volumes/kubernetes.io~empty-dir/empty/file'), 'x');
  await agent.volumes.tearDown(pod.metadata.uid!, signal);
}

if (import.meta.main) {
  const [root = '', point = '-1'] = process.argv.slice(2);
  const visited: string[] = [];
  const agent = crashAgent(root, (name) => {
    visited.push(name);
    // At once, as a lost power does: no handler runs and nothing is cleaned up.
    if (visited.length - 1 === Number(point)) process.kill(process.pid, 'SIGKILL');
  });
  const stopping = new AbortController();
  const running = agent.volumes.run(stopping.signal);
  await live(root, agent);
  stopping.abort();
  await running;
  process.stdout.write(JSON.stringify(visited));
}
