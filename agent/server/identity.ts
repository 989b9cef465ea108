// Who is asking: a client certificate, a bearer token reviewed by the API server, or, where the configuration allows it, anybody.
// Order and outcome are the kubelet's: the first that knows the caller decides; bad credentials are refused even where anonymous is on.
import { createHash, X509Certificate } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { TLSSocket } from 'node:tls';
import type { Clock } from '../../lib/clock.ts';
import { createExpiringCache } from '../../lib/expiring-cache.ts';
import type { Log } from '../../lib/log.ts';
import type { KubeClient } from '../../kube/client.ts';
import { resources } from '../../kube/resources.ts';
import { type ClientCa, distrust } from '../tls/client-ca.ts';
import { offeredProtocols } from './web-socket.ts';

export interface User {
  readonly name: string;
  readonly uid: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

export interface IdentityDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Absent: tokens cannot be reviewed. */
  readonly client?: KubeClient | undefined;
  /** Absent: client certificates are not looked at. */
  readonly clientCa?: ClientCa | undefined;
}

export interface IdentityOptions {
  readonly anonymous: boolean;
  /** `authentication.webhook.enabled`. */
  readonly webhook: boolean;
  /** `authentication.webhook.cacheTTL`. Default 2 minutes. */
  readonly tokenTtlMs?: number;
}

export interface Identity {
  /** Undefined: answer 401. */
  identify(request: IncomingMessage, signal: AbortSignal): Promise<User | undefined>;
}

type Verdict = User | 'refused' | 'no-credentials';

const everybody = 'system:authenticated';
const anonymousUser: User = { name: 'system:anonymous', uid: '', groups: ['system:unauthenticated'], extra: {} };

const authenticated = (user: User): User =>
  user.groups.includes(everybody) ? user : { ...user, groups: [...user.groups, everybody] };

/** CN is the user, each O a group. Undefined where there is no CN. */
export function userOfSubject(
  subject: { CN?: string | string[]; O?: string | string[] } | undefined,
): User | undefined {
  const name = [subject?.CN ?? []].flat().at(-1);
  if (!name) return undefined;
  return { name, uid: '', groups: [subject?.O ?? []].flat(), extra: {} };
}

/** The bearer token of an Authorization header; undefined where there is none. */
export function bearerToken(header: string | undefined): string | undefined {
  const [scheme = '', token = ''] = (header ?? '').trim().split(/ +/, 2);
  return scheme.toLowerCase() === 'bearer' && token !== '' ? token : undefined;
}

/** A token that came as a WebSocket subprotocol, as browsers must send it. */
export function webSocketToken(protocols: string | undefined): string | undefined {
  const prefix = 'base64url.bearer.authorization.k8s.io.';
  const encoded = offeredProtocols(protocols)
    .find((protocol) => protocol.startsWith(prefix))
    ?.slice(prefix.length);
  return encoded ? Buffer.from(encoded, 'base64url').toString('utf8') : undefined;
}

interface Shown {
  readonly chain: readonly X509Certificate[];
  readonly user: User | undefined;
}

/** What the client showed at the handshake; parsed once for each connection. */
function shownBy(socket: TLSSocket): Shown | undefined {
  const peer = socket.getPeerCertificate(true);
  if (!peer?.raw) return undefined;
  const chain: X509Certificate[] = [];
  for (let at = peer; at?.raw && chain.length < 8; at = at.issuerCertificate) {
    chain.push(new X509Certificate(at.raw));
    if (at.issuerCertificate === at) break;
  }
  return { chain, user: userOfSubject(peer.subject as { CN?: string | string[]; O?: string | string[] }) };
}

export function createIdentity(deps: IdentityDeps, options: IdentityOptions): Identity {
  const { clock, log, client, clientCa } = deps;
  const ttlMs = options.tokenTtlMs ?? 120_000;
  const tokens = createExpiringCache<Verdict>(clock, 4096);
  const reviews = new Map<string, Promise<Verdict>>();
  const shown = new WeakMap<TLSSocket, { value: Shown | undefined }>();

  const byCertificate = (socket: unknown): Verdict => {
    if (!clientCa || !(socket instanceof TLSSocket)) return 'no-credentials';
    let entry = shown.get(socket);
    if (!entry) {
      entry = { value: shownBy(socket) };
      shown.set(socket, entry);
    }
    const { value } = entry;
    if (!value) return 'no-credentials';
    const why = socket.authorized
      ? distrust(value.chain, clientCa.roots(), clock.now())
      : `verification failed: ${socket.authorizationError}`;
    if (why !== undefined) {
      log.debug('a client certificate was not accepted', { subject: value.user?.name ?? '', why });
      return 'refused';
    }
    return value.user ?? 'no-credentials';
  };

  const review = async (token: string, reviewer: KubeClient): Promise<Verdict> => {
    const answer = await reviewer.create(
      resources.tokenReviews,
      { apiVersion: 'authentication.k8s.io/v1', kind: 'TokenReview', metadata: { name: '' }, spec: { token } },
      { timeoutMs: 10_000 },
    );
    const user = answer.status?.user;
    if (!answer.status?.authenticated || !user?.username) return 'refused';
    return { name: user.username, uid: user.uid ?? '', groups: user.groups ?? [], extra: user.extra ?? {} };
  };

  const byToken = async (token: string, reviewer: KubeClient): Promise<Verdict> => {
    const key = createHash('sha256').update(token).digest('base64');
    const known = tokens.get(key);
    if (known) return known;
    // Many requests with one token ask once.
    let asked = reviews.get(key);
    if (!asked) {
      asked = review(token, reviewer)
        .then((verdict) => {
          tokens.set(key, verdict, ttlMs);
          return verdict;
        })
        .finally(() => reviews.delete(key));
      reviews.set(key, asked);
    }
    return await asked;
  };

  return {
    async identify(request, signal) {
      const certificate = byCertificate(request.socket);
      if (typeof certificate === 'object') return authenticated(certificate);
      const token =
        bearerToken(request.headers.authorization) ?? webSocketToken(request.headers['sec-websocket-protocol']);
      // Who reviews no tokens does not look at them either: the caller is whoever they would be without.
      if (token !== undefined && client && options.webhook) {
        try {
          const verdict = await byToken(token, client);
          signal.throwIfAborted();
          return typeof verdict === 'object' ? authenticated(verdict) : undefined;
        } catch (error) {
          signal.throwIfAborted();
          log.warn('the API server did not review a token; the request is refused', { error });
          return undefined;
        }
      }
      return certificate === 'no-credentials' && options.anonymous ? anonymousUser : undefined;
    },
  };
}
