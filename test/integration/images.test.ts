// Images on a real containerd and a registry of our own: secrets, refusals, sharing, verification and collection.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createImageGc } from '../../agent/images/gc.ts';
import { createPodImages, type PodImages } from '../../agent/images/pod-images.ts';
import { pauseExecutable } from '../../cri/pause.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { Secret } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { buildImage, imageArchitecture } from '../../lib/oci-image.ts';
import { type Engine, engineKinds, startEngine, titleOf } from '../lab/engine.ts';
import { type Registry, startRegistry } from '../lab/registry.ts';

const auth = { username: 'robot', password: 'p:ss' };

for (const kind of engineKinds()) {
  describe(`images on ${titleOf(kind)}`, () => {
    let folder = '';
    let engine: Engine;
    let runtime: Runtime;
    let registry: Registry;
    let images: PodImages;
    let events: string[] = [];
    let image = '';
    const secrets = new Map<string, Secret>();
    const signal = new AbortController().signal;

    const secretFor = (name: string, username: string, password: string): void => {
      const content = {
        auths: { [registry.host]: { auth: Buffer.from(`${username}:${password}`).toString('base64') } },
      };
      secrets.set(name, {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: { name, namespace: 'default', uid: `uid-${name}` },
        type: 'kubernetes.io/dockerconfigjson',
        data: { '.dockerconfigjson': Buffer.from(JSON.stringify(content)).toString('base64') },
      });
    };
    const pod = (uid: string, ...imagePullSecrets: string[]): Pod => ({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: uid, namespace: 'default', uid },
      spec: { containers: [{ name: 'main', image }], imagePullSecrets: imagePullSecrets.map((name) => ({ name })) },
    });
    const ensure = (of: Pod, imagePullPolicy: 'Always' | 'IfNotPresent' | 'Never') =>
      images.ensure(of, { name: 'main', image, imagePullPolicy }, signal);

    beforeAll(async () => {
      folder = await mkdtemp(join(tmpdir(), 'sv-img-'));
      engine = await startEngine({ kind, dir: join(folder, 'c') });
      runtime = await engine.openRuntime(join(folder, 'state'));
      registry = await startRegistry({ auth, blobDelayMs: 150 });
      // Docker takes what is on loopback for a registry without TLS by itself.
      if (engine.containerd) {
        const config = join(engine.containerd.registryDir, registry.host);
        await mkdir(config, { recursive: true });
        await writeFile(
          join(config, 'hosts.toml'),
          `server = "http://${registry.host}"\n[host."http://${registry.host}"]\n`,
        );
      }
      secretFor('good', auth.username, auth.password);
      secretFor('bad', 'robot', 'wrong');
    });
    afterAll(async () => {
      await registry?.stop();
      await runtime?.close();
      await engine?.stop();
      if (folder) await rm(folder, { recursive: true, force: true });
    });

    let count = 0;
    beforeEach(async () => {
      events = [];
      count++;
      const architecture = imageArchitecture();
      const layer = [{ path: 'pause', data: pauseExecutable(architecture), mode: 0o755 }];
      const built = buildImage({
        names: [`test:${count}`],
        architecture,
        config: { entrypoint: ['/pause'], user: '1234', labels: { count: `${kind}-${count}` } },
        layers: [[...layer, { path: 'count', data: `${kind}-${count}` }]],
      });
      image = registry.publish('team/app', `v${count}`, built);
      images = await createPodImages(
        {
          runtime,
          clock: systemClock,
          log: silentLog,
          events: { record: (_about, type, reason, message) => void events.push(`${type} ${reason} ${message}`) },
          secret: async (_namespace, name) => secrets.get(name),
        },
        {
          maxParallelImagePulls: 4,
          registryPullQPS: 0,
          registryBurst: 0,
          imagePullCredentialsVerificationPolicy: 'NeverVerifyPreloadedImages',
          preloadedImagesVerificationAllowlist: [],
        },
        { rootDir: join(folder, `kubelet-${count}`), home: folder },
      );
    });
    afterEach(async () => {
      for (const { id, repoTags } of await runtime.listImages())
        if (repoTags.some((tag) => tag.startsWith(registry.host))) await runtime.removeImage({ image: id });
    });

    it('pulls with the pod’s secret, and not without or with a wrong one', async () => {
      await expect(ensure(pod('none'), 'Always')).rejects.toMatchObject({ reason: 'ErrImagePull' });
      await expect(ensure(pod('wrong', 'bad'), 'Always')).rejects.toMatchObject({
        reason: 'ErrImagePull',
        message: expect.stringMatching(/401 Unauthorized|unauthorized:/),
      });
      events = [];
      const pulled = await ensure(pod('right', 'bad', 'good'), 'Always');
      expect(pulled).toMatchObject({ imageRef: expect.stringMatching(/^sha256:/), uid: 1234 });
      expect(events[0]).toBe(`Normal Pulling Pulling image "${image}"`);
      expect(events[1]).toMatch(
        /^Normal Pulled Successfully pulled image ".*" in [\d.]+m?s \([\d.]+m?s including waiting\)\. Image size: \d+ bytes\.$/,
      );
      expect((await runtime.imageStatus({ image: pulled.imageRef }))?.repoDigests[0]).toMatch(/@sha256:/);
    });

    it('does not let one pod use what another pod’s secret fetched', async () => {
      await ensure(pod('owner', 'good'), 'IfNotPresent');
      await ensure(pod('friend', 'good'), 'IfNotPresent');
      await ensure(pod('friend', 'good'), 'Never');
      await expect(ensure(pod('stranger'), 'Never')).rejects.toMatchObject({ reason: 'ErrImageNeverPull' });
      await expect(ensure(pod('stranger'), 'IfNotPresent')).rejects.toMatchObject({ reason: 'ErrImagePull' });
      await expect(ensure(pod('stranger'), 'IfNotPresent')).rejects.toMatchObject({ reason: 'ImagePullBackOff' });
    });

    it('pulls once for pods that come together', async () => {
      const before = registry.manifestRequests();
      await Promise.all(['a', 'b', 'c'].map((uid) => ensure(pod(uid, 'good'), 'Always')));
      expect(registry.manifestRequests() - before).toBe(1);
      expect(events.filter((event) => event.startsWith('Normal Pulled'))).toHaveLength(3);
    });

    it('gives a pull up when its pod goes', async () => {
      const controller = new AbortController();
      const pulling = images.ensure(
        pod('gone', 'good'),
        { name: 'main', image, imagePullPolicy: 'Always' },
        controller.signal,
      );
      setTimeout(() => controller.abort(new Error('the pod is gone')), 60);
      await expect(pulling).rejects.toThrow('the pod is gone');
      await ensure(pod('next', 'good'), 'Always');
    });

    it('collects it when nobody uses it, and leaves the pause image', async () => {
      const { imageRef } = await ensure(pod('short', 'good'), 'Always');
      const gc = createImageGc(
        {
          runtime,
          clock: systemClock,
          log: silentLog,
          node: { apiVersion: 'v1', kind: 'Node', name: 'n' },
          records: images.records,
        },
        { highThresholdPercent: 85, lowThresholdPercent: 80, minAgeMs: 0, maxAgeMs: 0 },
      );
      const { removed } = await gc.removeUnused();
      expect(removed.map(({ id }) => id)).toContain(imageRef);
      expect(await runtime.imageStatus({ image: imageRef })).toBeUndefined();
      expect(await runtime.imageStatus({ image: 'localhost/stevedore/pause:1' })).toBeDefined();
    });
  });
}
