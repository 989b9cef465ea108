// The certificate that :10250 shows: from files (read again when they change), or self-signed and kept beside them, as the kubelet does.
// One asked of the cluster by CSR fits behind the same interface.
import { X509Certificate, createPrivateKey } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfThere, writeFileAtomic } from '../../lib/files.ts';
import { selfSigned } from './self-signed.ts';
import { type WatchedFilesDeps, watchFiles } from './watched-files.ts';

export interface CertificateAndKey {
  /** PEM, the leaf first. */
  readonly certificate: string;
  /** PEM. */
  readonly key: string;
}

export interface ServingCertificate {
  current(): CertificateAndKey;
  /** Yields each new certificate, until the signal aborts. */
  changes(signal: AbortSignal): AsyncIterable<CertificateAndKey>;
}

export interface ServingOptions {
  /** `tlsCertFile` and `tlsPrivateKeyFile`; both or neither. */
  readonly certificateFile?: string | undefined;
  readonly keyFile?: string | undefined;
  /** Where a self-signed one is kept: `kubelet.crt` and `kubelet.key` in it. */
  readonly certificateFolder: string;
  /** Names and addresses that a self-signed one is for; the first is its common name. */
  readonly hosts: readonly string[];
}

/** Throws where the pair does not fit together; says which file. */
function checked(certificate: string, key: string, from: string): CertificateAndKey {
  let fits = false;
  try {
    fits = new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
  } catch (error) {
    throw new Error(`serving certificate ${from}: not a PEM certificate and key`, { cause: error });
  }
  if (!fits) throw new Error(`serving certificate ${from}: the key does not belong to the certificate`);
  return { certificate, key };
}

async function* fileChanges(
  deps: WatchedFilesDeps,
  files: readonly [string, string],
  state: { pair: CertificateAndKey },
  signal: AbortSignal,
): AsyncGenerator<CertificateAndKey> {
  for await (const [certificate = '', key = ''] of watchFiles(
    deps,
    files,
    [state.pair.certificate, state.pair.key],
    signal,
  )) {
    try {
      state.pair = checked(certificate, key, files.join(' '));
    } catch (error) {
      deps.log.warn('the new serving certificate is not usable; the old one stays in use', { error });
      continue;
    }
    deps.log.info('serving certificate read again', { file: files[0] });
    yield state.pair;
  }
}

/** Reads, or makes, the serving certificate. Rejects with what is wrong and in which file. */
export async function loadServingCertificate(
  deps: WatchedFilesDeps,
  options: ServingOptions,
): Promise<ServingCertificate> {
  const { certificateFile, keyFile } = options;
  if ((certificateFile ? 1 : 0) + (keyFile ? 1 : 0) === 1)
    throw new Error('tlsCertFile and tlsPrivateKeyFile belong together: one of them is missing');
  const files: [string, string] =
    certificateFile && keyFile
      ? [certificateFile, keyFile]
      : [join(options.certificateFolder, 'kubelet.crt'), join(options.certificateFolder, 'kubelet.key')];
  if (!certificateFile) await ensureSelfSigned(deps, files, options.hosts);
  const [certificate, key] = await Promise.all([readFile(files[0], 'utf8'), readFile(files[1], 'utf8')]);
  const state = { pair: checked(certificate, key, files.join(' ')) };
  return { current: () => state.pair, changes: (signal) => fileChanges(deps, files, state, signal) };
}

/** Keeps one that is there, fits and lasts another 30 days; else makes one for a year. */
async function ensureSelfSigned(
  deps: WatchedFilesDeps,
  files: readonly [string, string],
  hosts: readonly string[],
): Promise<void> {
  const [certificate, key] = await Promise.all([readFileIfThere(files[0]), readFileIfThere(files[1])]);
  if (certificate !== undefined && key !== undefined) {
    try {
      checked(certificate, key, files.join(' '));
      const untilMs = new X509Certificate(certificate).validToDate.getTime();
      if (untilMs - deps.clock.now() > 30 * 24 * 3600_000) return;
    } catch (error) {
      deps.log.warn('the self-signed serving certificate is not usable; making a new one', { error });
    }
  }
  const pair = await selfSigned(hosts, deps.clock.now());
  await writeFileAtomic(files[1], pair.key, 0o600);
  await writeFileAtomic(files[0], pair.certificate, 0o644);
  deps.log.info('made a self-signed serving certificate', { file: files[0], hosts: hosts.join(' ') });
}
