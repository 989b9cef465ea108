// The watches the proxy lives on: Services, EndpointSlices and its own Node.
import type { Clock } from '../lib/clock.ts';
import { describeError, type Log } from '../lib/log.ts';
import type { KubeClient } from '../kube/client.ts';
import { createReflector } from '../kube/reflector.ts';
import { resources } from '../kube/resources.ts';
import type { Node } from '../kube/types/core.ts';
import type { ProxyMetrics } from './metrics.ts';
import { missingAccess } from './missing-access.ts';
import { serviceSelection, sliceSelection } from './services.ts';
import type { ProxyState } from './state.ts';

export interface SourcesDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: ProxyMetrics;
  readonly state: ProxyState;
  readonly nodeName: string;
  onNode(): void;
}

export interface Sources {
  /** This proxy's Node; undefined while unknown. */
  node(): Node | undefined;
  /** Why nothing can be learnt from the API server; undefined where all is well, or was once. */
  readonly trouble: string | undefined;
  /** Resolves once everything was read. */
  waitForSync(signal: AbortSignal): Promise<void>;
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

export function createSources(deps: SourcesDeps): Sources {
  const { client, clock, log, metrics, state, nodeName } = deps;
  let trouble: string | undefined;
  let everSynced = false;

  const onFailure = (error: unknown): void => {
    const access = missingAccess(error, nodeName);
    // Once everything was read, an API server that goes away for a while takes nothing from those who are served.
    if (access) trouble = access.summary;
    else if (!everSynced) trouble = `the API server cannot be watched: ${describeError(error)}`;
    if (access) log.error(access.message);
  };
  const onSync = (): void => {
    trouble = undefined;
  };
  // What changes nothing that is programmed waits for nothing.
  const asksForWrite = (take: () => void): boolean => {
    const before = state.dirtied();
    take();
    return state.dirtied() > before;
  };
  const common = { client, clock, log };
  const services = createReflector(common, {
    resource: resources.services,
    selection: serviceSelection,
    onFailure,
    onSync,
    onChange(change) {
      onSync();
      metrics.serviceChanges.inc();
      if (asksForWrite(() => state.services.change(change))) metrics.serviceChangesPending.inc();
    },
  });
  const slices = createReflector(common, {
    resource: resources.endpointSlices,
    selection: sliceSelection,
    onFailure,
    onSync,
    onChange(change) {
      onSync();
      metrics.endpointChanges.inc();
      if (asksForWrite(() => state.endpoints.change(change))) metrics.endpointChangesPending.inc();
    },
  });
  const nodes = createReflector(common, {
    resource: resources.nodes,
    selection: { fieldSelector: `metadata.name=${nodeName}` },
    onFailure,
    onSync,
    onChange: () => deps.onNode(),
  });
  const reflectors = [services, slices, nodes];

  return {
    node: () => nodes.store.get(nodeName),
    get trouble() {
      return trouble;
    },
    async waitForSync(signal) {
      await Promise.all(reflectors.map((reflector) => reflector.waitForSync(signal)));
      everSynced = true;
    },
    async run(signal) {
      await Promise.all(reflectors.map((reflector) => reflector.run(signal)));
    },
  };
}
