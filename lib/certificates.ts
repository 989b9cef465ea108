// Makes certificates: an authority's own, those it issues, and ones that sign themselves. ECDSA P-256. The library is large: a program that
// seldom makes one loads this file by `await import`.
import 'reflect-metadata';
import { createPrivateKey, KeyObject, randomBytes, webcrypto } from 'node:crypto';
import { isIP } from 'node:net';
import * as x509 from '@peculiar/x509';

/** PEM, both. */
export interface KeyPair {
  readonly certPem: string;
  readonly keyPem: string;
}

export interface Validity {
  readonly notBefore: Date;
  readonly notAfter: Date;
}

export interface LeafOptions extends Validity {
  readonly name: string;
  /** `O` of the subject. */
  readonly groups?: readonly string[];
  readonly use: 'client' | 'server';
  /** Names and addresses of a server. */
  readonly hosts?: readonly string[];
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

const newKeys = async (): Promise<webcrypto.CryptoKeyPair> =>
  (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;

const pairOf = (certificate: x509.X509Certificate, { privateKey }: webcrypto.CryptoKeyPair): KeyPair => ({
  certPem: `${certificate.toString('pem')}\n`,
  keyPem: KeyObject.from(privateKey).export({ type: 'pkcs8', format: 'pem' }).toString(),
});

const serial = (): string => `01${randomBytes(15).toString('hex')}`;

export async function makeAuthority(name: string, { notBefore, notAfter }: Validity): Promise<KeyPair> {
  x509.cryptoProvider.set(webcrypto as never);
  const keys = await newKeys();
  const { keyCertSign, digitalSignature, cRLSign } = x509.KeyUsageFlags;
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: [{ CN: [name] }],
    notBefore,
    notAfter,
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(keyCertSign | digitalSignature | cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return pairOf(certificate, keys);
}

/** A certificate of the authority, or where there is none one that signs itself. */
export async function makeLeaf(options: LeafOptions, authority?: KeyPair): Promise<KeyPair> {
  const { name, groups = [], use, hosts = [], notBefore, notAfter } = options;
  x509.cryptoProvider.set(webcrypto as never);
  const keys = await newKeys();
  const { digitalSignature, keyEncipherment } = x509.KeyUsageFlags;
  const { clientAuth, serverAuth } = x509.ExtendedKeyUsage;
  const alternatives = hosts.map((value) => ({ type: isIP(value) ? 'ip' : 'dns', value }) as const);
  const subject = new x509.Name([...groups.map((group) => ({ O: [group] })), { CN: [name] }]).toString();
  const ca = authority && new x509.X509Certificate(authority.certPem);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serial(),
    subject,
    issuer: ca?.subject ?? subject,
    notBefore,
    notAfter,
    publicKey: keys.publicKey,
    signingKey: authority ? await signingKeyOf(authority) : keys.privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(digitalSignature | keyEncipherment, true),
      new x509.ExtendedKeyUsageExtension([use === 'client' ? clientAuth : serverAuth]),
      ...(ca ? [await x509.AuthorityKeyIdentifierExtension.create(ca.publicKey)] : []),
      ...(alternatives.length > 0 ? [new x509.SubjectAlternativeNameExtension(alternatives)] : []),
    ],
  });
  return pairOf(certificate, keys);
}

const signingKeyOf = async ({ keyPem }: KeyPair): Promise<webcrypto.CryptoKey> => {
  const der = createPrivateKey(keyPem).export({ type: 'pkcs8', format: 'der' });
  return (await webcrypto.subtle.importKey('pkcs8', der, algorithm, true, ['sign'])) as webcrypto.CryptoKey;
};
