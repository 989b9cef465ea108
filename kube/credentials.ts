// Who the client is: certificates and tokens from the configuration, from files that may change, or from a program that hands them out.
import { readFile, stat } from 'node:fs/promises';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { type ClientConfig, ClientConfigError, type Pem } from './client-config.ts';
import type { TlsMaterial } from './connections.ts';
import { type ExecCredential, runExecPlugin } from './exec-credential.ts';

export interface CredentialsDeps {
  readonly clock: Clock;
  readonly log: Log;
}

export interface Credentials {
  /** What a new connection uses. */
  tls(): Promise<TlsMaterial>;
  /** The value of the Authorization header; undefined where there is none. */
  authorization(): Promise<string | undefined>;
  /** Looks, at most every few seconds, whether files or an expired credential changed what `tls` gives. */
  tlsChanged(): Promise<boolean>;
  /** The server answered 401: gets what can be got anew. False where nothing can. */
  refresh(): Promise<boolean>;
}

const checkFilesEveryMs = 5000;
const rereadTokenEveryMs = 60_000;
/** A credential is replaced this long before it expires, so that none expires on its way. */
const earlyMs = 10_000;

export function createCredentials(deps: CredentialsDeps, config: ClientConfig): Credentials {
  const { clock, log } = deps;
  const watched = [config.certificateAuthority, config.clientCertificate, config.clientKey].filter(
    (pem) => pem?.from === 'file',
  );
  let given: { credential: ExecCredential; serial: number } | undefined;
  let running: Promise<ExecCredential> | undefined;
  let token: { text: string; readAt: number } | undefined;
  let lastTls: { material: TlsMaterial; stamp: string } | undefined;
  let checkedAt = Number.NEGATIVE_INFINITY;

  const runPlugin = (): Promise<ExecCredential> => {
    running ??= runPluginOnce().finally(() => {
      running = undefined;
    });
    return running;
  };
  const runPluginOnce = async (): Promise<ExecCredential> => {
    const ca = await readPem(config, 'certificate-authority', config.certificateAuthority);
    const credential = await runExecPlugin(config, ca);
    given = { credential, serial: (given?.serial ?? 0) + 1 };
    return credential;
  };

  const fromPlugin = async (): Promise<ExecCredential | undefined> => {
    if (!config.exec) return undefined;
    const expiresAt = given?.credential.expiresAtMs;
    if (given && (expiresAt === undefined || clock.now() < expiresAt - earlyMs)) return given.credential;
    return await runPlugin();
  };

  const readToken = async (): Promise<string | undefined> => {
    const { tokenFile } = config;
    if (tokenFile === undefined) return config.token;
    if (token && clock.monotonicMs() - token.readAt < rereadTokenEveryMs) return token.text;
    try {
      const text = (await readFile(tokenFile, 'utf8')).trim();
      if (text === '') throw new Error('the file is empty');
      token = { text, readAt: clock.monotonicMs() };
    } catch (error) {
      if (!token) throw new ClientConfigError(`${config.source}: tokenFile ${tokenFile}: ${(error as Error).message}`);
      log.warn('cannot read the token file again; the token read before is used on', { file: tokenFile, error });
      token.readAt = clock.monotonicMs();
    }
    return token.text;
  };

  const stampOf = async (): Promise<string> => {
    const stamps = watched.map(async (pem) => {
      const { mtimeMs, ino, size } = await stat((pem as { path: string }).path);
      return `${mtimeMs}/${ino}/${size}`;
    });
    return `${(await Promise.all(stamps)).join(' ')} ${given?.serial ?? 0}`;
  };

  const readTls = async (): Promise<TlsMaterial> => {
    const plugin = await fromPlugin();
    const stamp = await stampOf();
    const [ca, cert, key] = await Promise.all([
      readPem(config, 'certificate-authority', config.certificateAuthority),
      plugin?.clientCertificate ?? readPem(config, 'client-certificate', config.clientCertificate),
      plugin?.clientKey ?? readPem(config, 'client-key', config.clientKey),
    ]);
    const material = { ca, cert, key };
    lastTls = { material, stamp };
    return material;
  };

  return {
    async tls() {
      try {
        return await readTls();
      } catch (error) {
        // A file that is being replaced may be missing or half a pair for a moment.
        if (!lastTls) throw error;
        log.warn('cannot read the client certificate again; the one read before is used on', { error });
        return lastTls.material;
      }
    },
    async authorization() {
      const plugin = await fromPlugin();
      if (plugin?.token !== undefined) return `Bearer ${plugin.token}`;
      const bearer = await readToken();
      if (bearer !== undefined) return `Bearer ${bearer}`;
      if (config.username === undefined) return undefined;
      return `Basic ${Buffer.from(`${config.username}:${config.password ?? ''}`).toString('base64')}`;
    },
    async tlsChanged() {
      if (!lastTls || (watched.length === 0 && !config.exec)) return false;
      const now = clock.monotonicMs();
      if (now - checkedAt < checkFilesEveryMs) return false;
      checkedAt = now;
      const before = lastTls;
      try {
        await fromPlugin();
        if ((await stampOf()) === before.stamp) return false;
        const { ca, cert, key } = await readTls();
        return ca !== before.material.ca || cert !== before.material.cert || key !== before.material.key;
      } catch (error) {
        log.warn('cannot look whether the client certificate changed; trying again', { error });
        return false;
      }
    },
    async refresh() {
      if (config.tokenFile !== undefined) {
        const before = token?.text;
        if (token) token.readAt = Number.NEGATIVE_INFINITY;
        return (await readToken()) !== before;
      }
      checkedAt = Number.NEGATIVE_INFINITY;
      if (!config.exec) return watched.length > 0;
      await runPlugin();
      return true;
    },
  };
}

async function readPem(config: ClientConfig, field: string, pem: Pem | undefined): Promise<string | undefined> {
  if (pem === undefined) return undefined;
  if (pem.from === 'data') return pem.pem;
  try {
    return await readFile(pem.path, 'utf8');
  } catch (error) {
    throw new ClientConfigError(`${config.source}: ${field} ${pem.path}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}
