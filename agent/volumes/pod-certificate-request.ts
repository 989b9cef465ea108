// One PodCertificateRequest: a key made here, the request with its proof, and the wait until the signer has decided.
// Behaviour after the kubelet's; a node may watch such requests only by its own name, and that is what is done, for one request at a time.
import type { webcrypto } from 'node:crypto';
import type { KubeClient } from '../../kube/client.ts';
import { resources } from '../../kube/resources.ts';
import type { PodCertificateRequest } from '../../kube/types/core.ts';
import type { PodCertificateProjection } from '../../kube/types/volume.ts';
import type { Clock } from '../../lib/clock.ts';
import { describeError, type Log } from '../../lib/log.ts';
import { pemBlock } from '../../lib/pem.ts';

export interface CertificateWish {
  readonly namespace: string;
  readonly pod: { readonly name: string; readonly uid: string };
  readonly serviceAccount: string;
  readonly node: { readonly name: string; readonly uid: string };
  readonly source: PodCertificateProjection;
}

/** How a request ended. Times in milliseconds since the epoch. */
export type Verdict =
  | {
      readonly kind: 'issued';
      readonly request: string;
      /** PEM, PKCS #8. */
      readonly key: string;
      /** PEM, the leaf first. */
      readonly chain: string;
      readonly beginRefreshAtMs: number;
      readonly notAfterMs: number;
    }
  | {
      readonly kind: 'denied' | 'failed';
      readonly request: string;
      readonly reason: string;
      readonly message: string;
    };

export interface CertificateRequestDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
}

/** The request is gone before anybody decided: another is needed. */
export class RequestGoneError extends Error {
  override name = 'RequestGoneError';
}

type SignAlgorithm = { readonly name: string } & Readonly<Record<string, unknown>>;

const rsa = (modulusLength: number): SignAlgorithm => ({
  name: 'RSASSA-PKCS1-v1_5',
  hash: 'SHA-256',
  modulusLength,
  publicExponent: new Uint8Array([1, 0, 1]),
});
const ecdsa = (namedCurve: string, hash: string): SignAlgorithm => ({ name: 'ECDSA', namedCurve, hash });

const algorithms: Readonly<Record<string, SignAlgorithm>> = {
  RSA3072: rsa(3072),
  RSA4096: rsa(4096),
  ECDSAP256: ecdsa('P-256', 'SHA-256'),
  ECDSAP384: ecdsa('P-384', 'SHA-384'),
  ECDSAP521: ecdsa('P-521', 'SHA-512'),
  ED25519: { name: 'Ed25519' },
};

