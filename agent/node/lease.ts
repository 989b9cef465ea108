// The node's Lease in kube-node-lease: the heartbeat by which the control plane knows that the node lives.
import type { Clock } from '../../lib/clock.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isAlreadyExists, isConflict, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { Lease, Node } from '../../kube/types/core.ts';

export const leaseNamespace = 'kube-node-lease';

export interface LeaseDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  /** The own Node: the lease goes when it goes. */
  node(): Node | undefined;
}

export interface LeaseOptions {
  readonly nodeName: string;
  readonly durationSeconds: number;
}

export interface NodeLease {
  /** Creates or renews; rejects with an ApiError where that fails. */
  renew(signal: AbortSignal): Promise<void>;
  /** Renews what is there and was this node's, and makes none: for a node whose Node object is not known yet. Rejects as above. */
  renewIfThere(signal: AbortSignal): Promise<void>;
}

/** A time as the API's MicroTime. */
export const microTime = (ms: number): string => new Date(ms).toISOString().replace('Z', '000Z');

export function createNodeLease(deps: LeaseDeps, options: LeaseOptions): NodeLease {
  const { client, clock } = deps;
  const name = { namespace: leaseNamespace, name: options.nodeName };
  let latest: Lease | undefined;

  const fill = (base: Lease): Lease => {
    const uid = deps.node()?.metadata.uid;
    return {
      ...base,
      metadata: {
        ...base.metadata,
        ...(uid === undefined
          ? {}
          : { ownerReferences: [{ apiVersion: 'v1', kind: 'Node', name: options.nodeName, uid }] }),
      },
      spec: {
        ...base.spec,
        holderIdentity: options.nodeName,
        leaseDurationSeconds: options.durationSeconds,
        renewTime: microTime(clock.now()),
      },
    };
  };

  // A lease that is renewed too late is worth nothing: give up in time for the next try.
  const request = (signal: AbortSignal) => ({ signal, timeoutMs: (options.durationSeconds * 1000) / 4 });

  const ensure = async (signal: AbortSignal): Promise<Lease> => {
    try {
      const found = await client.get(resources.leases, name, request(signal));
      return await client.update(resources.leases, fill(found), request(signal));
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    const fresh: Lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { ...name } };
    try {
      return await client.create(resources.leases, fill(fresh), request(signal));
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      const found = await client.get(resources.leases, name, request(signal));
      return client.update(resources.leases, fill(found), request(signal));
    }
  };

  return {
    async renew(signal) {
      const before = latest;
      latest = undefined;
      if (before !== undefined) {
        try {
          latest = await client.update(resources.leases, fill(before), request(signal));
          return;
        } catch (error) {
          signal.throwIfAborted();
          // Somebody else wrote it, or it is gone: look. Anything else would fail again.
          if (!isConflictOrGone(error)) throw error;
        }
      }
      latest = await ensure(signal);
    },
    async renewIfThere(signal) {
      try {
        const found = await client.get(resources.leases, name, request(signal));
        if (found.spec?.holderIdentity !== options.nodeName) return;
        latest = await client.update(resources.leases, fill(found), request(signal));
      } catch (error) {
        if (!isConflictOrGone(error)) throw error;
      }
    },
  };
}

const isConflictOrGone = (error: unknown): boolean => isNotFound(error) || isConflict(error);
