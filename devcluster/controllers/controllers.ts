// The small controllers a cluster needs, as ordinary clients of any API server.
import { supervise } from '../../lib/supervise.ts';
import { createDeploymentController } from './deployments.ts';
import { createEndpointSliceController } from './endpointslices.ts';
import { createGarbageCollector } from './garbage.ts';
import { createReplicaSetController } from './replicasets.ts';
import { createScheduler } from './scheduler.ts';
import { createNamespaceAccounts, createNodeUpkeep } from './upkeep.ts';
import { type ControllerDeps, createWorld } from './world.ts';

export interface ControllerOptions {
  /** The cluster's CA, for the ConfigMap kube-root-ca.crt. */
  readonly caPem: string;
  /** The range nodes get their podCIDR from. Default 10.244.0.0/16. */
  readonly podCidr?: string;
}

export type Controllers = ReturnType<typeof startControllers>;

export function startControllers(deps: ControllerDeps, options: ControllerOptions) {
  const world = createWorld(deps);
  const controllers = [
    createNamespaceAccounts(world, options.caPem),
    createNodeUpkeep(world, options.podCidr ?? '10.244.0.0/16'),
    createScheduler(world),
    createReplicaSetController(world),
    createDeploymentController(world),
    createEndpointSliceController(world),
    createGarbageCollector(world),
  ];
  const onFault = (cache: string, error: unknown): void =>
    deps.log.error('a cache of the controllers ended; restart the control plane', { cache, error });
  const tasks = supervise({ log: deps.log, onFault });
  for (const cache of world.all) tasks.start(`cache of ${cache.resource.plural}`, (signal) => cache.run(signal));
  return {
    /** Resolves once all have seen everything there is. */
    ready: async (signal: AbortSignal): Promise<void> =>
      void (await Promise.all(world.all.map((cache) => cache.waitForSync(signal)))),
    async stop(): Promise<void> {
      await Promise.all(controllers.map((controller) => controller.stop()));
      await tasks.stop();
    },
  };
}
