// Who may use an image that is there.
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import type { Credential } from './keyring.ts';
import { createPullRecords, mergeCredentials, type VerificationPolicy } from './pull-records.ts';

const secret = (name: string, hash: string): Credential => ({
  auth: {},
  source: { kind: 'secret', uid: `uid-${name}`, namespace: 'ns', name },
  hash,
});
const node: Credential = { auth: {}, source: undefined, hash: 'node' };
const ref = 'sha256:abc';
const image = 'registry.example/app:1';

describe('pull records', () => {
  let rootDir = '';
  const clock = createFakeClock();
  const open = (policy: VerificationPolicy = 'NeverVerifyPreloadedImages', allowlist: string[] = []) =>
    createPullRecords({ clock }, { rootDir, policy, allowlist });
  beforeEach(async () => {
    rootDir = await mkdtemp(join(tmpdir(), 'sv-records-'));
  });
  afterEach(() => rm(rootDir, { recursive: true, force: true }));
  const with_ =
    (...credentials: Credential[]) =>
    async () =>
      credentials;

  it('what was there before anybody pulled is for all', async () => {
    const records = await open();
    expect(await records.mustPull(image, ref, with_())).toBe(false);
  });

  it('what a secret fetched is for those who have it, by content or by name', async () => {
    const records = await open();
    await records.intend(image);
    await records.pulled(image, ref, secret('a', 'hash-1'));
    expect(await records.mustPull(image, ref, with_())).toBe(true);
    expect(await records.mustPull(image, ref, with_(secret('b', 'hash-2')))).toBe(true);
    expect(await records.mustPull(image, ref, with_(secret('a', 'hash-1')))).toBe(false);
    expect(await records.mustPull(image, ref, with_(secret('other', 'hash-1')))).toBe(false);
    expect(await records.mustPull(image, ref, with_(secret('a', 'rotated')))).toBe(false);
    // It outlives the process, and the name under which it was pulled counts.
    const again = await open();
    expect(await again.mustPull(image, ref, with_())).toBe(true);
    expect(await again.mustPull('registry.example/app:2', ref, with_(secret('a', 'hash-1')))).toBe(false);
    expect(await again.mustPull('registry.example/other:1', ref, with_(secret('a', 'hash-1')))).toBe(true);
  });

  it('what was looked at before is looked at anew once somebody has pulled it', async () => {
    const records = await open();
    expect(await records.mustPull(image, ref, with_())).toBe(false);
    await records.intend(image);
    expect(await records.mustPull(image, ref, with_())).toBe(true);
    await records.pulled(image, ref, secret('a', 'h'));
    expect(await records.mustPull(image, ref, with_())).toBe(true);
    expect(await records.mustPull(image, ref, with_(secret('a', 'h')))).toBe(false);
    await records.prune([], clock.now() + 1);
    expect(await records.mustPull(image, ref, with_())).toBe(false);
  });

  it('what came without credentials, or with the node’s, is for all', async () => {
    const records = await open();
    await records.intend(image);
    await records.pulled(image, ref, secret('a', 'hash-1'));
    await records.intend(image);
    await records.pulled(image, ref, node);
    expect(await records.mustPull(image, ref, with_())).toBe(false);
  });

  it('a pull cut short leaves an intent, and what it may have fetched is not for all', async () => {
    await (await open()).intend(image);
    const records = await open();
    expect(await records.mustPull(image, ref, with_())).toBe(true);
    await records.intend(image);
    await records.failed(image);
    expect(await records.mustPull(image, ref, with_())).toBe(false);
    expect(await readdir(join(rootDir, 'image_manager', 'pulling'))).toEqual([]);
  });

  it.each<[VerificationPolicy, string[], boolean]>([
    ['NeverVerify', [], false],
    ['AlwaysVerify', [], true],
    ['NeverVerifyAllowlistedImages', ['registry.example/app'], false],
    ['NeverVerifyAllowlistedImages', ['registry.example/*'], false],
    ['NeverVerifyAllowlistedImages', ['registry.example/ap'], true],
  ])('%s %j: a preloaded image must be pulled is %s', async (policy, allowlist, must) => {
    const records = await open(policy, allowlist);
    expect(await records.mustPull(image, ref, with_())).toBe(must);
  });

  it('writes the kubelet’s files, for root alone', async () => {
    const records = await open();
    await records.intend(image);
    await records.pulled(image, ref, secret('a', 'hash-1'));
    const folder = join(rootDir, 'image_manager', 'pulled');
    const [name = ''] = await readdir(folder);
    expect(name).toMatch(/^sha256-[0-9a-f]{64}$/);
    expect((await stat(join(folder, name))).mode & 0o777).toBe(0o600);
    expect(JSON.parse(await readFile(join(folder, name), 'utf8'))).toMatchObject({
      kind: 'ImagePulledRecord',
      apiVersion: 'kubelet.config.k8s.io/v1beta1',
      imageRef: ref,
      credentialMapping: {
        'registry.example/app': {
          kubernetesSecrets: [{ uid: 'uid-a', namespace: 'ns', name: 'a', credentialHash: 'hash-1' }],
        },
      },
    });
  });

  it('drops records of images that are gone, save fresh ones', async () => {
    const records = await open();
    for (const id of ['sha256:1', 'sha256:2']) {
      await records.intend(image);
      await records.pulled(image, id, secret('a', 'h'));
    }
    await records.prune(['sha256:1'], clock.now());
    expect(await readdir(join(rootDir, 'image_manager', 'pulled'))).toHaveLength(2);
    await records.prune(['sha256:1'], clock.now() + 1);
    expect(await readdir(join(rootDir, 'image_manager', 'pulled'))).toHaveLength(1);
  });

  it('merging adds, replaces and stays', () => {
    const one = { uid: '1', namespace: 'n', name: 's', credentialHash: 'x' };
    expect(mergeCredentials({ kubernetesSecrets: [one] }, { kubernetesSecrets: [one] })).toBeUndefined();
    expect(
      mergeCredentials({ kubernetesSecrets: [one] }, { kubernetesSecrets: [{ ...one, credentialHash: 'y' }] }),
    ).toEqual({
      kubernetesSecrets: [{ ...one, credentialHash: 'y' }],
    });
    expect(mergeCredentials({ nodePodsAccessible: true }, { kubernetesSecrets: [one] })).toBeUndefined();
  });
});
