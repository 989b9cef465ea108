import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createFakeClient } from '../../kube/fake-client.ts';
import { resources } from '../../kube/resources.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod, PodStatus } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { combineSources, type PodSource } from './desired.ts';
import { createFileSource } from './manifest-source.ts';
import { createMirrorPods } from './mirror-pods.ts';
import { createPodLab } from '../../test/lab/pod-lab.ts';
import { ManifestError, parseManifest, type StaticOrigin } from './static-pod.ts';

const origin: StaticOrigin = { kind: 'file', from: '/m/web.yaml', nodeName: 'Node-1', seenAtMs: Date.UTC(2026, 0, 1) };
const web = (more = ''): string =>
  `apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: c, image: "i:1"${more}}]\n`;

describe('a manifest', () => {
  it('becomes a pod of this node, with the API’s defaults and the kubelet’s marks', () => {
    const [pod] = parseManifest(web(), origin);
    expect(pod).toMatchObject({
      metadata: {
        name: 'web-node-1',
        namespace: 'default',
        annotations: {
          'kubernetes.io/config.hash': pod?.metadata.uid,
          'kubernetes.io/config.source': 'file',
          'kubernetes.io/config.seen': '2026-01-01T00:00:00.000Z',
        },
      },
      spec: {
        nodeName: 'Node-1',
        dnsPolicy: 'ClusterFirst',
        restartPolicy: 'Always',
        terminationGracePeriodSeconds: 30,
        tolerations: [{ operator: 'Exists', effect: 'NoExecute' }],
        containers: [{ imagePullPolicy: 'IfNotPresent', terminationMessagePath: '/dev/termination-log' }],
      },
    });
  });

  it('has the same uid however it is written, and another when it changes', () => {
    const uid = (text: string): string | undefined => parseManifest(text, origin)[0]?.metadata.uid;
    const json = JSON.stringify({
      spec: { containers: [{ image: 'i:1', name: 'c' }] },
      metadata: { name: 'web' },
      kind: 'Pod',
      apiVersion: 'v1',
    });
    expect(uid(json)).toBe(uid(web()));
    expect(uid(web(', tty: true'))).not.toBe(uid(web()));
  });

  it.each([
    ['{', 'it is neither JSON nor YAML'],
    ['a: b', 'not v1 Pod'],
    [web().replace('name: web', 'name: Web'), 'metadata.name'],
    [web().replace(', image: "i:1"', ''), 'container c has no image'],
    [web(', resources: {limits: {cpu: lots}}'), 'cpu: '],
    [`${web()}  serviceAccountName: x\n`, 'static pods may not reference serviceaccounts'],
    [
      `${web()}  volumes: [{name: v, secret: {secretName: s}}]\n`,
      'static pods may not reference secrets (via secret volumes)',
    ],
    [
      `${web()}  volumes: [{name: v, projected: {sources: [{configMap: {name: s}}]}}]\n`,
      'configmaps (via projected volumes)',
    ],
    [web(', envFrom: [{configMapRef: {name: x}}]'), 'static pods may not reference configmaps'],
  ])('that is none is refused: %j', (text, message) => {
    expect(() => parseManifest(text, origin)).toThrow(ManifestError);
    expect(() => parseManifest(text, origin)).toThrow(message);
  });

  it('by a URL may be a list', () => {
    const list = {
      apiVersion: 'v1',
      kind: 'PodList',
      items: ['a', 'b'].map((name) => ({ metadata: { name }, spec: { containers: [{ name: 'c', image: 'i' }] } })),
    };
    const pods = parseManifest(JSON.stringify(list), { ...origin, kind: 'http' }, true);
    expect(pods.map(({ metadata }) => metadata.name)).toEqual(['a-node-1', 'b-node-1']);
  });
});

