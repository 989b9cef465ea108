// A self-signed serving certificate, for a node to which nobody gave one.
import type { CertificateAndKey } from './serving.ts';

const yearMs = 365 * 24 * 3600_000;

/** ECDSA P-256, for a year from an hour before `nowMs`; the library is loaded only here, few nodes need it. */
export async function selfSigned(hosts: readonly string[], nowMs: number): Promise<CertificateAndKey> {
  const { makeLeaf } = await import('../../lib/certificates.ts');
  const { certPem, keyPem } = await makeLeaf({
    name: `${hosts[0] ?? 'localhost'}@${Math.floor(nowMs / 1000)}`,
    use: 'server',
    hosts,
    notBefore: new Date(nowMs - 3600_000),
    notAfter: new Date(nowMs + yearMs),
  });
  return { certificate: certPem, key: keyPem };
}
