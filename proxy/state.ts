// The proxy's whole desired state, kept as changes come in: trackers, the node's place, and which service ports are dirty.
import type { IpFamily } from './addresses.ts';
import { createEndpointTracker, type EndpointTracker } from './endpoints.ts';
import { computeState, type ServicePortKey, type ServicePortState, type Topology } from './model.ts';
import { createServiceTracker, type ServiceTracker } from './services.ts';

/** The desired state of one IP family, read when it is needed; nothing is copied. */
export interface DesiredState {
  /** Undefined where no such service port is wanted. */
  get(key: ServicePortKey): ServicePortState | undefined;
  keys(): Iterable<ServicePortKey>;
  /** Service ports wanted. */
  size(): number;
  /** Endpoints of all service ports; backends leave out comments above some number. */
  endpointCount(): number;
}

export interface ProxyState {
  readonly services: ServiceTracker;
  readonly endpoints: EndpointTracker;
  desired(family: IpFamily): DesiredState;
  /** Hands over the keys that changed since the last call. */
  takeDirty(family: IpFamily): ReadonlySet<ServicePortKey>;
  dirtyCount(family: IpFamily): number;
  /** How often something became dirty so far, in either family: whether it grows tells whether a change asks for a write. */
  dirtied(): number;
  /** The node moved (its zone label changed): every service port is dirty. */
  setZone(zone: string | undefined): void;
}

export interface ProxyStateDeps {
  readonly nodeName: string;
  readonly startedAtMs: number;
  /** Addresses of `spec.externalIPs` are served; default true. */
  readonly externalIPs?: boolean;
  /** Something became dirty in this family. */
  onDirty(family: IpFamily): void;
}

export function createProxyState(deps: ProxyStateDeps): ProxyState {
  const dirty: Record<IpFamily, Set<ServicePortKey>> = { IPv4: new Set(), IPv6: new Set() };
  const cache: Record<IpFamily, Map<ServicePortKey, ServicePortState>> = { IPv4: new Map(), IPv6: new Map() };
  let dirtied = 0;
  let topology: Topology = { nodeName: deps.nodeName, zone: undefined };

  const onDirty = (family: IpFamily, key: ServicePortKey): void => {
    cache[family].delete(key);
    // Slices without a Service, and of Services another proxy serves, wake nobody.
    if (!services.get(family, key) && !known[family].has(key)) return;
    dirty[family].add(key);
    dirtied++;
    deps.onDirty(family);
  };
  // Keys handed over before: their removal must be handed over too.
  const known: Record<IpFamily, Set<ServicePortKey>> = { IPv4: new Set(), IPv6: new Set() };
  const services = createServiceTracker({ onDirty, externalIPs: deps.externalIPs ?? true });
  const endpoints = createEndpointTracker({
    nodeName: deps.nodeName,
    startedAtMs: deps.startedAtMs,
    onDirty,
    followsPods: services.followsPods,
  });

  const get = (family: IpFamily, key: ServicePortKey): ServicePortState | undefined => {
    const cached = cache[family].get(key);
    if (cached) return cached;
    const port = services.get(family, key);
    if (!port) return undefined;
    const state = computeState(port, endpoints.get(family, key), topology);
    cache[family].set(key, state);
    return state;
  };

  return {
    services,
    endpoints,
    desired: (family) => ({
      get: (key) => get(family, key),
      keys: () => services.keys(family),
      size: () => services.count(family),
      endpointCount: () => endpoints.count(family),
    }),
    takeDirty(family) {
      const taken = dirty[family];
      dirty[family] = new Set();
      for (const key of taken)
        if (services.get(family, key)) known[family].add(key);
        else known[family].delete(key);
      return taken;
    },
    dirtyCount: (family) => dirty[family].size,
    dirtied: () => dirtied,
    setZone(zone) {
      if (zone === topology.zone) return;
      topology = { ...topology, zone };
      for (const family of ['IPv4', 'IPv6'] as const) for (const key of services.keys(family)) onDirty(family, key);
    },
  };
}