describe('a folder of manifests', () => {
  let folder = '';
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'manifests-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  it('is followed: what comes, what changes, what is broken, what goes', async () => {
    const abort = new AbortController();
    const waiting: (() => void)[] = [];
    const source = createFileSource(
      {
        clock: systemClock,
        log: silentLog,
        onChange() {
          for (const wake of waiting.splice(0)) wake();
        },
        onSync: () => undefined,
      },
      { path: folder, nodeName: 'n', everyMs: 200 },
    );
    const running = source.run(abort.signal);
    const until = async (holds: () => boolean): Promise<void> => {
      while (!holds())
        await Promise.race([new Promise<void>((resolve) => waiting.push(resolve)), systemClock.sleep(50)]);
    };
    const put = async (text: string): Promise<void> => {
      await writeFile(join(folder, '.new'), text);
      await rename(join(folder, '.new'), join(folder, 'web.yaml'));
    };
    await until(() => source.synced);
    expect(source.list()).toEqual([]);
    await put(web());
    await until(() => source.list().length === 1);
    const [first] = source.list();
    await put('{');
    await systemClock.sleep(300);
    expect(source.list()).toEqual([first]);
    await put(web(', tty: true'));
    await until(() => source.list()[0]?.metadata.uid !== first?.metadata.uid);
    // Written anew with the same words it stays; removed and made again at once it goes and comes back.
    const [changed] = source.list();
    await systemClock.sleep(1_200);
    await put(web(', tty: true'));
    await systemClock.sleep(1_200);
    expect(source.list()).toEqual([changed]);
    await rm(join(folder, 'web.yaml'));
    await writeFile(join(folder, 'web.yaml'), web(', tty: true'));
    await until(() => source.list().length === 0);
    await until(() => source.list()[0]?.metadata.uid === changed?.metadata.uid);
    await rm(join(folder, 'web.yaml'));
    await until(() => source.list().length === 0);
    abort.abort();
    await running;
  });
});

describe('mirrors', () => {
  const node: Node = { metadata: { name: 'Node-1', uid: 'node-uid' }, spec: {} };
  const lab = () => {
    const clock = createFakeClock();
    const client = createFakeClient({ clock });
    const [pod] = parseManifest(web(), origin);
    let wanted: Pod | undefined = pod;
    let ending: string | undefined;
    const shown = (): Pod | undefined => client.find(resources.pods, { namespace: 'default', name: 'web-node-1' });
    const mirrorPods = createMirrorPods({
      client,
      clock,
      log: silentLog,
      node: () => node,
      wanted: () => wanted,
      shown,
      synced: () => true,
      endsStill: (_namespace, _name, uid) => ending !== undefined && ending !== uid,
    });
    const look = async (): Promise<void> => {
      mirrorPods.wake('default', 'web-node-1');
      await clock.advance(10);
    };
    /** The manifest is gone, or another now; the pod there was ends. */
    const change = (to?: Pod): void => {
      ending = wanted?.metadata.uid;
      wanted = to;
    };
    const end = (): void => {
      ending = undefined;
    };
    return { client, pod: pod!, shown, look, change, end };
  };

  it('are made, owned by the Node, and made again when somebody deletes them', async () => {
    const { client, pod, shown, look } = lab();
    await look();
    expect(shown()?.metadata).toMatchObject({
      annotations: { 'kubernetes.io/config.mirror': pod.metadata.uid },
      ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: 'Node-1', uid: 'node-uid', controller: true }],
    });
    const uid = shown()?.metadata.uid;
    await client.delete(resources.pods, { namespace: 'default', name: 'web-node-1' }, { gracePeriodSeconds: 30 });
    await look();
    expect(shown()?.metadata.deletionTimestamp).toBeUndefined();
    expect(shown()?.metadata.uid).not.toBe(uid);
  });

  it('go only when the static pod has ended', async () => {
    const { shown, look, change, end } = lab();
    await look();
    change();
    await look();
    expect(shown()).toBeDefined();
    end();
    await look();
    expect(shown()).toBeUndefined();
  });

  it('show the pod before until it has ended, when the manifest changed', async () => {
    const { shown, look, change, end } = lab();
    await look();
    const before = shown()?.metadata.uid;
    const [next] = parseManifest(web(', tty: true'), origin);
    change(next);
    await look();
    expect(shown()?.metadata.uid).toBe(before);
    end();
    await look();
    expect(shown()?.metadata.annotations?.['kubernetes.io/config.mirror']).toBe(next!.metadata.uid);
    expect(shown()?.metadata.uid).not.toBe(before);
  });

  it('leave a pod of that name alone which is none', async () => {
    const { client, shown, look } = lab();
    client.seed(resources.pods, {
      metadata: { name: 'web-node-1', namespace: 'default', uid: 'own' },
      spec: { containers: [] },
    });
    await look();
    expect(shown()?.metadata.uid).toBe('own');
  });
});

