// The cluster's certificate authority: its own certificate, those of users and servers, and the signing of requests.
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

export interface Authority {
  readonly caPem: string;
  /** The authority's key; also signs service-account tokens (ES256). */
  readonly keyPem: string;
  issueClient(user: string, groups: readonly string[]): Promise<KeyPair>;
  issueServer(commonName: string, names: readonly string[]): Promise<KeyPair>;
  /** Signs a PEM certificate request as it stands; returns the certificate in PEM. */
  sign(requestPem: string, use: 'client' | 'server', validMs: number): Promise<string>;
}

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const yearMs = 365 * 24 * 3_600_000;
const clientAuth = '1.3.6.1.5.5.7.3.2';
const serverAuth = '1.3.6.1.5.5.7.3.1';
const groupOid = '2.5.4.10';
const nameOid = '2.5.4.3';

const newKeys = async (): Promise<webcrypto.CryptoKeyPair> =>
  (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;

const keyToPem = async (key: webcrypto.CryptoKey): Promise<string> => {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key));
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    .export({ type: 'pkcs8', format: 'pem' })
    .toString();
};

const keyFromPem = async (pem: string): Promise<webcrypto.CryptoKey> => {
  const der = createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' });
  return (await webcrypto.subtle.importKey('pkcs8', der, algorithm, true, ['sign'])) as webcrypto.CryptoKey;
};

const serial = (): string => `01${randomBytes(15).toString('hex')}`;

const subject = (user: string, groups: readonly string[]): x509.Name =>
  new x509.Name([...groups.map((group) => ({ [groupOid]: [group] })), { [nameOid]: [user] }]);

const alternative = (name: string): { type: 'ip' | 'dns'; value: string } => ({
  type: ipaddr.isValid(name) ? 'ip' : 'dns',
  value: name,
});

const alternativeNames = '2.5.29.17';
const namesOf = (request: x509.Pkcs10CertificateRequest): x509.JsonGeneralNames => {
  const extension = request.getExtension(alternativeNames);
  return extension ? new x509.SubjectAlternativeNameExtension(extension.rawData).names.toJSON() : [];
};

async function loadOrMake(clock: Clock, dataDir: string | undefined): Promise<{ certPem: string; keyPem: string }> {
  const certPath = dataDir && join(dataDir, 'ca.crt');
  const keyPath = dataDir && join(dataDir, 'ca.key');
  const certPem = certPath && (await readFileIfThere(certPath));
  const keyPem = keyPath && (await readFileIfThere(keyPath));
  if (certPem && keyPem) return { certPem, keyPem };
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: 'CN=stevedore-devcluster',
    notBefore: new Date(clock.now() - 3_600_000),
    notAfter: new Date(clock.now() + 10 * yearMs),
    keys,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  const made = { certPem: `${certificate.toString('pem')}\n`, keyPem: await keyToPem(keys.privateKey) };
  if (keyPath && certPath) {
    await writeFileAtomic(keyPath, made.keyPem, 0o600);
    await writeFileAtomic(certPath, made.certPem);
  }
  return made;
}

export async function createAuthority(deps: { readonly clock: Clock }, dataDir?: string): Promise<Authority> {
  const { clock } = deps;
  x509.cryptoProvider.set(webcrypto as never);
  const { certPem, keyPem } = await loadOrMake(clock, dataDir);
  const ca = new x509.X509Certificate(certPem);
  const signingKey = await keyFromPem(keyPem);

  const issue = async (
    name: x509.Name | string,
    publicKey: x509.PublicKeyType,
    use: 'client' | 'server',
    validMs: number,
    names: x509.JsonGeneralNames,
  ): Promise<string> => {
    const certificate = await x509.X509CertificateGenerator.create({
      serialNumber: serial(),
      subject: typeof name === 'string' ? name : name.toString(),
      issuer: ca.subject,
      notBefore: new Date(clock.now() - 300_000),
      notAfter: new Date(clock.now() + validMs),
      publicKey,
      signingKey,
      signingAlgorithm: algorithm,
      extensions: [
        new x509.BasicConstraintsExtension(false, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment, true),
        new x509.ExtendedKeyUsageExtension([use === 'client' ? clientAuth : serverAuth]),
        await x509.AuthorityKeyIdentifierExtension.create(ca.publicKey),
        ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
      ],
    });
    return `${certificate.toString('pem')}\n`;
  };

  const issueNew = async (
    name: x509.Name,
    use: 'client' | 'server',
    names: x509.JsonGeneralNames,
  ): Promise<KeyPair> => {
    const keys = await newKeys();
    return {
      certPem: await issue(name, keys.publicKey, use, yearMs, names),
      keyPem: await keyToPem(keys.privateKey),
    };
  };

  return {
    caPem: certPem,
    keyPem,
    issueClient: (user, groups) => issueNew(subject(user, groups), 'client', []),
    issueServer: (commonName, names) => issueNew(subject(commonName, []), 'server', names.map(alternative)),
    async sign(requestPem, use, validMs) {
      const request = new x509.Pkcs10CertificateRequest(requestPem);
      if (!(await request.verify())) throw new Error('the certificate request is not signed by its own key');
      const names = namesOf(request);
      return issue(request.subject, request.publicKey, use, validMs, names);
    },
  };
}
