// Who is asking: by client certificate, service-account token, bootstrap token, or nobody.
import { timingSafeEqual } from 'node:crypto';
import type { TLSSocket } from 'node:tls';
import type { Clock } from '../lib/clock.ts';
import type { Secret } from '../kube/types/core.ts';
import type { User } from './registry.ts';
import type { Tokens } from './tokens.ts';

export interface AuthenticateDeps {
  readonly clock: Clock;
  readonly tokens: Tokens;
  secret(namespace: string, name: string): Secret | undefined;
}

export const anonymous: User = { name: 'system:anonymous', groups: ['system:unauthenticated'] };

/** Undefined: the credentials are wrong, which is another thing than none. */
export type Authenticate = (
  socket: TLSSocket,
  authorization: string | undefined,
  impersonate: Impersonation,
) => User | undefined;

export interface Impersonation {
  readonly user: string | undefined;
  readonly groups: readonly string[];
}

export function createAuthenticate(deps: AuthenticateDeps): Authenticate {
  const known = new WeakMap<TLSSocket, User | null>();
  const byCertificate = (socket: TLSSocket): User | undefined => {
    const cached = known.get(socket);
    if (cached !== undefined) return cached ?? undefined;
    const user = socket.authorized ? userOfCertificate(socket) : undefined;
    known.set(socket, user ?? null);
    return user;
  };
  return (socket, authorization, impersonate) => {
    const bearer = authorization?.match(/^Bearer\s+(.+)$/i)?.[1];
    const user = byCertificate(socket) ?? (bearer ? authenticateToken(deps, bearer) : anonymous);
    if (!user || !impersonate.user || !user.groups.includes('system:masters')) return user;
    return { name: impersonate.user, groups: [...impersonate.groups, 'system:authenticated'] };
  };
}

function userOfCertificate(socket: TLSSocket): User | undefined {
  const { subject } = socket.getPeerCertificate();
  if (!subject?.CN) return undefined;
  const organizations: string | string[] | undefined = subject.O;
  const groups = organizations === undefined ? [] : [organizations].flat();
  return { name: String(subject.CN), groups: [...groups, 'system:authenticated'] };
}

export function authenticateToken(deps: AuthenticateDeps, token: string): User | undefined {
  return deps.tokens.authenticate(token)?.user ?? bootstrapUser(deps, token);
}

const decode = (secret: Secret, key: string): string =>
  Buffer.from(secret.data?.[key] ?? '', 'base64').toString('utf8');

function bootstrapUser(deps: AuthenticateDeps, token: string): User | undefined {
  const [, id, given] = /^([a-z0-9]{6})\.([a-z0-9]{16})$/.exec(token) ?? [];
  const secret = id && deps.secret('kube-system', `bootstrap-token-${id}`);
  if (!secret || !given || secret.type !== 'bootstrap.kubernetes.io/token') return undefined;
  const right = Buffer.from(decode(secret, 'token-secret'));
  const asked = Buffer.from(given);
  if (right.length !== asked.length || !timingSafeEqual(right, asked)) return undefined;
  const expiry = decode(secret, 'expiration');
  if (expiry && Date.parse(expiry) < deps.clock.now()) return undefined;
  if (decode(secret, 'usage-bootstrap-authentication') !== 'true') return undefined;
  const more = decode(secret, 'auth-extra-groups')
    .split(',')
    .filter((group) => group !== '');
  return { name: `system:bootstrap:${id}`, groups: ['system:bootstrappers', ...more, 'system:authenticated'] };
}