/** A key of the type, as PEM, and an empty PKCS #10 request that it signed, as DER: the proof that we have it. */
export async function keyAndProof(keyType: string): Promise<{ key: string; request: Buffer }> {
  const algorithm = Object.hasOwn(algorithms, keyType) ? algorithms[keyType] : undefined;
  if (!algorithm) throw new Error(`unknown key type ${JSON.stringify(keyType)}`);
  // Loaded only now: it is 20 MB that hardly any node needs.
  const { x509 } = await import('../tls/x509-library.ts');
  const { subtle } = globalThis.crypto;
  const keys = (await subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;
  const request = await x509.Pkcs10CertificateRequestGenerator.create({ name: [], keys, signingAlgorithm: algorithm });
  return {
    key: pemBlock('PRIVATE KEY', new Uint8Array(await subtle.exportKey('pkcs8', keys.privateKey))),
    request: Buffer.from(request.rawData),
  };
}

/** The certificates of a chain alone, without headers and what stands between them. */
export function cleanChain(text: string): string {
  const blocks = text.matchAll(/-----BEGIN ([A-Z0-9 ]+)-----\r?\n([\s\S]*?)-----END \1-----/g);
  return [...blocks]
    .map(([, , body = '']) => pemBlock('CERTIFICATE', Buffer.from(body.replace(/^[^\n]*:.*$/gm, ''), 'base64')))
    .join('');
}

const timeOf = (text: string | undefined): number => Date.parse(text ?? '');

function verdictOf(request: PodCertificateRequest, key: string): Verdict | undefined {
  const { namespace = 'default', name } = request.metadata;
  const { conditions = [], certificateChain = '', beginRefreshAt, notAfter } = request.status ?? {};
  const shown = `${namespace}/${name}`;
  for (const { type, status, reason = '', message = '' } of conditions) {
    if (status !== 'True') continue;
    if (type === 'Denied') return { kind: 'denied', request: shown, reason, message };
    if (type === 'Failed') return { kind: 'failed', request: shown, reason, message };
    if (type !== 'Issued') continue;
    return {
      kind: 'issued',
      request: shown,
      key,
      chain: cleanChain(certificateChain),
      beginRefreshAtMs: timeOf(beginRefreshAt),
      notAfterMs: timeOf(notAfter),
    };
  }
  return undefined;
}

async function create(
  deps: CertificateRequestDeps,
  wish: CertificateWish,
  proof: Buffer,
  signal: AbortSignal,
): Promise<PodCertificateRequest> {
  const { namespace, pod, serviceAccount: name, node, source } = wish;
  const account = await deps.client.get(resources.serviceAccounts, { namespace, name }, { signal });
  return await deps.client.create(
    resources.podCertificateRequests,
    {
      apiVersion: 'certificates.k8s.io/v1beta1',
      kind: 'PodCertificateRequest',
      metadata: {
        name: '',
        namespace,
        generateName: 'req-',
        ownerReferences: [{ apiVersion: 'v1', kind: 'Pod', name: pod.name, uid: pod.uid }],
      },
      spec: {
        signerName: source.signerName ?? '',
        podName: pod.name,
        podUID: pod.uid,
        serviceAccountName: name,
        serviceAccountUID: account.metadata.uid ?? '',
        nodeName: node.name,
        nodeUID: node.uid,
        ...(source.maxExpirationSeconds === undefined ? {} : { maxExpirationSeconds: source.maxExpirationSeconds }),
        stubPKCS10Request: proof.toString('base64'),
        ...(source.userAnnotations ? { unverifiedUserAnnotations: source.userAnnotations } : {}),
      },
    },
    { signal },
  );
}

async function awaitVerdict(
  deps: CertificateRequestDeps,
  wish: CertificateWish,
  created: PodCertificateRequest,
  key: string,
  signal: AbortSignal,
): Promise<Verdict> {
  const { client, clock, log } = deps;
  const { name, namespace = wish.namespace } = created.metadata;
  const gone = (): RequestGoneError =>
    new RequestGoneError(`PodCertificateRequest ${namespace}/${name} was deleted before its signer decided`);
  const selection = { namespace, fieldSelector: `metadata.name=${name},spec.nodeName=${wish.node.name}` };
  let resourceVersion = created.metadata.resourceVersion;
  for (;;) {
    try {
      if (resourceVersion === undefined) {
        const list = await client.list(resources.podCertificateRequests, { ...selection, signal });
        const found = list.items.find((item) => item.metadata.name === name);
        if (!found) throw gone();
        const verdict = verdictOf(found, key);
        if (verdict) return verdict;
        resourceVersion = list.metadata.resourceVersion;
      }
      const watch = { ...selection, signal, timeoutSeconds: 300, allowWatchBookmarks: true };
      const from = resourceVersion === undefined ? {} : { resourceVersion };
      for await (const event of client.watch(resources.podCertificateRequests, { ...watch, ...from })) {
        if (event.type === 'BOOKMARK') continue;
        if (event.type === 'DELETED') throw gone();
        const verdict = verdictOf(event.object, key);
        if (verdict) return verdict;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof RequestGoneError) throw error;
      log.debug('waiting for a pod certificate was interrupted; looking again', {
        request: `${namespace}/${name}`,
        error: describeError(error),
      });
      await clock.sleep(1_000, signal);
    }
    // What happened since the watch ended is in a list.
    resourceVersion = undefined;
  }
}

/** Asks for a certificate and waits until its signer has decided. Rejects with an ApiError where nothing could be asked, or a RequestGoneError. */
export async function requestPodCertificate(
  deps: CertificateRequestDeps,
  wish: CertificateWish,
  signal: AbortSignal,
): Promise<Verdict> {
  const { key, request } = await keyAndProof(wish.source.keyType ?? '');
  const created = await create(deps, wish, request, signal);
  return await awaitVerdict(deps, wish, created, key, signal);
}
