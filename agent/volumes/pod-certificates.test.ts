import { createPrivateKey, createPublicKey } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFakeClient, type FakeClient } from '../../kube/fake-client.ts';
import { ApiError } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { PodCertificateRequest } from '../../kube/types/core.ts';
import { createFakeClock, type FakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { cleanChain, keyAndProof } from './pod-certificate-request.ts';
import { createPodCertificates, type PodCertificates, type PodCertificateWish } from './pod-certificates.ts';
import { NotYetError } from './volume-driver.ts';

const x509 = async () => (await import('../tls/x509-library.ts')).x509;

describe('a key and its proof', () => {
  it.each([
    ['ECDSAP256', 'ec', 'prime256v1'],
    ['ECDSAP384', 'ec', 'secp384r1'],
    ['ECDSAP521', 'ec', 'secp521r1'],
    ['ED25519', 'ed25519', undefined],
    ['RSA3072', 'rsa', 3072],
  ])('of %s', async (keyType, kind, size) => {
    const { key, request } = await keyAndProof(keyType);
    const known = createPrivateKey(key);
    expect(key).toMatch(/^-----BEGIN PRIVATE KEY-----\n/);
    expect(known.asymmetricKeyType).toBe(kind);
    const { namedCurve, modulusLength } = known.asymmetricKeyDetails ?? {};
    expect(namedCurve ?? modulusLength).toBe(size);
    const proof = new (await x509()).Pkcs10CertificateRequest(request);
    expect(await proof.verify()).toBe(true);
    expect(proof.subject).toBe('');
    const own = createPublicKey(known).export({ type: 'spki', format: 'der' });
    expect(own.equals(Buffer.from(proof.publicKey.rawData))).toBe(true);
  });

  it('of a type that nobody knows is refused', async () => {
    await expect(keyAndProof('DSA1024')).rejects.toThrow('unknown key type "DSA1024"');
    await expect(keyAndProof('toString')).rejects.toThrow('unknown key type');
  });
});

it('a chain is cleaned of headers and of what stands between', () => {
  const block = (label: string, inside: string): string =>
    `-----BEGIN ${label}-----\n${inside}-----END ${label}-----\n`;
  const dirty = `words\n${block('CERTIFICATE', 'Proc-Type: 4,X\n\nAQID\n')}more\n${block('X509 CERTIFICATE', 'BAUG\n')}`;
  expect(cleanChain(dirty)).toBe(block('CERTIFICATE', 'AQID\n') + block('CERTIFICATE', 'BAUG\n'));
  expect(cleanChain('')).toBe('');
});

describe('certificates of pods', () => {
  let clock: FakeClock;
  let client: FakeClient;
  let certificates: PodCertificates;
  let changed: string[];
  let told: string[];
  const chain = '-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n';
  const wish: PodCertificateWish = {
    pod: { metadata: { name: 'p', namespace: 'n', uid: 'u' }, spec: { containers: [], serviceAccountName: 'sa' } },
    uid: 'u',
    volume: 'v',
    index: 0,
    source: { signerName: 'example.com/s', keyType: 'ED25519', userAnnotations: { 'example.com/a': 'b' } },
  };
  const { signal } = new AbortController();

  beforeEach(() => {
    clock = createFakeClock();
    client = createFakeClient({ clock });
    client.seed(resources.serviceAccounts, { metadata: { name: 'sa', namespace: 'n', uid: 'sa-uid' } });
    changed = [];
    told = [];
    certificates = createPodCertificates(
      {
        client,
        clock,
        log: silentLog,
        node: () => ({ name: 'lab', uid: 'node-uid' }),
        changed: (uid, volume) => void changed.push(`${uid}/${volume}`),
        events: { record: (_about, type, reason, message) => void told.push(`${type} ${reason} ${message}`) },
      },
      () => 0,
    );
  });
  afterEach(() => certificates.forget('u'));

  const requests = () => client.list(resources.podCertificateRequests).then((list) => list.items);
  const settle = async (look: () => Promise<boolean> | boolean): Promise<void> => {
    for (const deadline = Date.now() + 10_000; !(await look()); ) {
      if (Date.now() > deadline) throw new Error('it did not come to that within 10 s');
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  /** Looks once, and lets the patience with a signer pass. */
  const look = async () => {
    const answer = certificates.get(wish, signal).catch((error: unknown) => error as Error);
    let done = false;
    void answer.then(() => {
      done = true;
    });
    await settle(async () => {
      if (!done) await clock.advance(100);
      return done;
    });
    return await answer;
  };
  const decide = async (status: PodCertificateRequest['status']): Promise<void> => {
    const undecided = async () => (await requests()).find((each) => each.status?.conditions === undefined);
    await settle(async () => (await undecided()) !== undefined && client.openWatches > 0);
    const request = (await undecided())!;
    const before = changed.length;
    await client.update(resources.podCertificateRequests, { ...request, status: status! });
    await settle(() => changed.length > before);
  };
  const condition = (type: string) => [
    { type, status: 'True' as const, reason: 'Why', message: 'so', lastTransitionTime: '' },
  ];
  const issued = (beginRefreshMs: number, notAfterMs: number): PodCertificateRequest['status'] => ({
    conditions: condition('Issued'),
    certificateChain: chain,
    beginRefreshAt: new Date(clock.now() + beginRefreshMs).toISOString(),
    notAfter: new Date(clock.now() + notAfterMs).toISOString(),
  });

  it('are asked for once, waited for, and kept', async () => {
    expect(await look()).toMatchObject({ name: 'NotYetError', message: 'credential bundle is not issued yet' });
    expect(await look()).toBeInstanceOf(NotYetError);
    const all = await requests();
    expect(all).toHaveLength(1);
    expect(all[0]).toMatchObject({
      metadata: { namespace: 'n', ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: 'p', uid: 'u' }] },
      spec: {
        signerName: 'example.com/s',
        podName: 'p',
        podUID: 'u',
        serviceAccountName: 'sa',
        serviceAccountUID: 'sa-uid',
        nodeName: 'lab',
        nodeUID: 'node-uid',
        unverifiedUserAnnotations: { 'example.com/a': 'b' },
      },
    });
    const refreshAtMs = clock.now() + 3_600_000;
    await decide(issued(3_600_000, 7_200_000));
    expect(changed).toEqual(['u/v']);
    const got = await look();
    expect(got).toMatchObject({ chain, refreshAtMs });
    expect(await look()).toEqual(got);
    expect(await requests()).toHaveLength(1);
  });

  it('are renewed from beginRefreshAt on, with a key of their own, and serve until the new one is there', async () => {
    await look();
    await decide(issued(60_000, 120_000));
    const first = (await look()) as { key: string };
    await clock.advance(61_000);
    expect(await look()).toMatchObject({ key: first.key });
    await settle(async () => (await requests()).length === 2);
    await decide(issued(3_600_000, 7_200_000));
    const second = (await look()) as { key: string };
    expect(second.key).not.toBe(first.key);
    expect(told).toEqual([]);
  });

  it('that are overdue or expired are told of once', async () => {
    await look();
    await decide(issued(60_000, 15 * 60_000));
    await clock.advance(12 * 60_000);
    await look();
    await look();
    expect(told).toEqual(['Warning CertificateOverdueForRefresh PodCertificate refresh overdue']);
    await clock.advance(10 * 60_000);
    await look();
    await look();
    expect(told.slice(1)).toEqual(['Warning CertificateExpired PodCertificate expired']);
  });

  it.each([
    ['Denied', 'denied', 'was denied'],
    ['Failed', 'failed', 'failed'],
  ])('that are %s stay so', async (type, word, phrase) => {
    await look();
    await decide({ conditions: condition(type) });
    const refused = await look();
    expect(refused).not.toBeInstanceOf(NotYetError);
    expect(refused).toMatchObject({
      message: `PodCertificateRequest was permanently ${word}: reason="Why" message="so"`,
    });
    const [{ metadata }] = (await requests()) as [PodCertificateRequest];
    expect(told).toEqual([
      `Warning ${type} PodCertificateRequest n/${metadata.name} ${phrase}, reason="Why", message="so"`,
    ]);
    await look();
    expect(await requests()).toHaveLength(1);
  });

  it('are asked for again where the request is deleted', async () => {
    await look();
    await settle(() => client.openWatches > 0);
    const [{ metadata }] = (await requests()) as [PodCertificateRequest];
    await client.delete(resources.podCertificateRequests, { namespace: 'n', name: metadata.name });
    await settle(async () => {
      await clock.advance(500);
      return changed.length > 0;
    });
    expect(await look()).toMatchObject({ message: expect.stringContaining('was deleted before its signer decided') });
    await settle(async () => (await requests()).length === 1);
    await decide(issued(3_600_000, 7_200_000));
    expect(await look()).toMatchObject({ chain });
  });

  it('say so where the API server has none, and are tried again', async () => {
    const away = client.answer(
      (call) => call.verb === 'create',
      () => {
        throw new ApiError(
          'not-found',
          'create podcertificaterequests: the server could not find the requested resource',
        );
      },
    );
    // The key is made in its own time, which may be longer than a look is patient.
    let answer: unknown;
    await settle(async () => {
      answer = await look();
      return !/not issued yet/.test((answer as Error).message);
    });
    expect(answer).toMatchObject({
      name: 'NotYetError',
      message: expect.stringMatching(/^while creating PodCertificateRequest: .*switched off/),
    });
    away();
    await clock.advance(2_000);
    await look();
    await decide(issued(3_600_000, 7_200_000));
    expect(await look()).toMatchObject({ chain });
  });

  it('are let go with their pod: nothing is waited for any more', async () => {
    await look();
    await settle(() => client.openWatches > 0);
    certificates.forget('u');
    await settle(() => client.openWatches === 0);
    expect(changed).toEqual([]);
  });
});
