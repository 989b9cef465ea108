// A self-signed serving certificate, for a node to which nobody gave one.
import { webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import type { CertificateAndKey } from './serving.ts';

const yearMs = 365 * 24 * 3600_000;

const pem = (label: string, der: ArrayBuffer): string => {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`;
};

/** ECDSA P-256, for a year from an hour before `nowMs`; the library is loaded only here, few nodes need it. */
export async function selfSigned(hosts: readonly string[], nowMs: number): Promise<CertificateAndKey> {
  const { x509 } = await import('./x509-library.ts');
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [`${hosts[0] ?? 'localhost'}@${Math.floor(nowMs / 1000)}`] }],
    notBefore: new Date(nowMs - 3600_000),
    notAfter: new Date(nowMs + yearMs),
    signingAlgorithm: algorithm,
    keys: keys as Parameters<typeof x509.X509CertificateGenerator.createSelfSigned>[0]['keys'],
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension(['1.3.6.1.5.5.7.3.1']),
      new x509.SubjectAlternativeNameExtension(
        hosts.map((host) => (isIP(host) ? { type: 'ip', value: host } : { type: 'dns', value: host })),
      ),
    ],
  });
  return {
    certificate: pem('CERTIFICATE', certificate.rawData),
    key: pem('PRIVATE KEY', await webcrypto.subtle.exportKey('pkcs8', keys.privateKey)),
  };
}
