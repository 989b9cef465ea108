// Service account tokens for pods: asked of the API server once, kept, and made anew well before they expire.

import type { KubeClient } from '../../kube/client.ts';
import { isForbidden, isNotFound } from '../../kube/errors.ts';
import { type Resource, resources } from '../../kube/resources.ts';
import type { TokenRequest } from '../../kube/types/core.ts';
import type { Clock } from '../../lib/clock.ts';
import { describeError, type Log } from '../../lib/log.ts';

export interface TokenWish {
  readonly namespace: string;
  readonly serviceAccount: string;
  /** Empty: the API server's own. */
  readonly audiences: readonly string[];
  readonly expirationSeconds: number;
  readonly pod: { readonly name: string; readonly uid: string };
}

export interface Token {
  readonly token: string;
  readonly expiresAtMs: number;
  /** When a new one is due: at 80 % of its life or after 24 hours, a little earlier at random. */
  readonly refreshAtMs: number;
}

export interface ServiceAccountTokens {
  /** A token that is not due for renewal, or, where renewing fails, one that is still valid. */
  get(wish: TokenWish, signal: AbortSignal): Promise<Token>;
  forget(podUid: string): void;
}

const maxAgeMs = 24 * 3_600_000;
const maxJitterMs = 10_000;
// The node authorizer learns of a pod's binding a moment after the node does.
const forbiddenForMs = 3_000;

export function createServiceAccountTokens(
  deps: { readonly client: KubeClient; readonly clock: Clock; readonly log: Log },
  random: () => number = Math.random,
): ServiceAccountTokens {
  const { client, clock, log } = deps;
  const cache = new Map<string, Map<string, Token>>();
  const underway = new Map<string, Promise<Token>>();

  const keyOf = (wish: TokenWish): string =>
    JSON.stringify([wish.namespace, wish.serviceAccount, wish.audiences, wish.expirationSeconds, wish.pod.uid]);

  const request = async (wish: TokenWish, signal: AbortSignal): Promise<Token> => {
    const answer = await client.create<TokenRequest>(
      resources.serviceAccounts as unknown as Resource<TokenRequest>,
      {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        metadata: { name: wish.serviceAccount, namespace: wish.namespace },
        spec: {
          // The API server gives its own audience where the list is empty.
          ...(wish.audiences.length > 0 ? { audiences: [...wish.audiences] } : {}),
          expirationSeconds: wish.expirationSeconds,
          boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name: wish.pod.name, uid: wish.pod.uid },
        },
      },
      { subresource: 'token', signal },
    );
    if (!answer.status) throw new Error('the API server answered a TokenRequest without a token');
    const expiresAtMs = Date.parse(answer.status.expirationTimestamp);
    // The server may give another life than asked for: what it says counts.
    const lifeMs = (answer.spec.expirationSeconds ?? wish.expirationSeconds) * 1000;
    const jitterMs = Math.min(maxJitterMs, lifeMs * 0.05) * random();
    const refreshAtMs = Math.min(expiresAtMs - lifeMs * 0.2, expiresAtMs - lifeMs + maxAgeMs) - jitterMs;
    return { token: answer.status.token, expiresAtMs, refreshAtMs };
  };

  const requestFirst = async (wish: TokenWish, signal: AbortSignal): Promise<Token> => {
    const until = clock.monotonicMs() + forbiddenForMs;
    for (let delayMs = 50; ; delayMs = Math.min(delayMs * 2, 800)) {
      try {
        return await request(wish, signal);
      } catch (error) {
        if (!isForbidden(error) || clock.monotonicMs() + delayMs > until) throw error;
        await clock.sleep(delayMs, signal);
      }
    }
  };

  const renew = async (wish: TokenWish, key: string, signal: AbortSignal): Promise<Token> => {
    const known = cache.get(wish.pod.uid)?.get(key);
    try {
      const token = await (known ? request : requestFirst)(wish, signal);
      const ofPod = cache.get(wish.pod.uid) ?? new Map<string, Token>();
      ofPod.set(key, token);
      cache.set(wish.pod.uid, ofPod);
      return token;
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (!known) throw new Error(`failed to fetch token: ${describeError(error)}`, { cause: error });
      if (known.expiresAtMs <= clock.now())
        throw new Error(`token expired and refresh failed: ${describeError(error)}`, { cause: error });
      const gone = isNotFound(error) || isForbidden(error);
      log.warn('a service account token could not be renewed; the old one is used while it is valid', {
        namespace: wish.namespace,
        serviceAccount: wish.serviceAccount,
        pod: wish.pod.name,
        expires: new Date(known.expiresAtMs).toISOString(),
        error,
        ...(gone ? { hint: 'the service account or the pod is gone' } : {}),
      });
      // Tried again soon, not at once.
      return { ...known, refreshAtMs: clock.now() + 10_000 };
    }
  };

  return {
    get(wish, signal) {
      const key = keyOf(wish);
      const known = cache.get(wish.pod.uid)?.get(key);
      if (known && known.refreshAtMs > clock.now()) return Promise.resolve(known);
      const running = underway.get(key);
      // The one who asked first may be cancelled; that is no reason to fail for anybody else.
      if (running)
        return running.catch((error: unknown) => (signal.aborted ? Promise.reject(error) : renew(wish, key, signal)));
      const work = renew(wish, key, signal).finally(() => underway.delete(key));
      underway.set(key, work);
      return work;
    },
    forget: (podUid) => void cache.delete(podUid),
  };
}
