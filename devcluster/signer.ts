// Certificate requests: those of nodes and of those who join are approved by themselves, approved ones are signed.
import type { CertificateSigningRequest } from '../kube/types/core.ts';
import { describeError, type Log } from '../lib/log.ts';
import type { Clock } from '../lib/clock.ts';
import type { Authority } from './certificates.ts';
import { system } from './bootstrap.ts';
import { kindByName } from './kinds.ts';
import { timestamp } from './names.ts';
import type { Registry } from './registry.ts';

export interface SignerDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: Registry;
  readonly authority: Authority;
}

const signers: Readonly<Record<string, 'client' | 'server'>> = {
  'kubernetes.io/kube-apiserver-client': 'client',
  'kubernetes.io/kube-apiserver-client-kubelet': 'client',
  'kubernetes.io/kubelet-serving': 'server',
};

const dayMs = 86_400_000;

function approves({ spec }: CertificateSigningRequest): boolean {
  const groups = spec.groups ?? [];
  if (spec.signerName === 'kubernetes.io/kube-apiserver-client-kubelet')
    return groups.includes('system:bootstrappers') || groups.includes('system:nodes');
  return spec.signerName === 'kubernetes.io/kubelet-serving' && groups.includes('system:nodes');
}

/** Goes through all requests; one that cannot be signed is marked Failed. */
export async function signRequests({ clock, log, registry, authority }: SignerDeps): Promise<void> {
  const kind = kindByName('certificatesigningrequests', 'certificates.k8s.io');
  const context = { user: system, dryRun: false };
  for (const object of registry.collectionOf(kind).list()) {
    const request = object as unknown as CertificateSigningRequest;
    const { name } = request.metadata;
    const conditions = request.status?.conditions ?? [];
    const has = (type: string): boolean => conditions.some((one) => one.type === type);
    const use = signers[request.spec.signerName];
    if (!use || request.status?.certificate || has('Denied') || has('Failed')) continue;
    const condition = (type: string, reason: string, message: string) => ({
      type,
      status: 'True' as const,
      reason,
      message,
      lastUpdateTime: timestamp(clock.now()),
      lastTransitionTime: timestamp(clock.now()),
    });
    if (!has('Approved')) {
      if (!approves(request)) continue;
      conditions.push(
        condition('Approved', 'AutoApproved', 'approved by devcluster: the requester may have this certificate'),
      );
    }
    let certificate: string | undefined;
    try {
      const pem = Buffer.from(request.spec.request, 'base64').toString('utf8');
      certificate = await authority.sign(
        pem,
        use,
        Math.min((request.spec.expirationSeconds ?? 31_536_000) * 1000, 365 * dayMs),
      );
    } catch (error) {
      log.warn('a certificate request could not be signed', { request: name, error });
      conditions.push(condition('Failed', 'SigningFailed', describeError(error)));
    }
    if (!registry.collectionOf(kind).get(undefined, name)) continue;
    registry.update(kind, undefined, name, { ...context, part: 'status' }, (current) => ({
      ...current,
      status: { conditions, ...(certificate ? { certificate: Buffer.from(certificate).toString('base64') } : {}) },
    }));
  }
}
