// Who is asking: by client certificate, service-account token, or nobody.
import type { TLSSocket } from 'node:tls';
import type { User } from './authorize.ts';
import type { Tokens } from './tokens.ts';

const anonymous: User = { name: 'system:anonymous', groups: ['system:unauthenticated'] };

/** Undefined: the credentials are wrong, which is another thing than none. */
export type Authenticate = (
  socket: TLSSocket,
  authorization: string | undefined,
  impersonate: { readonly user: string | undefined; readonly groups: readonly string[] },
) => User | undefined;

export function createAuthenticate({ tokens }: { readonly tokens: Tokens }): Authenticate {
  const known = new WeakMap<TLSSocket, User | null>();
  return (socket, authorization, impersonate) => {
    const certified = known.get(socket) ?? (socket.authorized ? userOfCertificate(socket) : null);
    known.set(socket, certified);
    const bearer = authorization?.match(/^Bearer\s+(.+)$/i)?.[1];
    const user = certified ?? (bearer ? tokens.authenticate(bearer)?.user : anonymous);
    if (!user || !impersonate.user || !user.groups.includes('system:masters')) return user;
    return { name: impersonate.user, groups: [...impersonate.groups, 'system:authenticated'] };
  };
}

function userOfCertificate(socket: TLSSocket): User | null {
  const { CN: name, O: groups = [] } = socket.getPeerCertificate().subject ?? {};
  return name ? { name: String(name), groups: [...[groups].flat(), 'system:authenticated'] } : null;
}
