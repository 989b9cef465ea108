// Finds out what cluster this is, without believing it yet: cluster-info is read over a connection nobody vouches for, its signature by the
// token and the CA's fingerprint are checked, and only then is it read again over a connection that the CA vouches for.
import { createHash, createHmac, timingSafeEqual, X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { request } from 'node:https';
import { describeError } from '../../lib/log.ts';
import { parse as parseYaml } from 'yaml';

/** What cannot be trusted or read. The message says what was attempted, what came back and what to do. */
export class DiscoveryError extends Error {
  override name = 'DiscoveryError';
}

export interface Cluster {
  readonly server: string;
  /** PEM. */
  readonly ca: string;
}

const largestSkewMs = 5 * 60_000;

const ago = (ms: number): string => {
  const minutes = Math.round(ms / 60_000);
  if (minutes < 120) return `${minutes} minutes`;
  return minutes < 48 * 60 ? `${Math.round(minutes / 60)} hours` : `${Math.round(minutes / 1440)} days`;
};

const setTheTime = 'Set the time (timedatectl set-ntp true, or date -s) and try again';

/** Rejects a clock with which certificates would not hold. `date`: the header of an answer; undefined: nobody knows. */
export function refuseSkew(date: string | undefined, nowMs: number): void {
  const skewMs = date === undefined ? 0 : Date.parse(date) - nowMs;
  if (Math.abs(skewMs) > largestSkewMs)
    throw new DiscoveryError(
      `this host's clock is ${ago(Math.abs(skewMs))} ${skewMs > 0 ? 'behind' : 'ahead of'} the API server's: certificates would not hold. ${setTheTime}`,
    );
}

/** Why a server could not be reached. A certificate out of its time is mostly a host out of its time. */
function unreachable(server: string, error: unknown, nowMs: number): DiscoveryError {
  const { code } = error as { code?: string };
  if (code === 'CERT_NOT_YET_VALID' || code === 'CERT_HAS_EXPIRED')
    return new DiscoveryError(
      `by this host's clock (${new Date(nowMs).toISOString()}) the certificate of the API server at ${server} ${code === 'CERT_HAS_EXPIRED' ? 'has expired' : 'is not valid yet'}. If the clock is wrong: ${setTheTime.toLowerCase()}`,
      { cause: error },
    );
  return new DiscoveryError(
    `the API server at ${server} cannot be reached: ${describeError(error)}. Check the address and port, and that no firewall is between`,
    { cause: error },
  );
}

export interface BootstrapToken {
  readonly id: string;
  readonly secret: string;
}

export function parseToken(text: string): BootstrapToken {
  const match = /^([a-z0-9]{6})\.([a-z0-9]{16})$/.exec(text);
  if (!match) throw new DiscoveryError(`the token is not of the form [a-z0-9]{6}.[a-z0-9]{16}`);
  return { id: match[1]!, secret: match[2]! };
}

/** `sha256:` and the hash of the certificate's public key, as kubeadm prints it. */
export const caHash = (pem: string): string =>
  `sha256:${createHash('sha256')
    .update(new X509Certificate(pem).publicKey.export({ type: 'spki', format: 'der' }))
    .digest('hex')}`;

const base64url = (data: string | Buffer): string => Buffer.from(data).toString('base64url');

/** True where the detached JWS (`header..signature`) is this token's over the content. */
export function isSignedBy(token: BootstrapToken, content: string, jws: string): boolean {
  const [header = '', , signature = ''] = jws.split('.');
  try {
    const { alg, kid } = JSON.parse(Buffer.from(header, 'base64url').toString('utf8')) as {
      alg?: string;
      kid?: string;
    };
    if (alg !== 'HS256' || kid !== token.id) return false;
  } catch {
    return false;
  }
  const wanted = createHmac('sha256', token.secret)
    .update(`${header}.${base64url(content)}`)
    .digest();
  const given = Buffer.from(signature, 'base64url');
  return given.length === wanted.length && timingSafeEqual(given, wanted);
}

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly date: string | undefined;
}

/** A GET over HTTP/1.1; `ca` undefined: whoever answers is believed. */
export function get(
  url: string,
  options: { ca?: string | undefined; token?: string | undefined; timeoutMs?: number; signal?: AbortSignal },
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const call = request(
      url,
      {
        ...(options.ca === undefined ? { rejectUnauthorized: false } : { ca: options.ca }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
        timeout: options.timeoutMs ?? 10_000,
        headers: {
          accept: 'application/json',
          'user-agent': 'stevedore',
          ...(options.token === undefined ? {} : { authorization: `Bearer ${options.token}` }),
        },
        agent: false,
      },
      (response) => {
        const parts: Buffer[] = [];
        response.on('data', (part: Buffer) => parts.push(part));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            body: Buffer.concat(parts).toString('utf8'),
            date: response.headers.date,
          }),
        );
      },
    );
    call.on('timeout', () => call.destroy(new Error(`no answer within ${options.timeoutMs ?? 10_000} ms`)));
    call.on('error', reject);
    call.end();
  });
}

interface ClusterEntry {
  readonly server: string;
  readonly ca: string;
}

