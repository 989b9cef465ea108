// Reads a kubeconfig (v1 Config) into what one client needs, and the configuration a pod finds in its service account folder. Relative
// paths are relative to the kubeconfig's folder, as everywhere.
import { readFile } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import * as v from 'valibot';
import { parse as parseYaml } from 'yaml';
import { type ClientConfig, ClientConfigError, type ExecCredentialConfig, type Pem } from './client-config.ts';

export { type ClientConfig, ClientConfigError } from './client-config.ts';

const text = v.optional(v.nullable(v.string()));
const flag = v.optional(v.nullable(v.boolean()));
const extensions = v.optional(v.nullable(v.array(v.object({ name: v.string(), extension: v.unknown() }))));
const named = <Key extends string, Schema extends v.GenericSchema>(key: Key, schema: Schema) =>
  v.optional(
    v.nullable(
      v.array(
        v.object({ name: v.string(), [key]: schema } as { name: v.StringSchema<undefined> } & Record<Key, Schema>),
      ),
    ),
  );

const cluster = v.object({
  server: v.string(),
  'tls-server-name': text,
  'insecure-skip-tls-verify': flag,
  'certificate-authority': text,
  'certificate-authority-data': text,
  'proxy-url': text,
  extensions,
});

const execPlugin = v.object({
  apiVersion: v.picklist(
    ['client.authentication.k8s.io/v1', 'client.authentication.k8s.io/v1beta1'],
    (issue) => `${issue.received} is not supported; use client.authentication.k8s.io/v1 or v1beta1`,
  ),
  command: v.pipe(v.string(), v.nonEmpty()),
  args: v.optional(v.nullable(v.array(v.string()))),
  env: v.optional(v.nullable(v.array(v.object({ name: v.string(), value: v.string() })))),
  installHint: text,
  provideClusterInfo: flag,
  interactiveMode: v.optional(v.nullable(v.picklist(['Never', 'IfAvailable', 'Always']))),
});

const user = v.object({
  'client-certificate': text,
  'client-certificate-data': text,
  'client-key': text,
  'client-key-data': text,
  token: text,
  tokenFile: text,
  username: text,
  password: text,
  as: text,
  'auth-provider': v.optional(v.unknown()),
  exec: v.optional(v.nullable(execPlugin)),
});

const context = v.object({ cluster: v.string(), user: v.optional(v.nullable(v.string())), namespace: text });

const document = v.object({
  kind: v.optional(v.nullable(v.literal('Config'))),
  'current-context': text,
  clusters: named('cluster', cluster),
  users: named('user', v.nullable(user)),
  contexts: named('context', context),
});

type Cluster = v.InferOutput<typeof cluster>;
type User = v.InferOutput<typeof user>;

export interface KubeconfigOptions {
  /** Default: the file's current-context. */
  readonly context?: string;
}

/** Reads the file. Rejects with a ClientConfigError that names the file, the field and what is wrong with it. */
export async function loadKubeconfig(path: string, options: KubeconfigOptions = {}): Promise<ClientConfig> {
  let content: string;
  try {
    content = await readFile(path, 'utf8');
  } catch (error) {
    const why = (error as NodeJS.ErrnoException).code === 'ENOENT' ? 'there is no such file' : (error as Error).message;
    throw new ClientConfigError(`kubeconfig ${path}: ${why}`, { cause: error });
  }
  const config = parseKubeconfig(content, path, options);
  await checkFiles(config);
  return config;
}

/** Reads the text of a kubeconfig; `path` is where it came from. Files it names are not looked at. Throws a ClientConfigError. */
export function parseKubeconfig(content: string, path: string, options: KubeconfigOptions = {}): ClientConfig {
  const source = `kubeconfig ${path}`;
  const folder = dirname(resolve(path));
  const fail = (why: string): never => {
    throw new ClientConfigError(`${source}: ${why}`);
  };
  let yaml: unknown;
  try {
    yaml = parseYaml(content);
  } catch (error) {
    return fail(`not YAML: ${(error as Error).message.split('\n')[0]}`);
  }
  const parsed = v.safeParse(document, yaml);
  if (!parsed.success) {
    const issue = parsed.issues[0];
    return fail(`${fieldOf(issue, yaml)}: ${issue.message}`);
  }
  const { clusters, users, contexts } = parsed.output;
  const contextName = options.context || parsed.output['current-context'] || '';
  if (contextName === '') fail('current-context is not set, and no other context was asked for');
  const chosen = contexts?.find(({ name }) => name === contextName)?.context;
  if (!chosen) return fail(`current-context: there is no context ${JSON.stringify(contextName)}`);
  const theCluster = clusters?.find(({ name }) => name === chosen.cluster)?.cluster;
  if (!theCluster) return fail(`context ${contextName}: there is no cluster ${JSON.stringify(chosen.cluster)}`);
  const userName = chosen.user ?? '';
  const entry = users?.find(({ name }) => name === userName);
  if (userName !== '' && !entry) return fail(`context ${contextName}: there is no user ${JSON.stringify(userName)}`);
  const where = { folder, fail };
  return {
    source,
    ...clusterConfig(theCluster, `clusters[${chosen.cluster}]`, where),
    ...userConfig(entry?.user ?? undefined, `users[${userName}]`, theCluster, where),
    ...(chosen.namespace ? { namespace: chosen.namespace } : {}),
  };
}

interface Where {
  readonly folder: string;
  fail(why: string): never;
}

