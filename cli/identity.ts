// The node's identity towards the API server: its kubeconfig, made by TLS bootstrap where there is none or it expired, and a client
// certificate that is renewed in time.
import { join } from 'node:path';
import { bootstrapClient, withRotatedCertificate } from '../agent/tls/bootstrap.ts';
import { createCertificateMetrics } from '../agent/server/certificate-metrics.ts';
import { createCertificateStore } from '../agent/tls/certificate-store.ts';
import { createRotation } from '../agent/tls/rotation.ts';
import { clientSigner, requestCertificate } from '../agent/tls/signing-request.ts';
import type { KubeClient } from '../kube/client.ts';
import type { ClientConfig } from '../kube/client-config.ts';
import { createKubeClient } from '../kube/http-client.ts';
import { loadKubeconfig } from '../kube/kubeconfig.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { MetricsRegistry } from '../lib/metrics.ts';

export interface IdentityDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Where the certificate that is kept young is shown. */
  readonly registry?: MetricsRegistry;
}

export interface IdentityOptions {
  readonly nodeName: string;
  readonly kubeconfig: string;
  /** Empty: there is none, and the kubeconfig has to be good. */
  readonly bootstrapKubeconfig: string;
  readonly certDir: string;
  /** `rotateCertificates` of the KubeletConfiguration. */
  readonly rotate: boolean;
  /** Tries of the bootstrap before giving up; default: for ever. */
  readonly attempts?: number;
}

export interface Identity {
  readonly config: ClientConfig;
  /** Keeps the client certificate young, until the signal aborts; undefined where it is not to be, or there is none. */
  readonly rotate: ((client: KubeClient, signal: AbortSignal) => Promise<void>) | undefined;
}

export async function openIdentity(
  deps: IdentityDeps,
  options: IdentityOptions,
  signal: AbortSignal,
): Promise<Identity> {
  const { clock, log } = deps;
  const { nodeName, kubeconfig } = options;
  const store = createCertificateStore({
    folder: options.certDir || join('/var/lib/kubelet', 'pki'),
    name: 'kubelet-client',
  });
  if (options.bootstrapKubeconfig !== '')
    await bootstrapClient(
      { clock, log, store, connect: (config) => createKubeClient({ clock, log }, config) },
      {
        nodeName,
        kubeconfig,
        bootstrapKubeconfig: options.bootstrapKubeconfig,
        ...(options.attempts === undefined ? {} : { attempts: options.attempts }),
      },
      signal,
    );
  const config = await loadKubeconfig(kubeconfig);
  if (!options.rotate || !config.clientCertificate) return { config, rotate: undefined };
  return {
    config: await withRotatedCertificate(config, store, clock.now()),
    async rotate(client, end) {
      const { registry } = deps;
      const counted =
        registry &&
        createCertificateMetrics(registry, {
          what: 'client',
          nowMs: () => clock.now(),
          expiresAtMs: (): number | undefined => rotation.expiresAtMs(),
        });
      const rotation = createRotation(
        {
          clock,
          log,
          store,
          counted,
          request: (inner) => requestCertificate({ client, clock, log }, { nodeName, signer: clientSigner }, inner),
        },
        'client',
      );
      await rotation.run(end);
    },
  };
}
