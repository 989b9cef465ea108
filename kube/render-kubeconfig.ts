// Writes a kubeconfig of one cluster and one user.

export interface KubeconfigParts {
  readonly cluster: string;
  readonly server: string;
  readonly caPem: string;
  readonly user: string;
  readonly token?: string;
  readonly client?: { readonly certPem: string; readonly keyPem: string };
}

const base64 = (text: string): string => Buffer.from(text).toString('base64');

/** As JSON, which is YAML. */
export function renderKubeconfig({ cluster, server, caPem, user, token, client }: KubeconfigParts): string {
  const context = `${user}@${cluster}`;
  const pair = client && {
    'client-certificate-data': base64(client.certPem),
    'client-key-data': base64(client.keyPem),
  };
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: cluster, cluster: { server, 'certificate-authority-data': base64(caPem) } }],
    contexts: [{ name: context, context: { cluster, user } }],
    'current-context': context,
    users: [{ name: user, user: { ...pair, ...(token === undefined ? {} : { token }) } }],
  };
  return `${JSON.stringify(config, null, 2)}\n`;
}