describe('a static pod', () => {
  const source = (pods: Pod[]): PodSource => ({
    name: 'file',
    synced: true,
    get: (uid) => pods.find(({ metadata }) => metadata.uid === uid),
    list: () => pods,
  });

  it('whose manifest changed starts when the one before has ended', async () => {
    const [first] = parseManifest(web().replace('i:1', 'i'), origin);
    const [second] = parseManifest(web(', tty: true').replace('i:1', 'i'), origin);
    const pods = [first!];
    const lab = createPodLab({ statics: source(pods) });
    lab.runtime.behave('i', { onStop: { afterMs: 3_000 } });
    await lab.clock.advance(1_000);
    lab.agent().workers.wake(first!.metadata.uid!);
    await lab.clock.advance(1_000);
    expect(lab.running('web-node-1')).toEqual(['c']);
    pods.splice(0, 1, second!);
    for (const pod of [first!, second!]) lab.agent().workers.wake(pod.metadata.uid!);
    await lab.clock.advance(2_000);
    expect(lab.runtime.sandboxes()).toHaveLength(1);
    await lab.clock.advance(10_000);
    expect(lab.runtime.sandboxes().map(({ config }) => config.metadata.uid)).toEqual([second!.metadata.uid]);
    expect(lab.running('web-node-1')).toEqual(['c']);
    await lab.stop();
  });

  it('whose manifest goes and comes back while it ends begins anew, and counts as restarted', async () => {
    const [pod] = parseManifest(web().replace('i:1', 'i'), origin);
    const pods = [pod!];
    const lab = createPodLab({ statics: source(pods) });
    lab.runtime.behave('i', { onStop: { afterMs: 3_000 } });
    const wake = (): void => lab.agent().workers.wake(pod!.metadata.uid!);
    await lab.clock.advance(1_000);
    wake();
    await lab.clock.advance(1_000);
    pods.splice(0);
    wake();
    await lab.clock.advance(1_000);
    pods.push(pod!);
    wake();
    await lab.clock.advance(1_000);
    expect(lab.runtime.sandboxes()).toHaveLength(1);
    await lab.clock.advance(10_000);
    expect(lab.running('web-node-1')).toEqual(['c']);
    const now = lab.agent().workers.get(pod!.metadata.uid!)?.status;
    expect(now?.phase).toBe('Running');
    expect(now?.containerStatuses?.[0]?.restartCount).toBe(1);
    await lab.stop();
  });

  it('that has ended stays ended over a restart of the agent, though no API server tells', async () => {
    const [pod] = parseManifest(`${web().replace('i:1', 'i')}  restartPolicy: Never\n`, origin);
    const lab = createPodLab({ statics: source([pod!]) });
    lab.runtime.behave('i', { exitAfterMs: 100 });
    const wake = async (): Promise<void> => {
      await lab.clock.advance(1_000);
      lab.agent().workers.wake(pod!.metadata.uid!);
      await lab.clock.advance(5_000);
    };
    await wake();
    expect(lab.states.get(pod!.metadata.uid!)?.status?.phase).toBe('Succeeded');
    for (const { id } of lab.runtime.containers()) await lab.runtime.removeContainer(id);
    lab.restart();
    await wake();
    expect(lab.runtime.containers()).toEqual([]);
    await lab.stop();
  });

  it.each([
    ['with an API server, whose mirror shows when it began, keeps that', false],
    ['of a node that runs alone begins anew', true],
  ])('over a restart of the agent, %s', async (_which, standalone) => {
    const [pod] = parseManifest(web().replace('i:1', 'i'), origin);
    const lab = createPodLab({ statics: source([pod!]), standalone });
    const shown = async (): Promise<PodStatus | undefined> => {
      await lab.clock.advance(1_000);
      lab.agent().workers.wake(pod!.metadata.uid!);
      await lab.clock.advance(5_000);
      return lab.agent().workers.get(pod!.metadata.uid!)?.status;
    };
    const before = await shown();
    expect(before?.phase).toBe('Running');
    lab.restart();
    const after = await shown();
    expect(after?.startTime === before?.startTime).toBe(!standalone);
    expect(after?.containerStatuses).toEqual(before?.containerStatuses);
    await lab.stop();
  });

  it('is not doubled by its mirror', () => {
    const [pod] = parseManifest(web(), origin);
    const mirror: Pod = {
      ...pod!,
      metadata: { ...pod!.metadata, uid: 'm', annotations: { 'kubernetes.io/config.mirror': 'x' } },
    };
    const all = combineSources([source([pod!]), { ...source([mirror]), name: 'api' }]);
    expect(all.list().map(({ source: from }) => from)).toEqual(['file']);
    expect(all.get('m')).toBeUndefined();
  });
});