/** The first cluster of a kubeconfig's text. */
function clusterOf(text: string, from: string): ClusterEntry {
  const parsed = parseYaml(text) as {
    clusters?: { cluster?: { server?: string; 'certificate-authority-data'?: string } }[];
  } | null;
  const cluster = parsed?.clusters?.[0]?.cluster;
  const data = cluster?.['certificate-authority-data'];
  if (!cluster?.server || !data) throw new DiscoveryError(`${from} names no server, or no certificate-authority-data`);
  return { server: cluster.server, ca: Buffer.from(data, 'base64').toString('utf8') };
}

const path = '/api/v1/namespaces/kube-public/configmaps/cluster-info';

async function readClusterInfo(
  origin: string,
  ca: string | undefined,
  nowMs: number,
  signal: AbortSignal,
): Promise<{ data: Record<string, string>; date: string | undefined }> {
  let answer: Answer;
  try {
    answer = await get(`${origin}${path}`, { ca, signal });
  } catch (error) {
    signal.throwIfAborted();
    throw unreachable(origin, error, nowMs);
  }
  if (answer.status === 404)
    throw new DiscoveryError(
      `${origin} has no ConfigMap cluster-info in kube-public: this cluster was not set up for joining by token; use --discovery-file`,
    );
  if (answer.status !== 200)
    throw new DiscoveryError(`${origin}${path} answered HTTP ${answer.status}: ${answer.body.slice(0, 300)}`);
  return { data: (JSON.parse(answer.body) as { data?: Record<string, string> }).data ?? {}, date: answer.date };
}

export interface TokenDiscovery {
  /** `HOST:PORT`. */
  readonly endpoint: string;
  readonly token: BootstrapToken;
  /** `sha256:…`; one of them has to be the CA's. */
  readonly caHashes: readonly string[];
  /** Believe the token's signature alone. */
  readonly skipCaVerification: boolean;
}

/** Rejects with a DiscoveryError. */
export async function discoverByToken(options: TokenDiscovery, nowMs: number, signal: AbortSignal): Promise<Cluster> {
  const { endpoint, token, caHashes } = options;
  if (caHashes.length === 0 && !options.skipCaVerification)
    throw new DiscoveryError(
      'give --discovery-token-ca-cert-hash sha256:… (kubeadm prints it), or --discovery-token-unsafe-skip-ca-verification',
    );
  const wrongHash = caHashes.find((hash) => !/^sha256:[0-9a-f]{64}$/i.test(hash));
  if (wrongHash !== undefined)
    throw new DiscoveryError(`--discovery-token-ca-cert-hash ${wrongHash} is not sha256: and 64 hexadecimal digits`);
  const origin = `https://${endpoint}`;
  const first = await readClusterInfo(origin, undefined, nowMs, signal);
  // Before anything is verified: with a wrong clock the next connection would fail for a reason that misleads.
  refuseSkew(first.date, nowMs);
  const content = first.data.kubeconfig ?? '';
  const jws = first.data[`jws-kubeconfig-${token.id}`];
  if (jws === undefined)
    throw new DiscoveryError(
      `the cluster does not know the token ${token.id}.…: it expired, was deleted, or is another cluster's. Make one with: kubeadm token create --print-join-command`,
    );
  if (!isSignedBy(token, content, jws))
    throw new DiscoveryError(`the token's secret is wrong: cluster-info is not signed by ${token.id}.…`);
  const cluster = clusterOf(content, 'cluster-info');
  const hash = caHash(cluster.ca);
  if (caHashes.length > 0 && !caHashes.some((wanted) => wanted.toLowerCase() === hash))
    throw new DiscoveryError(
      `the cluster's CA has the fingerprint ${hash}, which is none of those given: this is another cluster, or somebody is between`,
    );
  // Now over a connection that this CA vouches for: it must be the same text.
  const second = await readClusterInfo(origin, cluster.ca, nowMs, signal);
  if (second.data.kubeconfig !== content)
    throw new DiscoveryError('cluster-info was another over the verified connection: somebody may be between');
  return cluster;
}

/** A kubeconfig from a file or an https URL. */
export async function discoverByFile(
  source: string,
  signal: AbortSignal,
): Promise<Cluster & { readonly text: string }> {
  const remote = /^https:/.test(source);
  let text: string;
  try {
    if (remote) {
      const answer = await fetch(source, { signal });
      if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
      text = await answer.text();
    } else text = await readFile(source, 'utf8');
  } catch (error) {
    throw new DiscoveryError(`the discovery file ${source} cannot be read: ${describeError(error)}`, { cause: error });
  }
  return { ...clusterOf(text, `the discovery file ${source}`), text };
}

/** Asks the server whether it takes the token. Rejects with a DiscoveryError that says why it does not. */
export async function checkToken(cluster: Cluster, token: string, nowMs: number, signal: AbortSignal): Promise<void> {
  const answer = await get(`${cluster.server}/api`, { ca: cluster.ca, token, signal }).catch((error: unknown) => {
    signal.throwIfAborted();
    throw unreachable(cluster.server, error, nowMs);
  });
  refuseSkew(answer.date, nowMs);
  if (answer.status === 401)
    throw new DiscoveryError(
      'the API server does not take the token: it expired or was deleted. Make one with: kubeadm token create --print-join-command',
    );
}
