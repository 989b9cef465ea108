// Service-account tokens: JWTs signed with the authority's key, made and read.
import { createPrivateKey, createPublicKey, randomUUID, sign, verify } from 'node:crypto';
import type { Clock } from '../lib/clock.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import type { User } from './authorize.ts';

interface Named {
  readonly name: string;
  readonly uid: string;
}

export interface TokenSubject {
  readonly namespace: string;
  readonly serviceAccount: Named;
  readonly boundTo?: Named & { readonly kind: 'Pod' | 'Secret' | 'Node' };
  readonly node?: Named;
}

export interface TokenDeps {
  readonly clock: Clock;
  find(plural: string, namespace: string | undefined, name: string): KubeObject | undefined;
}

export type Tokens = ReturnType<typeof createTokens>;

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

export const issuer = 'https://kubernetes.default.svc.cluster.local';
const dsaEncoding = 'ieee-p1363';

function claimsOf(
  { namespace, serviceAccount, boundTo, node }: TokenSubject,
  aud: readonly string[],
  iat: number,
  exp: number,
) {
  const bound: { pod?: Named; secret?: Named; node?: Named } = node ? { node } : {};
  if (boundTo) Object.assign(bound, { [boundTo.kind.toLowerCase()]: { name: boundTo.name, uid: boundTo.uid } });
  const sub = `system:serviceaccount:${namespace}:${serviceAccount.name}`;
  const own = { namespace, ...bound, serviceaccount: serviceAccount };
  return { aud, exp, iat, iss: issuer, jti: randomUUID(), 'kubernetes.io': own, nbf: iat, sub };
}

type Claims = ReturnType<typeof claimsOf>;

export function createTokens({ clock, find }: TokenDeps, keyPem: string) {
  const privateKey = createPrivateKey(keyPem);
  const publicKey = createPublicKey(privateKey);
  const header = encode({ alg: 'ES256' });

  const read = (token: string): Claims | undefined => {
    const [head, body, signature] = token.split('.');
    if (!head || !body || !signature) return undefined;
    const key = { key: publicKey, dsaEncoding } as const;
    if (!verify('sha256', Buffer.from(`${head}.${body}`), key, Buffer.from(signature, 'base64url'))) return undefined;
    return JSON.parse(Buffer.from(body, 'base64url').toString('utf8')) as Claims;
  };

  const stillThere = ({ namespace, serviceaccount, pod, secret, node }: Claims['kubernetes.io']): boolean => {
    const same = (plural: string, ref: Named | undefined, where?: string): boolean =>
      !ref || find(plural, where, ref.name)?.metadata.uid === ref.uid;
    const bound = same('pods', pod, namespace) && same('secrets', secret, namespace);
    return same('serviceaccounts', serviceaccount, namespace) && bound && (pod !== undefined || same('nodes', node));
  };

  return {
    issue(subject: TokenSubject, audiences: readonly string[], seconds: number): string {
      const now = Math.floor(clock.now() / 1000);
      const text = `${header}.${encode(claimsOf(subject, audiences, now, now + seconds))}`;
      return `${text}.${sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding }).toString('base64url')}`;
    },
    /** Undefined where the token is none of ours, has ended, or what it is bound to is gone. */
    authenticate(
      token: string,
      audiences: readonly string[] = [issuer],
    ): { user: User; audiences: string[] } | undefined {
      const claims = read(token);
      const now = clock.now() / 1000;
      if (!claims || claims.iss !== issuer || claims.exp < now || claims.nbf > now + 60) return undefined;
      const matching = claims.aud.filter((audience) => audiences.includes(audience));
      const bound = claims['kubernetes.io'];
      if (matching.length === 0 || !stillThere(bound)) return undefined;
      const extra: Record<string, string[]> = { 'authentication.kubernetes.io/credential-id': [`JTI=${claims.jti}`] };
      for (const kind of ['pod', 'node'] as const)
        for (const field of ['name', 'uid'] as const)
          if (bound[kind]) extra[`authentication.kubernetes.io/${kind}-${field}`] = [bound[kind][field]];
      const groups = ['system:serviceaccounts', `system:serviceaccounts:${bound.namespace}`, 'system:authenticated'];
      return { audiences: matching, user: { name: claims.sub, uid: bound.serviceaccount.uid, groups, extra } };
    },
  };
}
