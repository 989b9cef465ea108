// Asks the cluster for a certificate: a key and a request made here, a CertificateSigningRequest, and the wait until it is approved and signed.
import { createPublicKey, X509Certificate } from 'node:crypto';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { withTimeout } from '../../lib/abort.ts';
import { pemBlock } from '../../lib/pem.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { CertificateSigningRequest } from '../../kube/types/core.ts';
import type { CertificateAndKey } from './serving.ts';

export const clientSigner = 'kubernetes.io/kube-apiserver-client-kubelet';
export const servingSigner = 'kubernetes.io/kubelet-serving';

export interface SigningDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
}

export interface SigningOptions {
  readonly nodeName: string;
  readonly signer: typeof clientSigner | typeof servingSigner;
  /** For a serving certificate: what the node is reached by. */
  readonly dnsNames?: readonly string[];
  readonly ipAddresses?: readonly string[];
  /** How long approval is awaited. Default 15 minutes, as the kubelet does. */
  readonly timeoutMs?: number;
}

/** The cluster refused, or the request went. The message says which request and the approver's words. */
export class SigningError extends Error {
  override name = 'SigningError';
}

interface KeyAndRequest {
  /** PEM, PKCS #8. */
  readonly key: string;
  /** PEM. */
  readonly request: string;
}

async function makeRequest(options: SigningOptions): Promise<KeyAndRequest> {
  // Loaded only now: it is 20 MB that a running node does not need.
  const { x509 } = await import('./x509-library.ts');
  const { subtle } = globalThis.crypto;
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const names = [
    ...(options.dnsNames ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...(options.ipAddresses ?? []).map((value) => ({ type: 'ip' as const, value })),
  ];
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: [{ O: ['system:nodes'] }, { CN: [`system:node:${options.nodeName}`] }],
    keys,
    signingAlgorithm: algorithm,
    extensions: names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : [],
  });
  return {
    key: pemBlock('PRIVATE KEY', new Uint8Array(await subtle.exportKey('pkcs8', keys.privateKey))),
    request: request.toString('pem'),
  };
}

/** The signed certificate; undefined while nothing is decided. Throws a SigningError where it was refused. */
function verdict(request: CertificateSigningRequest): string | undefined {
  const name = request.metadata.name;
  for (const { type, reason, message } of request.status?.conditions ?? []) {
    if (type === 'Denied')
      throw new SigningError(`certificate signing request ${name} was denied: ${reason ?? ''} ${message ?? ''}`.trim());
    if (type === 'Failed')
      throw new SigningError(`certificate signing request ${name} failed: ${reason ?? ''} ${message ?? ''}`.trim());
  }
  const approved = request.status?.conditions?.some(({ type }) => type === 'Approved');
  return approved && request.status?.certificate
    ? Buffer.from(request.status.certificate, 'base64').toString('utf8')
    : undefined;
}

async function awaitSigned(deps: SigningDeps, name: string, signal: AbortSignal): Promise<string> {
  const { client, clock, log } = deps;
  for (;;) {
    try {
      const found = await client.get(resources.certificateSigningRequests, { name }, { signal });
      const signed = verdict(found);
      if (signed !== undefined) return signed;
      const events = client.watch(resources.certificateSigningRequests, {
        fieldSelector: `metadata.name=${name}`,
        signal,
        timeoutSeconds: 300,
        ...(found.metadata.resourceVersion === undefined ? {} : { resourceVersion: found.metadata.resourceVersion }),
      });
      for await (const event of events) {
        if (event.type === 'BOOKMARK') continue;
        if (event.type === 'DELETED') throw new SigningError(`certificate signing request ${name} was deleted`);
        const later = verdict(event.object);
        if (later !== undefined) return later;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof SigningError) throw error;
      if (isNotFound(error)) throw new SigningError(`certificate signing request ${name} was deleted`);
      log.debug('waiting for a certificate was interrupted; looking again', { request: name, error });
      await clock.sleep(1000, signal);
    }
  }
}

/** Rejects with a SigningError where the cluster refuses, a TimeoutError where nobody decides, or an ApiError. */
export async function requestCertificate(
  deps: SigningDeps,
  options: SigningOptions,
  signal: AbortSignal,
): Promise<CertificateAndKey> {
  const { client, clock, log } = deps;
  const { key, request } = await makeRequest(options);
  const created = await client.create(
    resources.certificateSigningRequests,
    {
      apiVersion: 'certificates.k8s.io/v1',
      kind: 'CertificateSigningRequest',
      metadata: { name: '', generateName: 'csr-' },
      spec: {
        request: Buffer.from(request).toString('base64'),
        signerName: options.signer,
        usages: ['digital signature', options.signer === clientSigner ? 'client auth' : 'server auth'],
      },
    },
    { signal },
  );
  const { name } = created.metadata;
  log.info('certificate requested; waiting for its approval', { request: name, signer: options.signer });
  const timeoutMs = options.timeoutMs ?? 15 * 60_000;
  const certificate = await withTimeout(
    clock,
    `approval of certificate signing request ${name}`,
    timeoutMs,
    signal,
    (inner) => awaitSigned(deps, name, inner),
  );
  const leaf = new X509Certificate(certificate);
  const own = createPublicKey({ key, format: 'pem' }).export({ type: 'spki', format: 'der' });
  if (!leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(own))
    throw new SigningError(`certificate signing request ${name}: the certificate is for another key`);
  log.info('certificate signed', { request: name, until: leaf.validTo });
  return { certificate, key };
}
