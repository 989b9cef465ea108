// The serving certificate of :10250 by request to the cluster (serverTLSBootstrap). Until it is approved the fallback is shown; afterwards
// each rotation, and each change of the node's addresses, brings another.
import { X509Certificate } from 'node:crypto';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { NodeAddress } from '../../kube/types/core.ts';
import { type CertificateStore, validityOf } from './certificate-store.ts';
import { createRotation, type RotationDeps } from './rotation.ts';
import type { CertificateAndKey, ServingCertificate } from './serving.ts';
import { requestCertificate, servingSigner } from './signing-request.ts';

export interface ServingByCsrDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  readonly store: CertificateStore;
  /** The node's addresses as its status has them; empty while they are unknown. */
  addresses(): readonly NodeAddress[];
  /** For metrics. */
  readonly counted?: RotationDeps['counted'];
  /** Shown until the cluster signed one. */
  readonly fallback: CertificateAndKey;
}

export interface ServingByCsr extends ServingCertificate {
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
  /** The node's addresses may have changed. */
  check(): void;
  /** When the cluster's certificate ends, in milliseconds since the epoch; undefined while there is none. */
  expiresAtMs(): number | undefined;
}

export interface ServedNames {
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
}

export const servedNames = (addresses: readonly NodeAddress[]): ServedNames => {
  const of = (...types: NodeAddress['type'][]): string[] => [
    ...new Set(addresses.filter(({ type }) => types.includes(type)).map(({ address }) => address)),
  ];
  return {
    dnsNames: of('Hostname', 'InternalDNS', 'ExternalDNS').sort(),
    ipAddresses: of('InternalIP', 'ExternalIP').sort(),
  };
};

/** True where the certificate does not name all that the node is reached by. */
export function lacksNames(certificate: string, names: ServedNames): boolean {
  const leaf = new X509Certificate(certificate);
  return (
    names.dnsNames.some((name) => leaf.checkHost(name) === undefined) ||
    names.ipAddresses.some((address) => leaf.checkIP(address) === undefined)
  );
}

export async function createServingByCsr(deps: ServingByCsrDeps, nodeName: string): Promise<ServingByCsr> {
  const { client, clock, log, store } = deps;
  const kept = await store.current();
  let current = kept && validityOf(kept).untilMs > clock.now() ? kept : deps.fallback;
  const listeners = new Set<(pair: CertificateAndKey) => void>();

  const rotation = createRotation(
    {
      clock,
      log,
      store,
      counted: deps.counted,
      outdated(pair) {
        const names = servedNames(deps.addresses());
        return names.ipAddresses.length > 0 && lacksNames(pair.certificate, names);
      },
      async request(signal) {
        const names = servedNames(deps.addresses());
        if (names.ipAddresses.length === 0 && names.dnsNames.length === 0)
          throw new Error('the node has no addresses yet');
        return requestCertificate({ client, clock, log }, { nodeName, signer: servingSigner, ...names }, signal);
      },
      onRotated(pair) {
        current = pair;
        for (const listener of listeners) listener(pair);
      },
    },
    'serving',
  );

  return {
    current: () => current,
    check: rotation.check,
    expiresAtMs: rotation.expiresAtMs,
    run: rotation.run,
    async *changes(signal) {
      const queue: CertificateAndKey[] = [];
      let wake: (() => void) | undefined;
      const listener = (pair: CertificateAndKey): void => {
        queue.push(pair);
        wake?.();
      };
      const onAbort = (): void => wake?.();
      listeners.add(listener);
      signal.addEventListener('abort', onAbort, { once: true });
      try {
        while (!signal.aborted) {
          const next = queue.shift();
          if (next) yield next;
          else
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
        }
      } finally {
        listeners.delete(listener);
        signal.removeEventListener('abort', onAbort);
      }
    },
  };
}
