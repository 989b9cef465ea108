// Makes the Node exist: creates it, or takes over the one that is there and puts right what a node may put right of itself.
import type { Log } from '../../lib/log.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isAlreadyExists, isForbidden } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { Node } from '../../kube/types/core.ts';
import { adoptMetadata, type NodeIdentity } from './initial-node.ts';

export interface RegistrationDeps {
  readonly client: KubeClient;
  readonly log: Log;
}

export interface Registration {
  readonly node: Node;
  readonly created: boolean;
}

/** One attempt; rejects with an ApiError. */
export async function registerNode(
  deps: RegistrationDeps,
  identity: NodeIdentity,
  wanted: Node,
  signal: AbortSignal,
): Promise<Registration> {
  const { client, log } = deps;
  const name = { name: identity.nodeName };
  try {
    const node = await client.create(resources.nodes, wanted, { signal });
    log.info('node registered', { node: identity.nodeName });
    return { node, created: true };
  } catch (error) {
    // Some clusters make the Node themselves and let nodes only take it over.
    if (!isAlreadyExists(error) && !isForbidden(error)) throw error;
    const found = await client.get(resources.nodes, name, { signal }).catch((getError: unknown) => {
      throw isForbidden(error) ? error : getError;
    });
    const metadata = adoptMetadata(found, wanted, identity);
    log.info('node was registered before; taking it over', {
      node: identity.nodeName,
      corrected: metadata ?? 'nothing',
    });
    if (metadata === undefined) return { node: found, created: false };
    const node = await client.patch(
      resources.nodes,
      name,
      { metadata: { ...metadata, ...(found.metadata.uid === undefined ? {} : { uid: found.metadata.uid }) } },
      { type: 'strategic', signal },
    );
    return { node, created: false };
  }
}
