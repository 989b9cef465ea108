// A certificate authority for tests: makes client and serving certificates in memory.
import { makeAuthority, makeLeaf } from '../../lib/certificates.ts';

export interface Pair {
  readonly certificate: string;
  readonly key: string;
}

export interface Authority {
  readonly bundle: string;
  /** Valid from an hour ago until `validMs` from now. */
  issue(
    user: { name: string; groups?: readonly string[] },
    options?: { usage?: 'client' | 'server'; validMs?: number; hosts?: string[] },
  ): Promise<Pair>;
}

export async function createAuthority(name: string): Promise<Authority> {
  const until = (validMs: number) => ({
    notBefore: new Date(Date.now() - 3600_000),
    notAfter: new Date(Date.now() + validMs),
  });
  const authority = await makeAuthority(name, until(24 * 3600_000));
  return {
    bundle: authority.certPem,
    async issue(user, { usage: use = 'client', validMs = 3600_000, hosts = [] } = {}) {
      const { certPem, keyPem } = await makeLeaf({ ...user, use, hosts, ...until(validMs) }, authority);
      return { certificate: certPem, key: keyPem };
    },
  };
}
