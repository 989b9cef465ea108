// A root directory of its own with the volumes room on it, for tests with real mounts; everything is unmounted and removed at the end.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createFakeObjectSource, type FakeObjectSource } from '../../agent/volumes/fake-object-source.ts';
import { createMounter } from '../../agent/volumes/mounter.ts';
import { createPodVolumes, type PodVolumes } from '../../agent/volumes/pod-volumes.ts';
import { unmountUnder } from '../../agent/volumes/remove-tree.ts';
import type { VolumeDeps } from '../../agent/volumes/volume-driver.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { Node, TokenRequest } from '../../kube/types/core.ts';
import type { Container, Pod, PodSpec } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';

export interface RecordedEvent {
  readonly type: string;
  readonly reason: string;
  readonly message: string;
}

export interface VolumesLab {
  readonly root: string;
  readonly objects: FakeObjectSource;
  readonly volumes: PodVolumes;
  readonly woken: string[];
  readonly events: RecordedEvent[];
  /** TokenRequests that were made. */
  readonly tokenRequests: TokenRequest[];
  /** The same root directory in the hands of a new agent, as after a restart; `changes` replace deps. */
  restart(changes?: Partial<VolumeDeps>): PodVolumes;
  close(): Promise<void>;
}

export const signal = (): AbortSignal => AbortSignal.timeout(30_000);

export async function volumesLab(changes: Partial<VolumeDeps> = {}): Promise<VolumesLab> {
  const root = await mkdtemp(join(tmpdir(), 'stevedore-volumes-'));
  const objects = createFakeObjectSource();
  const woken: string[] = [];
  const events: RecordedEvent[] = [];
  const tokenRequests: TokenRequest[] = [];
  const stopping = new AbortController();
  const runs: Promise<void>[] = [];
  const client = {
    create: (_resource: unknown, object: TokenRequest) => {
      tokenRequests.push(object);
      const expirationTimestamp = new Date(Date.now() + (object.spec.expirationSeconds ?? 3600) * 1000).toISOString();
      return Promise.resolve({ ...object, status: { token: `token-${tokenRequests.length}`, expirationTimestamp } });
    },
  } as unknown as KubeClient;
  const node: Node = {
    metadata: { name: 'lab' },
    spec: {},
    status: { allocatable: { cpu: '2', memory: '512Mi', 'ephemeral-storage': '10Gi' } },
  };
  const start = (more: Partial<VolumeDeps>): PodVolumes => {
    const volumes = createPodVolumes(
      {
        clock: systemClock,
        log: silentLog,
        client,
        objects,
        node: () => node,
        wake: (uid) => void woken.push(uid),
        events: { record: (_about, type, reason, message) => void events.push({ type, reason, message }) },
        ...changes,
        ...more,
      },
      { rootDir: root, nodeName: 'lab', refreshPatienceMs: 1_000 },
    );
    runs.push(volumes.run(stopping.signal));
    return volumes;
  };
  return {
    root,
    objects,
    woken,
    events,
    tokenRequests,
    volumes: start({}),
    restart: (more = {}) => start(more),
    async close() {
      stopping.abort();
      await Promise.all(runs);
      await unmountUnder(createMounter(), root, AbortSignal.timeout(30_000));
      await rm(root, { recursive: true, force: true });
    },
  };
}

let serial = 0;

/** A pod with one container that mounts the volumes as given: `[volume, mountPath]`. */
export function labPod(
  spec: Omit<PodSpec, 'containers'> & { containers?: Container[] },
  mounts: readonly (readonly [string, string])[] = (spec.volumes ?? []).map(
    (volume) => [volume.name, `/mnt/${volume.name}`] as const,
  ),
): Pod {
  const uid = `00000000-0000-4000-8000-${String(++serial).padStart(12, '0')}`;
  const container: Container = {
    name: 'main',
    image: 'busybox',
    volumeMounts: mounts.map(([name, mountPath]) => ({ name, mountPath })),
  };
  return {
    metadata: { name: `pod-${serial}`, namespace: 'default', uid, labels: { app: 'web' }, annotations: {} },
    spec: { serviceAccountName: 'default', containers: [container], ...spec },
  };
}
