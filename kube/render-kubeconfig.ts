// Writes a kubeconfig of one cluster and one user.
import { stringify } from 'yaml';
import type { Pem } from './client-config.ts';

export interface KubeconfigParts {
  readonly cluster: string;
  readonly server: string;
  readonly certificateAuthority: Pem | undefined;
  readonly tlsServerName?: string | undefined;
  readonly user: string;
  readonly token?: string;
  readonly client?: { readonly certificate: Pem; readonly key: Pem };
}

/** A file is named, what is at hand is put in. */
const field = (name: string, pem: Pem | undefined): Readonly<Record<string, string>> => {
  if (!pem) return {};
  return pem.from === 'file' ? { [name]: pem.path } : { [`${name}-data`]: Buffer.from(pem.pem).toString('base64') };
};

/** As YAML. */
export function renderKubeconfig(parts: KubeconfigParts): string {
  const { cluster, server, tlsServerName, user, token, client } = parts;
  const context = `${user}@${cluster}`;
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: cluster,
        cluster: {
          server,
          ...field('certificate-authority', parts.certificateAuthority),
          ...(tlsServerName ? { 'tls-server-name': tlsServerName } : {}),
        },
      },
    ],
    contexts: [{ name: context, context: { cluster, namespace: 'default', user } }],
    'current-context': context,
    users: [
      {
        name: user,
        user: {
          ...field('client-certificate', client?.certificate),
          ...field('client-key', client?.key),
          ...(token === undefined ? {} : { token }),
        },
      },
    ],
  };
  // Certificates stay on one line each.
  return stringify(config, { lineWidth: 0 });
}
