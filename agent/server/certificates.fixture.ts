// A certificate authority for tests: makes client and serving certificates in memory.
import { webcrypto } from 'node:crypto';
import 'reflect-metadata';
import * as x509 from '@peculiar/x509';

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
type Keys = Parameters<typeof x509.X509CertificateGenerator.createSelfSigned>[0]['keys'];

export interface Pair {
  readonly certificate: string;
  readonly key: string;
}

export interface Authority {
  readonly bundle: string;
  /** Valid from an hour ago until `validMs` from now. */
  issue(subject: string, options?: { usage?: 'client' | 'server'; validMs?: number; hosts?: string[] }): Promise<Pair>;
}

const newKeys = async (): Promise<Keys> =>
  (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as Keys;

export async function createAuthority(name: string): Promise<Authority> {
  const keys = await newKeys();
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    notBefore: new Date(Date.now() - 3600_000),
    notAfter: new Date(Date.now() + 24 * 3600_000),
    signingAlgorithm: algorithm,
    keys,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  });
  return {
    bundle: `${root.toString('pem')}\n`,
    async issue(subject, options = {}) {
      const { usage = 'client', validMs = 3600_000, hosts = [] } = options;
      const own = await newKeys();
      const certificate = await x509.X509CertificateGenerator.create({
        subject,
        issuer: root.subject,
        notBefore: new Date(Date.now() - 3600_000),
        notAfter: new Date(Date.now() + validMs),
        signingAlgorithm: algorithm,
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        extensions: [
          new x509.ExtendedKeyUsageExtension([usage === 'client' ? '1.3.6.1.5.5.7.3.2' : '1.3.6.1.5.5.7.3.1']),
          ...(hosts.length > 0
            ? [new x509.SubjectAlternativeNameExtension(hosts.map((value) => ({ type: 'ip' as const, value })))]
            : []),
        ],
      });
      const der = await webcrypto.subtle.exportKey('pkcs8', own.privateKey as webcrypto.CryptoKey);
      const body = Buffer.from(der)
        .toString('base64')
        .match(/.{1,64}/g)!
        .join('\n');
      return {
        certificate: `${certificate.toString('pem')}\n`,
        key: `-----BEGIN PRIVATE KEY-----\n${body}\n-----END PRIVATE KEY-----\n`,
      };
    },
  };
}
