// The cluster's certificate authority: its own certificate, and those of users and of the server.
import { join } from 'node:path';
import { type KeyPair, makeAuthority, makeLeaf } from '../lib/certificates.ts';
import type { Clock } from '../lib/clock.ts';
import { readFileIfThere, writeFileAtomic } from '../lib/files.ts';

const yearMs = 365 * 24 * 3_600_000;

/** Its key also signs service-account tokens (ES256). It is kept in the folder, where one is named. */
export async function createAuthority({ clock }: { readonly clock: Clock }, dataDir?: string) {
  const valid = (years: number) => ({
    notBefore: new Date(clock.now() - 3_600_000),
    notAfter: new Date(clock.now() + years * yearMs),
  });
  const paths = dataDir ? { cert: join(dataDir, 'ca.crt'), key: join(dataDir, 'ca.key') } : undefined;
  const certPem = paths && (await readFileIfThere(paths.cert));
  const keyPem = paths && (await readFileIfThere(paths.key));
  const own = certPem && keyPem ? { certPem, keyPem } : await makeAuthority('stevedore-devcluster', valid(10));
  if (paths && own.certPem !== certPem) {
    await writeFileAtomic(paths.key, own.keyPem, 0o600);
    await writeFileAtomic(paths.cert, own.certPem);
  }
  return {
    ...own,
    issueClient: (name: string, groups: readonly string[]): Promise<KeyPair> =>
      makeLeaf({ name, groups, use: 'client', ...valid(1) }, own),
    issueServer: (name: string, hosts: readonly string[]): Promise<KeyPair> =>
      makeLeaf({ name, use: 'server', hosts, ...valid(1) }, own),
  };
}
