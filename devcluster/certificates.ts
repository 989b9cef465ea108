// The cluster's certificate authority: its own certificate, and those of users and of the server.
import 'reflect-metadata';
import { createPrivateKey, randomBytes, webcrypto } from 'node:crypto';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';
import ipaddr from 'ipaddr.js';
import type { Clock } from '../lib/clock.ts';
import { readFileIfThere, writeFileAtomic } from '../lib/files.ts';

export interface KeyPair {
  readonly certPem: string;
  readonly keyPem: string;
}

export type Authority = Awaited<ReturnType<typeof createAuthority>>;

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const yearMs = 365 * 24 * 3_600_000;
const groupOid = '2.5.4.10';
const nameOid = '2.5.4.3';

async function newKeys(): Promise<{ keys: webcrypto.CryptoKeyPair; keyPem: string }> {
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  const key = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' });
  return { keys, keyPem: key.export({ type: 'pkcs8', format: 'pem' }).toString() };
}

const keyFromPem = async (pem: string): Promise<webcrypto.CryptoKey> => {
  const der = createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' });
  return (await webcrypto.subtle.importKey('pkcs8', der, algorithm, true, ['sign'])) as webcrypto.CryptoKey;
};

const serial = (): string => `01${randomBytes(15).toString('hex')}`;

async function loadOrMake(clock: Clock, dataDir: string | undefined): Promise<KeyPair> {
  const paths = dataDir ? { cert: join(dataDir, 'ca.crt'), key: join(dataDir, 'ca.key') } : undefined;
  const certPem = paths && (await readFileIfThere(paths.cert));
  const keyPem = paths && (await readFileIfThere(paths.key));
  if (certPem && keyPem) return { certPem, keyPem };
  const { keyCertSign, digitalSignature, cRLSign } = x509.KeyUsageFlags;
  const fresh = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: 'CN=stevedore-devcluster',
    notBefore: new Date(clock.now() - 3_600_000),
    notAfter: new Date(clock.now() + 10 * yearMs),
    keys: fresh.keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(keyCertSign | digitalSignature | cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(fresh.keys.publicKey),
    ],
  });
  const made = { certPem: `${certificate.toString('pem')}\n`, keyPem: fresh.keyPem };
  if (paths) {
    await writeFileAtomic(paths.key, made.keyPem, 0o600);
    await writeFileAtomic(paths.cert, made.certPem);
  }
  return made;
}

export async function createAuthority({ clock }: { readonly clock: Clock }, dataDir?: string) {
  x509.cryptoProvider.set(webcrypto as never);
  const { certPem, keyPem } = await loadOrMake(clock, dataDir);
  const ca = new x509.X509Certificate(certPem);
  const signingKey = await keyFromPem(keyPem);

  const issue = async (
    name: string,
    groups: readonly string[],
    use: x509.ExtendedKeyUsage,
    names: x509.JsonGeneralNames,
  ): Promise<KeyPair> => {
    const fresh = await newKeys();
    const { digitalSignature, keyEncipherment } = x509.KeyUsageFlags;
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial(),
      subject: new x509.Name([...groups.map((group) => ({ [groupOid]: [group] })), { [nameOid]: [name] }]).toString(),
      issuer: ca.subject,
      notBefore: new Date(clock.now() - 300_000),
      notAfter: new Date(clock.now() + yearMs),
      publicKey: fresh.keys.publicKey,
      signingKey,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(digitalSignature | keyEncipherment, true),
        new x509.ExtendedKeyUsageExtension([use]),
        await x509.AuthorityKeyIdentifierExtension.create(ca.publicKey),
        ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
      ],
    });
    return { certPem: `${certificate.toString('pem')}\n`, keyPem: fresh.keyPem };
  };

  const { clientAuth, serverAuth } = x509.ExtendedKeyUsage;
  return {
    caPem: certPem,
    /** The authority's key; also signs service-account tokens (ES256). */
    keyPem,
    issueClient: (user: string, groups: readonly string[]): Promise<KeyPair> => issue(user, groups, clientAuth, []),
    issueServer: (commonName: string, names: readonly string[]): Promise<KeyPair> => {
      const alternatives = names.map((value) => ({ type: ipaddr.isValid(value) ? 'ip' : 'dns', value }) as const);
      return issue(commonName, [], serverAuth, alternatives);
    },
  };
}
