// Service-account tokens (JWTs signed with the authority's key) and bootstrap tokens: made and read.
import { createHash, createPrivateKey, createPublicKey, randomUUID, sign, verify } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import type { Pod } from '../kube/types/pod.ts';
import type { User } from './registry.ts';

export interface TokenSubject {
  readonly namespace: string;
  readonly serviceAccount: { readonly name: string; readonly uid: string };
  readonly boundTo?: { readonly kind: 'Pod' | 'Secret' | 'Node'; readonly name: string; readonly uid: string };
  readonly node?: { readonly name: string; readonly uid: string };
}

export interface TokenDeps {
  readonly clock: Clock;
  find(
    kind: 'ServiceAccount' | 'Pod' | 'Secret' | 'Node',
    namespace: string | undefined,
    name: string,
  ): KubeObject | undefined;
}

export interface Tokens {
  issue(subject: TokenSubject, audiences: readonly string[], seconds: number): string;
  /** Undefined where the token is none of ours, has ended, or what it is bound to is gone. */
  authenticate(token: string, audiences?: readonly string[]): { user: User; audiences: string[] } | undefined;
  /** The signing key as a JSON Web Key Set. */
  jwks(): unknown;
}

interface Claims {
  iss: string;
  sub: string;
  aud: string[];
  exp: number;
  nbf: number;
  jti: string;
  'kubernetes.io': {
    namespace: string;
    serviceaccount: { name: string; uid: string };
    pod?: { name: string; uid: string };
    secret?: { name: string; uid: string };
    node?: { name: string; uid: string };
  };
}

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

export const issuer = 'https://kubernetes.default.svc.cluster.local';

export function createTokens(deps: TokenDeps, keyPem: string): Tokens {
  const privateKey = createPrivateKey(keyPem);
  const publicKey = createPublicKey(privateKey);
  const kid = createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64url');
  const header = encode({ alg: 'ES256', kid });

  const read = (token: string): Claims | undefined => {
    const [head, body, signature, ...rest] = token.split('.');
    if (!head || !body || !signature || rest.length > 0) return undefined;
    const key = { key: publicKey, dsaEncoding: 'ieee-p1363' as const };
    if (!verify('sha256', Buffer.from(`${head}.${body}`), key, Buffer.from(signature, 'base64url'))) return undefined;
    return JSON.parse(Buffer.from(body, 'base64url').toString('utf8')) as Claims;
  };

  const stillThere = (claims: Claims): boolean => {
    const { namespace, serviceaccount, pod, secret, node } = claims['kubernetes.io'];
    const same = (
      kind: 'ServiceAccount' | 'Pod' | 'Secret' | 'Node',
      where: string | undefined,
      ref: { name: string; uid: string } | undefined,
    ) => !ref || deps.find(kind, where, ref.name)?.metadata.uid === ref.uid;
    return (
      same('ServiceAccount', namespace, serviceaccount) &&
      same('Pod', namespace, pod) &&
      same('Secret', namespace, secret) &&
      (pod !== undefined || same('Node', undefined, node))
    );
  };

  return {
    issue(subject, audiences, seconds) {
      const now = Math.floor(deps.clock.now() / 1000);
      const { boundTo, node } = subject;
      const claims: Claims & { iat: number } = {
        aud: [...audiences],
        exp: now + seconds,
        iat: now,
        iss: issuer,
        jti: randomUUID(),
        'kubernetes.io': {
          namespace: subject.namespace,
          ...(node ? { node } : {}),
          ...(boundTo ? { [boundTo.kind.toLowerCase()]: { name: boundTo.name, uid: boundTo.uid } } : {}),
          serviceaccount: { name: subject.serviceAccount.name, uid: subject.serviceAccount.uid },
        },
        nbf: now,
        sub: `system:serviceaccount:${subject.namespace}:${subject.serviceAccount.name}`,
      };
      const text = `${header}.${encode(claims)}`;
      const signature = sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding: 'ieee-p1363' });
      return `${text}.${signature.toString('base64url')}`;
    },
    authenticate(token, audiences = [issuer]) {
      let claims: Claims | undefined;
      try {
        claims = read(token);
      } catch {
        return undefined;
      }
      const now = deps.clock.now() / 1000;
      if (!claims || claims.iss !== issuer || claims.exp < now || claims.nbf > now + 60) return undefined;
      const matching = claims.aud.filter((audience) => audiences.includes(audience));
      if (matching.length === 0 || !stillThere(claims)) return undefined;
      const { namespace, serviceaccount, pod, node } = claims['kubernetes.io'];
      const extra: Record<string, string[]> = { 'authentication.kubernetes.io/credential-id': [`JTI=${claims.jti}`] };
      if (pod) {
        extra['authentication.kubernetes.io/pod-name'] = [pod.name];
        extra['authentication.kubernetes.io/pod-uid'] = [pod.uid];
      }
      if (node) {
        extra['authentication.kubernetes.io/node-name'] = [node.name];
        extra['authentication.kubernetes.io/node-uid'] = [node.uid];
      }
      return {
        audiences: matching,
        user: {
          name: claims.sub,
          uid: serviceaccount.uid,
          groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
          extra,
        },
      };
    },
    jwks: () => ({ keys: [{ ...publicKey.export({ format: 'jwk' }), use: 'sig', kid, alg: 'ES256' }] }),
  };
}

/** What a token for this pod is bound to. */
export const podBinding = (pod: Pod): Pick<TokenSubject, 'boundTo'> => ({
  boundTo: { kind: 'Pod', name: pod.metadata.name, uid: pod.metadata.uid! },
});
