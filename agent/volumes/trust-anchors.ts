// The certificates of ClusterTrustBundles, for projected volumes: normalised, without duplicates.
import { X509Certificate } from 'node:crypto';
import { isForbidden, isNotFound } from '../../kube/errors.ts';
import { listAll } from '../../kube/list.ts';
import { resources } from '../../kube/resources.ts';
import { matchesLabelSelector } from '../../kube/selectors.ts';
import type { ClusterTrustBundle } from '../../kube/types/core.ts';
import type { ProjectedSource } from '../../kube/types/volume.ts';
import { pemBlock } from '../../lib/pem.ts';
import { NotYetError, type SetUpRequest, type VolumeHost } from './volume-driver.ts';

type Wish = NonNullable<ProjectedSource['clusterTrustBundle']>;

// Bundles chosen by signer cannot be watched one by one: they are listed again after this long.
const signerRefreshMs = 60_000;

/** PEM text of the trust anchors that the source asks for. */
export async function trustAnchors(
  host: VolumeHost,
  request: SetUpRequest,
  wish: Wish,
): Promise<{ pem: string; refreshAtMs?: number }> {
  if (wish.name !== undefined) {
    const bundle = await host.objects.get(
      resources.clusterTrustBundles,
      { name: wish.name },
      request.uid,
      request.signal,
    );
    if (bundle) return { pem: normalisePem([bundle]) };
    if (wish.optional) return { pem: '' };
    throw new NotYetError(`while getting ClusterTrustBundle: clustertrustbundle "${wish.name}" not found`);
  }
  if (wish.signerName === undefined)
    throw new Error('ClusterTrustBundle projection requires either name or signerName to be set');
  const refreshAtMs = host.clock.now() + signerRefreshMs;
  const bundles = await bundlesOf(host, request, wish);
  if (bundles.length > 0) return { pem: normalisePem(bundles), refreshAtMs };
  if (wish.optional) return { pem: '', refreshAtMs };
  throw new NotYetError('combination of signerName and labelSelector matched zero ClusterTrustBundles', 'FailedMount', {
    polled: true,
  });
}

async function bundlesOf(host: VolumeHost, request: SetUpRequest, wish: Wish): Promise<ClusterTrustBundle[]> {
  // No selector matches nothing; an empty one matches all.
  if (wish.labelSelector === undefined) return [];
  try {
    const { items } = await listAll(host.client, resources.clusterTrustBundles, {
      fieldSelector: `spec.signerName=${wish.signerName}`,
      signal: request.signal,
    });
    return items.filter(
      (bundle) =>
        bundle.spec.signerName === wish.signerName && matchesLabelSelector(wish.labelSelector, bundle.metadata.labels),
    );
  } catch (error) {
    if (isNotFound(error) || isForbidden(error))
      throw new NotYetError('ClusterTrustBundles are not available from this API server', 'FailedMount', {
        cause: error,
        polled: true,
      });
    throw error;
  }
}

/** Each certificate once, sorted by its bytes, as bare PEM blocks. */
export function normalisePem(bundles: readonly ClusterTrustBundle[]): string {
  const found = new Map<string, string>();
  for (const bundle of bundles)
    for (const [block] of bundle.spec.trustBundle.matchAll(
      /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g,
    )) {
      const { raw } = new X509Certificate(block);
      found.set(raw.toString('hex'), pemBlock('CERTIFICATE', raw));
    }
  return [...found.keys()]
    .sort()
    .map((key) => found.get(key)!)
    .join('');
}
