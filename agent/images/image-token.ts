// Tokens that a credential provider exchanges for a registry's.
import type { KubeClient } from '../../kube/client.ts';
import { type Resource, resources } from '../../kube/resources.ts';
import type { ServiceAccount, TokenRequest } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';

/** A token of the pod's service account for the audience. Rejects with ApiError; empty where the API server gives none. */
export async function imageToken(
  client: KubeClient,
  pod: Pod,
  serviceAccount: ServiceAccount,
  audience: string,
  signal: AbortSignal,
): Promise<string> {
  const { name, uid = '' } = pod.metadata;
  const namespace = pod.metadata.namespace ?? 'default';
  const made = await client.create<TokenRequest>(
    { ...resources.serviceAccounts } as unknown as Resource<TokenRequest>,
    {
      metadata: { namespace, name: serviceAccount.metadata.name },
      spec: { audiences: [audience], boundObjectRef: { kind: 'Pod', apiVersion: 'v1', name, uid } },
    },
    { subresource: 'token', signal },
  );
  return made.status?.token ?? '';
}
