// Who may show a client certificate: the CA bundle of `authentication.x509.clientCAFile`, read again when it changes. A certificate is
// checked again for every request, against the bundle as it is then: a connection may outlive both.
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { type WatchedFilesDeps, watchFiles } from './watched-files.ts';

export interface ClientCa {
  /** PEM. */
  bundle(): string;
  roots(): readonly X509Certificate[];
  /** Yields each new bundle, until the signal aborts. */
  changes(signal: AbortSignal): AsyncIterable<string>;
}

const marker = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/g;

/** Throws where the text holds no certificate, or one that cannot be read. */
export function parseBundle(pem: string, from: string): X509Certificate[] {
  const blocks = pem.match(marker) ?? [];
  if (blocks.length === 0) throw new Error(`client CA file ${from}: holds no certificate`);
  try {
    return blocks.map((block) => new X509Certificate(block));
  } catch (error) {
    throw new Error(`client CA file ${from}: holds a certificate that cannot be read`, { cause: error });
  }
}

export async function loadClientCa(deps: WatchedFilesDeps, file: string): Promise<ClientCa> {
  let bundle = await readFile(file, 'utf8');
  let roots = parseBundle(bundle, file);
  return {
    bundle: () => bundle,
    roots: () => roots,
    async *changes(signal) {
      for await (const [text = ''] of watchFiles(deps, [file], [bundle], signal)) {
        try {
          roots = parseBundle(text, file);
        } catch (error) {
          deps.log.warn('the new client CA file is not usable; the old one stays in use', { error });
          continue;
        }
        bundle = text;
        deps.log.info('client CA file read again', { file, certificates: roots.length });
        yield bundle;
      }
    },
  };
}

const clientAuth = '1.3.6.1.5.5.7.3.2';
const anyUsage = '2.5.29.37.0';
const maxDepth = 6;

const validAt = (certificate: X509Certificate, nowMs: number): boolean =>
  certificate.validFromDate.getTime() <= nowMs && nowMs <= certificate.validToDate.getTime();

/**
 * Why the certificate may not be trusted at `nowMs`, or undefined where it may. `chain` is what the client sent, the leaf first. This is
 * on top of OpenSSL's own check at the handshake, which knows path lengths and name constraints.
 */
export function distrust(
  chain: readonly X509Certificate[],
  roots: readonly X509Certificate[],
  nowMs: number,
): string | undefined {
  const [leaf, ...intermediates] = chain;
  if (!leaf) return 'no certificate';
  if (!validAt(leaf, nowMs)) return 'certificate has expired or is not yet valid';
  // Node calls the extended key usages keyUsage.
  const usages = leaf.keyUsage as readonly string[] | undefined;
  if (usages && !usages.includes(clientAuth) && !usages.includes(anyUsage))
    return 'certificate specifies an incompatible key usage';
  const issuedBy = (certificate: X509Certificate, issuer: X509Certificate): boolean =>
    issuer.ca && validAt(issuer, nowMs) && certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
  let at = leaf;
  for (let depth = 0; depth < maxDepth; depth++) {
    const current = at;
    if (roots.some((root) => root.raw.equals(current.raw) || issuedBy(current, root))) return undefined;
    const next = intermediates.find((candidate) => candidate !== current && issuedBy(current, candidate));
    if (!next) break;
    at = next;
  }
  return 'certificate signed by unknown authority';
}
