// A node's first identity: with the bootstrap kubeconfig's token a client certificate is asked for, and the node's own kubeconfig is written
// around it. Nothing is done where a kubeconfig stands whose certificate still holds; one that expired while the host was off is replaced.
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { Clock } from '../../lib/clock.ts';
import { readFileIfThere, writeFileAtomic } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import { isTimeout } from '../../lib/abort.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { ClientConfig, Pem } from '../../kube/client-config.ts';
import { ApiError } from '../../kube/errors.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { renderKubeconfig } from '../../kube/render-kubeconfig.ts';
import { createBackoff } from '../../lib/backoff.ts';
import { type CertificateStore, parsePair, validityOf } from './certificate-store.ts';
import { clientSigner, requestCertificate, SigningError } from './signing-request.ts';

export interface BootstrapDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly store: CertificateStore;
  connect(config: ClientConfig): KubeClient;
}

export interface BootstrapOptions {
  readonly nodeName: string;
  /** The node's own; written here. */
  readonly kubeconfig: string;
  readonly bootstrapKubeconfig: string;
  /** Give up after so many refusals by the server; default: never, for a daemon that may be started before its token is. */
  readonly attempts?: number;
}

const textOf = async (pem: Pem | undefined): Promise<string> =>
  pem === undefined ? '' : pem.from === 'data' ? pem.pem : ((await readFileIfThere(pem.path)) ?? '');

/** Why the kubeconfig's identity cannot be used now; undefined where it can. */
export async function refuseIdentity(config: ClientConfig, nowMs: number): Promise<string | undefined> {
  if (config.token || config.tokenFile || config.exec || config.username) return undefined;
  const text = await textOf(config.clientCertificate);
  if (text === '') return 'its client certificate is not there';
  try {
    const until = Date.parse(new X509Certificate(text).validTo);
    return until <= nowMs ? `its client certificate expired on ${new Date(until).toISOString()}` : undefined;
  } catch {
    return 'its client certificate is not a certificate';
  }
}

/** Rejects with the last error where `attempts` are used up; a request that was denied is not asked for again. */
export async function bootstrapClient(
  deps: BootstrapDeps,
  options: BootstrapOptions,
  signal: AbortSignal,
): Promise<void> {
  const { clock, log, store } = deps;
  const present = await loadKubeconfig(options.kubeconfig).catch(() => undefined);
  if (present) {
    const wrong = await refuseIdentity(present, clock.now());
    if (wrong === undefined) return;
    log.warn('the kubeconfig cannot be used; asking for a new client certificate', {
      kubeconfig: options.kubeconfig,
      because: wrong,
    });
  }
  const config = await loadKubeconfig(options.bootstrapKubeconfig);
  // Both are in one file.
  const pair = { from: 'file', path: store.currentPath } as const;
  const write = (): Promise<void> =>
    writeFileAtomic(
      options.kubeconfig,
      renderKubeconfig({
        cluster: 'default-cluster',
        server: config.server,
        certificateAuthority: config.certificateAuthority,
        tlsServerName: config.tlsServerName,
        user: 'default-auth',
        client: { certificate: pair, key: pair },
      }),
      0o600,
    );
  const kept = await store.current();
  if (kept && validityOf(kept).untilMs > clock.now()) return write();
  const client = deps.connect(config);
  const backoff = createBackoff({ initialMs: 1000, maxMs: 30_000 });
  try {
    for (let attempt = 1; ; attempt++) {
      try {
        const request = { nodeName: options.nodeName, signer: clientSigner } as const;
        await store.update(await requestCertificate({ client, clock, log }, request, signal), clock.now());
        return await write();
      } catch (error) {
        signal.throwIfAborted();
        const known = error instanceof ApiError || error instanceof SigningError || isTimeout(error);
        if (!known || error instanceof SigningError || attempt >= (options.attempts ?? Number.POSITIVE_INFINITY))
          throw error;
        const retryInMs = backoff.next('request', clock.now());
        log.warn('no client certificate yet; trying again', { server: config.server, error, retryInMs });
        await clock.sleep(retryInMs, signal);
      }
    }
  } finally {
    await client.close();
  }
}

/**
 * The client's configuration with the certificate that rotation keeps: files, so that the connection follows each new one. A certificate
 * the kubeconfig holds itself is put into the store first.
 */
export async function withRotatedCertificate(
  config: ClientConfig,
  store: CertificateStore,
  nowMs: number,
): Promise<ClientConfig> {
  const { clientCertificate, clientKey } = config;
  if (!clientCertificate || !clientKey) return config;
  const kept = await store.current();
  if (!kept || validityOf(kept).untilMs <= nowMs) {
    const own = parsePair(`${await textOf(clientCertificate)}\n${await textOf(clientKey)}`);
    if (!own) return config;
    if (!(clientCertificate.from === 'file' && (await sameFile(clientCertificate.path, store.currentPath))))
      await store.update(own, nowMs);
  }
  const pem: Pem = { from: 'file', path: store.currentPath };
  return { ...config, clientCertificate: pem, clientKey: pem };
}

const sameFile = async (a: string, b: string): Promise<boolean> =>
  a === b || (await readFile(a, 'utf8').catch(() => 'a')) === (await readFile(b, 'utf8').catch(() => 'b'));
