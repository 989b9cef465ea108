// Certificates with their keys on disk, laid out as the kubelet does: each pair in one PEM file with its time in the name, and a link
// `NAME-current.pem` to the one in use. What is found there from a kubelet is used, and it finds ours.
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readdir, readlink, rename, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfThere, writeFileAtomic } from '../../lib/files.ts';
import type { CertificateAndKey } from './serving.ts';

export interface CertificateStore {
  /** Path of the link to the pair in use. */
  readonly currentPath: string;
  /** Undefined where there is none, or what is there is no certificate with its key. */
  current(): Promise<CertificateAndKey | undefined>;
  /** Writes the pair and points the link at it; older ones than the last two are removed. */
  update(pair: CertificateAndKey, nowMs: number): Promise<void>;
}

export interface CertificateStoreOptions {
  readonly folder: string;
  /** `kubelet-client` or `kubelet-server`. */
  readonly name: string;
}

const certificates = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----\n?/g;
const keys = /-----BEGIN (?:EC |RSA )?PRIVATE KEY-----[\s\S]+?-----END (?:EC |RSA )?PRIVATE KEY-----\n?/;

/** Takes a file of certificates and a key apart; undefined where they are not there or do not fit. */
export function parsePair(text: string): CertificateAndKey | undefined {
  const certificate = text.match(certificates)?.join('');
  const key = keys.exec(text)?.[0];
  if (certificate === undefined || key === undefined) return undefined;
  try {
    return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key)) ? { certificate, key } : undefined;
  } catch {
    return undefined;
  }
}

export interface Validity {
  readonly fromMs: number;
  readonly untilMs: number;
}

export function validityOf({ certificate }: CertificateAndKey): Validity {
  const { validFrom, validTo } = new X509Certificate(certificate);
  return { fromMs: Date.parse(validFrom), untilMs: Date.parse(validTo) };
}

const stamp = (ms: number): string =>
  new Date(ms).toISOString().replace(/T/, '-').replaceAll(':', '-').replace(/\..*$/, '');

export function createCertificateStore({ folder, name }: CertificateStoreOptions): CertificateStore {
  const currentPath = join(folder, `${name}-current.pem`);
  const dropOld = async (): Promise<void> => {
    const kept = await readlink(currentPath).catch(() => '');
    const dated = (await readdir(folder))
      .filter((file) => new RegExp(`^${name}-\\d{4}-\\d\\d-\\d\\d-\\d\\d-\\d\\d-\\d\\d\\.pem$`).test(file))
      .sort();
    for (const file of dated.slice(0, -2)) if (!kept.endsWith(file)) await rm(join(folder, file), { force: true });
  };
  return {
    currentPath,
    async current() {
      const text = await readFileIfThere(currentPath);
      return text === undefined ? undefined : parsePair(text);
    },
    async update({ certificate, key }, nowMs) {
      const file = join(folder, `${name}-${stamp(nowMs)}.pem`);
      const lines = (text: string): string => (text.endsWith('\n') ? text : `${text}\n`);
      await writeFileAtomic(file, lines(certificate) + lines(key), 0o600);
      // Made aside and renamed: a reader always finds the one or the other.
      const aside = `${currentPath}.new`;
      await rm(aside, { force: true });
      await symlink(file, aside);
      await rename(aside, currentPath);
      await dropOld();
    },
  };
}
