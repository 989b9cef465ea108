// Service-account tokens: JWTs signed with the authority's key, made and read.
import { createPrivateKey, createPublicKey, randomUUID, sign, verify } from 'node:crypto';
import type { KubeObject } from '../kube/types/meta.ts';
import type { Clock } from '../lib/clock.ts';
import type { User } from './authorize.ts';

interface Named {
  readonly name: string;
  readonly uid: string;
}

/** As it stands in the token, under `kubernetes.io`. */
export interface TokenSubject {
  readonly namespace: string;
  readonly serviceaccount: Named;
  readonly pod?: Named;
  readonly node?: Named;
}

interface Claims {
  readonly aud: readonly string[];
  readonly exp: number;
  readonly iss: string;
  readonly jti: string;
  readonly sub: string;
  readonly 'kubernetes.io': TokenSubject;
}

export interface TokenDeps {
  readonly clock: Clock;
  find(plural: string, namespace: string | undefined, name: string): KubeObject | undefined;
}

export type Tokens = ReturnType<typeof createTokens>;

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString('base64url');

export const issuer = 'https://kubernetes.default.svc.cluster.local';
const dsaEncoding = 'ieee-p1363';

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

  const stillThere = ({ namespace, serviceaccount, pod }: TokenSubject): boolean => {
    const same = (plural: string, ref: Named): boolean => find(plural, namespace, ref.name)?.metadata.uid === ref.uid;
    return same('serviceaccounts', serviceaccount) && (!pod || same('pods', pod));
  };

  return {
    issue(subject: TokenSubject, aud: readonly string[], seconds: number): string {
      const iat = Math.floor(clock.now() / 1000);
      const sub = `system:serviceaccount:${subject.namespace}:${subject.serviceaccount.name}`;
      const times = { iat, nbf: iat, exp: iat + seconds };
      const claims = { ...times, aud, iss: issuer, jti: randomUUID(), sub, 'kubernetes.io': subject };
      const text = `${header}.${encode(claims)}`;
      return `${text}.${sign('sha256', Buffer.from(text), { key: privateKey, dsaEncoding }).toString('base64url')}`;
    },
    /** Undefined where the token is none of ours, has ended, or what it is bound to is gone. */
    authenticate(
      token: string,
      audiences: readonly string[] = [issuer],
    ): { user: User; audiences: string[] } | undefined {
      const claims = read(token);
      if (!claims || claims.iss !== issuer || claims.exp < clock.now() / 1000) return undefined;
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
