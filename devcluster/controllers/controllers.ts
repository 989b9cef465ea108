// The small controllers a cluster needs, as ordinary clients of any API server.
import { supervise } from '../../lib/supervise.ts';
import { createDeploymentController } from './deployments.ts';
import { createEndpointSliceController } from './endpointslices.ts';
import { createGarbageCollector, createNamespaceCleaner, trackedKinds } from './garbage.ts';
import type { Controller } from './loop.ts';
import { createReplicaSetController } from './replicasets.ts';
import { createScheduler } from './scheduler.ts';
import { createNamespaceAccounts, createNodeUpkeep, createVolumeBinder } from './upkeep.ts';
import { type ControllerDeps, createWorld } from './world.ts';

export interface ControllerOptions {
  /** The cluster's CA, for the ConfigMap kube-root-ca.crt. */
  readonly caPem: string;
  /** Ranges nodes get their podCIDR from, one for each family. Default 10.244.0.0/16. */
  readonly podCidr?: string;
}

export interface Controllers {
  /** Resolves once all have seen everything there is. */
  ready(signal: AbortSignal): Promise<void>;
  stop(): Promise<void>;
}

export function startControllers(deps: ControllerDeps, options: ControllerOptions): Controllers {
  const world = createWorld(deps);
  const tracked = trackedKinds(deps);
  const podCidrs = (options.podCidr ?? '10.244.0.0/16').split(',');
  const controllers: Controller[] = [
    createNamespaceAccounts(deps, world, options.caPem),
    createNodeUpkeep(deps, world, podCidrs),
    createVolumeBinder(deps, world),
    createScheduler(deps, world),
    createReplicaSetController(deps, world),
    createDeploymentController(deps, world),
    createEndpointSliceController(deps, world),
    createGarbageCollector(deps, tracked),
    createNamespaceCleaner(deps, tracked, world.namespaces),
  ];
  const caches = [...Object.values(world), ...tracked.map(({ cache }) => cache)];
  const tasks = supervise({
    log: deps.log,
    onFault: (name, error) =>
      deps.log.error('a cache of the controllers ended; restart the control plane', { cache: name, error }),
  });
  for (const [index, cache] of caches.entries()) tasks.start(`cache ${index}`, (signal) => cache.run(signal));
  return {
    ready: async (signal) => void (await Promise.all(caches.map((cache) => cache.waitForSync(signal)))),
    async stop() {
      await Promise.all(controllers.map(({ queue }) => queue.stop()));
      await tasks.stop();
    },
  };
}
