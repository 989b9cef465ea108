import { mkdtemp, readdir, readlink, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createRegistry } from '../../lib/metrics.ts';
import { createCertificateMetrics } from '../server/certificate-metrics.ts';
import { type CertificateStore, createCertificateStore, parsePair } from './certificate-store.ts';
import { createRotation, rotateAtMs } from './rotation.ts';
import { lacksNames, servedNames } from './serving-by-csr.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-tls-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const hour = 3_600_000;

async function makePair(fromMs: number, untilMs: number) {
  await import('reflect-metadata');
  const x509 = await import('@peculiar/x509');
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=system:node:n1',
    keys,
    notBefore: new Date(fromMs),
    notAfter: new Date(untilMs),
    signingAlgorithm: algorithm,
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        { type: 'dns', value: 'n1' },
        { type: 'ip', value: '192.0.2.1' },
      ]),
    ],
  });
  const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', keys.privateKey)).toString('base64');
  return {
    certificate: certificate.toString('pem'),
    key: `-----BEGIN PRIVATE KEY-----\n${(der.match(/.{1,64}/g) ?? []).join('\n')}\n-----END PRIVATE KEY-----\n`,
  };
}

describe('the store', () => {
  it("keeps pairs as the kubelet does: dated files and a link, the key for root's eyes only", async () => {
    const store = createCertificateStore({ folder, name: 'kubelet-client' });
    expect(await store.current()).toBeUndefined();
    const at = Date.UTC(2026, 10, 21, 12, 0, 0);
    for (let n = 0; n < 4; n++) await store.update(await makePair(at, at + hour), at + n * 1000);
    expect((await readdir(folder)).sort()).toEqual([
      'kubelet-client-2026-11-21-12-00-02.pem',
      'kubelet-client-2026-11-21-12-00-03.pem',
      'kubelet-client-current.pem',
    ]);
    expect(await readlink(store.currentPath)).toBe(join(folder, 'kubelet-client-2026-11-21-12-00-03.pem'));
    expect((await stat(store.currentPath)).mode & 0o777).toBe(0o600);
    expect(await store.current()).toBeDefined();
  });

  it('a key of another certificate is no pair', async () => {
    const [a, b] = [await makePair(0, hour), await makePair(0, hour)];
    expect(parsePair(`${a.certificate}\n${a.key}`)).toBeDefined();
    expect(parsePair(`${a.certificate}\n${b.key}`)).toBeUndefined();
    expect(parsePair(a.certificate)).toBeUndefined();
  });
});

describe('rotation', () => {
  it('is between 70 and 90 per cent of the life', () => {
    expect(rotateAtMs({ fromMs: 0, untilMs: 100 }, 0)).toBe(70);
    expect(rotateAtMs({ fromMs: 0, untilMs: 100 }, 0.999)).toBeCloseTo(89.98);
  });

  it('asks in time, again after a failure, and then waits for the next', async () => {
    const clock = createFakeClock();
    const start = clock.now();
    const kept = createCertificateStore({ folder, name: 'kubelet-client' });
    await kept.update(await makePair(start, start + 10 * hour), start);
    let busy = 0;
    const counting = async <T>(work: Promise<T>): Promise<T> => {
      busy++;
      return work.finally(() => void busy--);
    };
    const store: CertificateStore = {
      ...kept,
      current: () => counting(kept.current()),
      update: (pair, nowMs) => counting(kept.update(pair, nowMs)),
    };
    const asked: number[] = [];
    const registry = createRegistry();
    const counted = createCertificateMetrics(registry, {
      what: 'server',
      nowMs: () => clock.now(),
      expiresAtMs: (): number | undefined => rotation.expiresAtMs(),
    });
    const rotation = createRotation(
      {
        counted,
        clock,
        log: silentLog,
        store,
        random: () => 0.5,
        async request() {
          asked.push((clock.now() - start) / hour);
          if (asked.length === 1) throw new Error('the API server is away');
          return await counting(makePair(clock.now(), clock.now() + 10 * hour));
        },
      },
      'client',
    );
    const stop = new AbortController();
    const running = rotation.run(stop.signal);
    const settle = async (ms: number) => {
      for (let left = ms; left > 0; left -= 60_000) {
        await clock.advance(Math.min(60_000, left));
        // The store is on a real disk: time goes on when its answers are heard.
        do await new Promise((resolve) => setTimeout(resolve, 1));
        while (busy > 0);
      }
    };
    await settle(7.9 * hour);
    expect(asked).toEqual([]);
    await settle(0.3 * hour);
    expect(asked).toHaveLength(2);
    expect(asked[0]).toBeGreaterThanOrEqual(8);
    expect(asked[0]).toBeLessThan(8.02);
    expect(rotation.expiresAtMs()).toBeGreaterThan(start + 17 * hour);
    const page = await registry.metrics();
    expect(page).toMatch(/^kubelet_server_expiration_renew_errors 1$/m);
    expect(page).toMatch(/^kubelet_certificate_manager_server_rotation_seconds_count 1$/m);
    expect(page).toMatch(/^kubelet_certificate_manager_server_rotation_seconds_bucket\{le="86400"\} 1$/m);
    const ttl = Number(/^kubelet_certificate_manager_server_ttl_seconds (\S+)$/m.exec(page)?.[1]);
    expect(ttl).toBe(Math.trunc((rotation.expiresAtMs()! - clock.now()) / 1000));
    stop.abort();
    await clock.advance(0);
    await running;
  });
});

describe('served names', () => {
  it('come from the addresses, and a certificate that lacks one is outdated', async () => {
    const { certificate } = await makePair(0, hour);
    const names = servedNames([
      { type: 'InternalIP', address: '192.0.2.1' },
      { type: 'Hostname', address: 'n1' },
    ]);
    expect(names).toEqual({ dnsNames: ['n1'], ipAddresses: ['192.0.2.1'] });
    expect(lacksNames(certificate, names)).toBe(false);
    expect(lacksNames(certificate, { ...names, ipAddresses: ['192.0.2.2'] })).toBe(true);
  });
});