function clusterConfig(
  from: Cluster,
  field: string,
  { folder, fail }: Where,
): Pick<ClientConfig, 'server'> & Partial<ClientConfig> {
  const url = URL.parse(from.server.includes('://') ? from.server : `https://${from.server}`);
  if (!url || !['https:', 'http:'].includes(url.protocol))
    fail(`${field}.server: ${JSON.stringify(from.server)} is no https URL`);
  if (from['proxy-url'])
    fail(
      `${field}.proxy-url: connecting through a proxy is not supported; remove it and give a server address that is reached directly`,
    );
  const ca = pemOf(
    from['certificate-authority'],
    from['certificate-authority-data'],
    `${field}.certificate-authority`,
    folder,
    fail,
  );
  const insecure = from['insecure-skip-tls-verify'] ?? false;
  if (insecure && ca) fail(`${field}: insecure-skip-tls-verify and a certificate-authority exclude each other`);
  return {
    server: url!.href.replace(/\/$/, ''),
    certificateAuthority: ca,
    insecureSkipTlsVerify: insecure,
    tlsServerName: from['tls-server-name'] || undefined,
  };
}

function userConfig(
  from: User | undefined,
  field: string,
  of: Cluster,
  { folder, fail }: Where,
): Partial<ClientConfig> {
  if (!from) return {};
  if (from['auth-provider'] != null) fail(`${field}.auth-provider: no longer part of Kubernetes; use exec`);
  if (from.as) fail(`${field}.as: impersonation is not supported`);
  const clientCertificate = pemOf(
    from['client-certificate'],
    from['client-certificate-data'],
    `${field}.client-certificate`,
    folder,
    fail,
  );
  const clientKey = pemOf(from['client-key'], from['client-key-data'], `${field}.client-key`, folder, fail);
  if (clientCertificate && !clientKey) fail(`${field}: client-certificate is set, client-key is not`);
  if (clientKey && !clientCertificate) fail(`${field}: client-key is set, client-certificate is not`);
  const { exec } = from;
  if (exec?.interactiveMode === 'Always')
    fail(`${field}.exec.interactiveMode: Always needs a terminal, and a daemon has none`);
  return {
    clientCertificate,
    clientKey,
    token: from.token || undefined,
    tokenFile: from.tokenFile ? absolute(folder, from.tokenFile) : undefined,
    username: from.username || undefined,
    password: from.password || undefined,
    exec: exec ? execConfig(exec, of, folder) : undefined,
  };
}

function execConfig(from: NonNullable<User['exec']>, of: Cluster, folder: string): ExecCredentialConfig {
  const extension = of.extensions?.find(({ name }) => name === 'client.authentication.k8s.io/exec')?.extension;
  return {
    apiVersion: from.apiVersion,
    command: from.command.includes('/') ? absolute(folder, from.command) : from.command,
    args: from.args ?? [],
    env: Object.fromEntries((from.env ?? []).map(({ name, value }) => [name, value])),
    provideClusterInfo: from.provideClusterInfo ?? false,
    installHint: from.installHint || undefined,
    clusterExtension: extension,
  };
}

const absolute = (folder: string, path: string): string => (isAbsolute(path) ? path : join(folder, path));

function pemOf(
  file: string | null | undefined,
  data: string | null | undefined,
  field: string,
  folder: string,
  fail: (why: string) => never,
): Pem | undefined {
  if (data) {
    const pem = Buffer.from(data, 'base64').toString('utf8');
    if (!pem.includes('-----BEGIN ')) fail(`${field}-data: not PEM in base64`);
    return { from: 'data', pem };
  }
  return file ? { from: 'file', path: absolute(folder, file) } : undefined;
}

// `users[0].user.token`, with the entry's name in place of its number where it has one.
function fieldOf(issue: v.BaseIssue<unknown>, root: unknown): string {
  let at: unknown = root;
  let path = '';
  for (const { key } of issue.path ?? []) {
    at = (at as Record<PropertyKey, unknown> | undefined)?.[key as PropertyKey];
    const name = (at as { name?: unknown } | undefined | null)?.name;
    if (typeof key === 'number') path += `[${typeof name === 'string' ? name : key}]`;
    else path += path === '' ? String(key) : `.${String(key)}`;
  }
  return path || 'the document';
}

async function checkFiles(config: ClientConfig): Promise<void> {
  const files: [string, Pem | undefined][] = [
    ['certificate-authority', config.certificateAuthority],
    ['client-certificate', config.clientCertificate],
    ['client-key', config.clientKey],
  ];
  for (const [field, pem] of files) {
    if (pem?.from !== 'file') continue;
    try {
      const content = await readFile(pem.path, 'utf8');
      if (!content.includes('-----BEGIN ')) throw new Error('the file is not PEM');
    } catch (error) {
      throw new ClientConfigError(`${config.source}: ${field} ${pem.path}: ${(error as Error).message}`, {
        cause: error,
      });
    }
  }
}

const serviceAccountFolder = '/var/run/secrets/kubernetes.io/serviceaccount';

/** The configuration of a pod: its service account's files and the API server's address from the environment. */
export function inClusterConfig(
  env: Readonly<Record<string, string | undefined>>,
  folder = serviceAccountFolder,
): ClientConfig {
  const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = env;
  if (!host || !port)
    throw new ClientConfigError(
      'in-cluster configuration: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; this is no pod',
    );
  return {
    source: 'in-cluster configuration',
    server: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
    certificateAuthority: { from: 'file', path: join(folder, 'ca.crt') },
    tokenFile: join(folder, 'token'),
  };
}
