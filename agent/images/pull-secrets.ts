// The credentials in a pod's imagePullSecrets. Pure.
import type { Secret } from '../../kube/types/core.ts';
import { type CredentialSource, type KeyringEntry, parseDockercfg, parseDockerConfigJson } from './keyring.ts';

const formats = [
  { type: 'kubernetes.io/dockerconfigjson', key: '.dockerconfigjson', parse: parseDockerConfigJson },
  { type: 'kubernetes.io/dockercfg', key: '.dockercfg', parse: parseDockercfg },
] as const;

/** Secrets of other types are passed over. Throws, naming the secret, where one cannot be read. */
export function entriesOfSecrets(secrets: readonly Secret[]): KeyringEntry[] {
  return secrets.flatMap((secret) => {
    const format = formats.find(({ type }) => type === secret.type);
    const data = format && secret.data?.[format.key];
    if (!format || !data) return [];
    const { name, namespace = '', uid = '' } = secret.metadata;
    const source: CredentialSource = { kind: 'secret', uid, namespace, name };
    try {
      return format.parse(Buffer.from(data, 'base64').toString('utf8'), source);
    } catch (error) {
      throw new Error(`the image pull secret ${namespace}/${name} cannot be read: ${(error as Error).message}`, {
        cause: error,
      });
    }
  });
}
