// Runs a credential plugin, as a kubeconfig's `exec` names it, and reads what it prints.
import { isAbsolute } from 'node:path';
import { ExecError, exec } from '../lib/exec.ts';
import { type ClientConfig, ClientConfigError } from './client-config.ts';

export interface ExecCredential {
  readonly token: string | undefined;
  readonly clientCertificate: string | undefined;
  readonly clientKey: string | undefined;
  /** Milliseconds since the epoch; undefined: until the server says 401. */
  readonly expiresAtMs: number | undefined;
}

const timeoutMs = 60_000;

/** Runs the plugin of the configuration. `ca` is the cluster's CA, for plugins that asked for it. Rejects with a ClientConfigError. */
export async function runExecPlugin(config: ClientConfig, ca: string | undefined): Promise<ExecCredential> {
  const plugin = config.exec!;
  const what = `${config.source}: the credential plugin ${plugin.command}`;
  const info = {
    apiVersion: plugin.apiVersion,
    kind: 'ExecCredential',
    spec: { interactive: false, ...(plugin.provideClusterInfo ? { cluster: clusterInfo(config, ca) } : {}) },
  };
  let stdout: string;
  try {
    const env = { ...plugin.env, KUBERNETES_EXEC_INFO: JSON.stringify(info) };
    ({ stdout } = await exec(plugin.command, plugin.args, { env, timeoutMs }));
  } catch (error) {
    const missing = error instanceof ExecError && error.code === 'not-found';
    const hint = missing && plugin.installHint !== undefined ? `. ${plugin.installHint.trim()}` : '';
    const where = missing && isAbsolute(plugin.command) ? 'there is no such program' : (error as Error).message;
    throw new ClientConfigError(`${what} failed: ${where}${hint}`, { cause: error });
  }
  return readExecCredential(what, plugin.apiVersion, stdout);
}

function clusterInfo(config: ClientConfig, ca: string | undefined): Record<string, unknown> {
  return {
    server: config.server,
    ...(config.tlsServerName === undefined ? {} : { 'tls-server-name': config.tlsServerName }),
    ...(config.insecureSkipTlsVerify ? { 'insecure-skip-tls-verify': true } : {}),
    ...(ca === undefined ? {} : { 'certificate-authority-data': Buffer.from(ca).toString('base64') }),
    ...(config.exec?.clusterExtension === undefined ? {} : { config: config.exec.clusterExtension }),
  };
}

interface ExecCredentialDocument {
  kind?: string;
  apiVersion?: string;
  status?: {
    token?: string;
    clientCertificateData?: string;
    clientKeyData?: string;
    expirationTimestamp?: string;
  };
}

/** Reads an ExecCredential document. Throws a ClientConfigError that says what is wrong with it. */
export function readExecCredential(what: string, apiVersion: string, text: string): ExecCredential {
  let document: ExecCredentialDocument;
  try {
    document = JSON.parse(text) as ExecCredentialDocument;
  } catch {
    throw new ClientConfigError(`${what} printed something that is no JSON`);
  }
  const wrong = (why: string): ClientConfigError => new ClientConfigError(`${what} printed an ExecCredential ${why}`);
  if (document?.kind !== 'ExecCredential') throw new ClientConfigError(`${what} printed no ExecCredential`);
  if (document.apiVersion !== apiVersion) throw wrong(`of apiVersion ${document.apiVersion}, expected ${apiVersion}`);
  const { token, clientCertificateData, clientKeyData, expirationTimestamp } = document.status ?? {};
  if (!token && !clientCertificateData) throw wrong('without token and without certificate');
  if (!clientCertificateData !== !clientKeyData) throw wrong('with a certificate or a key, but not both');
  const expiresAtMs = expirationTimestamp === undefined ? undefined : Date.parse(expirationTimestamp);
  if (Number.isNaN(expiresAtMs)) throw wrong(`with an expirationTimestamp that is no time: ${expirationTimestamp}`);
  return {
    token: token || undefined,
    clientCertificate: clientCertificateData || undefined,
    clientKey: clientKeyData || undefined,
    expiresAtMs,
  };
}
