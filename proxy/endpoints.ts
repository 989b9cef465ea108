// Follows EndpointSlices: merges those of a Service into the endpoints of each of its ports. A slice that makes no sense costs
// nobody but itself.
import type { Change } from '../kube/store.ts';
import type { EndpointSlice } from '../kube/types/core.ts';
import { type IpFamily, joinHostPort, parseIp } from './addresses.ts';
import { type Endpoint, type Protocol, sameEndpoints, servicePortKey, type ServicePortKey } from './model.ts';

export interface EndpointTracker {
  /** Takes in a change of the watch. */
  change(change: Change<EndpointSlice>): void;
  /** Ordered by address; each ip and port once. */
  get(family: IpFamily, key: ServicePortKey): readonly Endpoint[];
  /** Endpoints of all service ports of a family, whether or not a Service is known for them. */
  count(family: IpFamily): number;
  /** How many addresses on this node are ready for the Service (`namespace/name`), whatever their ports. */
  localReady(family: IpFamily, serviceKey: string): number;
  /**
   * Hands over the trigger times (milliseconds since the epoch) noted since the last call for this Service in this family:
   * when the pod or Service changed that made the slice change.
   */
  takeTriggerTimes(family: IpFamily, serviceKey: string): readonly number[];
  changesTotal(): number;
  /** Parts of slices that were ignored because they make no sense. */
  ignoredTotal(): number;
}

export interface EndpointTrackerDeps {
  readonly nodeName: string;
  /** Trigger times before this, in milliseconds since the epoch, are not noted: they were not ours to wait for. */
  readonly startedAtMs: number;
  onDirty(family: IpFamily, key: ServicePortKey): void;
}

interface SliceEntry {
  readonly slice: EndpointSlice;
  /** Order of arrival: where slices overlap, the later one knows better. */
  readonly order: number;
}

interface ServiceEntry {
  readonly slices: Map<string, SliceEntry>;
  ports: Map<ServicePortKey, readonly Endpoint[]>;
  triggers: number[];
}

const newEntry = (): ServiceEntry => ({ slices: new Map(), ports: new Map(), triggers: [] });

const serviceNameLabel = 'kubernetes.io/service-name';
const triggerAnnotation = 'endpoints.kubernetes.io/last-change-trigger-time';

const byAddress = (a: Endpoint, b: Endpoint): number => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : a.port - b.port);

const validPort = (port: number | null | undefined): port is number =>
  typeof port === 'number' && Number.isInteger(port) && port > 0 && port < 65_536;

/** The endpoints of each port, merged from slices given oldest first. `ignored` is told of what makes no sense. */
export function mergeSlices(
  serviceKey: string,
  slices: readonly EndpointSlice[],
  nodeName: string,
  ignored: (what: string) => void,
): Map<ServicePortKey, readonly Endpoint[]> {
  const [namespace = '', name = ''] = serviceKey.split('/');
  const merged = new Map<ServicePortKey, Map<string, Endpoint>>();
  for (const slice of slices) {
    const family = slice.addressType;
    for (const port of slice.ports ?? []) {
      if (!validPort(port.port)) {
        ignored(`port ${String(port.port)}`);
        continue;
      }
      const protocol: Protocol = port.protocol ?? 'TCP';
      const key = servicePortKey(namespace, name, port.name ?? '', protocol);
      const endpoints = merged.get(key) ?? new Map<string, Endpoint>();
      merged.set(key, endpoints);
      for (const endpoint of slice.endpoints ?? []) {
        const ip = endpoint.addresses?.[0] === undefined ? undefined : parseIp(endpoint.addresses[0]);
        if (!ip || ip.family !== family || ip.text === '0.0.0.0' || ip.text === '::') {
          ignored(`address ${String(endpoint.addresses?.[0])}`);
          continue;
        }
        const { ready = true, serving = true, terminating = false } = endpoint.conditions ?? {};
        const address = joinHostPort(ip.text, port.port);
        // Another pod may have taken the address of one that is still going: the living one counts.
        if (terminating && endpoints.has(address)) continue;
        const zones = endpoint.hints?.forZones ?? [];
        const nodes = endpoint.hints?.forNodes ?? [];
        endpoints.set(address, {
          ip: ip.text,
          port: port.port,
          isLocal: nodeName !== '' && endpoint.nodeName === nodeName,
          ready: ready ?? true,
          serving: serving ?? true,
          terminating: terminating ?? false,
          ...(zones.length === 0 ? {} : { zoneHints: zones.map((zone) => zone.name) }),
          ...(nodes.length === 0 ? {} : { nodeHints: nodes.map((node) => node.name) }),
        });
      }
    }
  }
  return new Map(
    [...merged].flatMap(([key, endpoints]) =>
      endpoints.size === 0 ? [] : [[key, [...endpoints.values()].sort(byAddress)] as const],
    ),
  );
}

function triggerTime(slice: EndpointSlice): number | undefined {
  const text = slice.metadata.annotations?.[triggerAnnotation];
  const time = text === undefined ? Number.NaN : Date.parse(text);
  return Number.isNaN(time) ? undefined : time;
}

const familyOf = (slice: EndpointSlice): IpFamily | undefined =>
  slice.addressType === 'IPv4' || slice.addressType === 'IPv6' ? slice.addressType : undefined;

const serviceKeyOf = (slice: EndpointSlice): string | undefined => {
  const service = slice.metadata.labels?.[serviceNameLabel];
  return service && slice.metadata.namespace ? `${slice.metadata.namespace}/${service}` : undefined;
};

export function createEndpointTracker(deps: EndpointTrackerDeps): EndpointTracker {
  const services: Record<IpFamily, Map<string, ServiceEntry>> = { IPv4: new Map(), IPv6: new Map() };
  const counts: Record<IpFamily, number> = { IPv4: 0, IPv6: 0 };
  let order = 0;
  let changes = 0;
  let ignored = 0;

  const remerge = (family: IpFamily, serviceKey: string, entry: ServiceEntry): void => {
    const slices = [...entry.slices.values()].sort((a, b) => a.order - b.order).map(({ slice }) => slice);
    const before = entry.ports;
    const after = mergeSlices(serviceKey, slices, deps.nodeName, () => {
      ignored++;
    });
    for (const key of before.keys())
      if (!after.has(key)) {
        counts[family] -= before.get(key)!.length;
        deps.onDirty(family, key);
      }
    for (const [key, endpoints] of after) {
      const old = before.get(key);
      if (old && sameEndpoints(old, endpoints)) {
        after.set(key, old);
        continue;
      }
      counts[family] += endpoints.length - (old?.length ?? 0);
      deps.onDirty(family, key);
    }
    entry.ports = after;
    if (entry.slices.size === 0) services[family].delete(serviceKey);
  };

  const remove = (slice: EndpointSlice, name: string): void => {
    const family = familyOf(slice);
    const serviceKey = serviceKeyOf(slice);
    if (!family || serviceKey === undefined) return;
    const entry = services[family].get(serviceKey);
    if (!entry?.slices.delete(name)) return;
    // The time it carries is that of its last update, not of its removal.
    entry.triggers = [];
    remerge(family, serviceKey, entry);
  };

  const set = (slice: EndpointSlice, name: string): void => {
    const family = familyOf(slice);
    const serviceKey = serviceKeyOf(slice);
    if (!family || serviceKey === undefined) {
      ignored++;
      return;
    }
    const entry = services[family].get(serviceKey) ?? newEntry();
    services[family].set(serviceKey, entry);
    entry.slices.set(name, { slice, order: order++ });
    const time = triggerTime(slice);
    if (time !== undefined && time > deps.startedAtMs && entry.triggers.length < 1_000) entry.triggers.push(time);
    remerge(family, serviceKey, entry);
  };

  return {
    change({ key, before, after }) {
      changes++;
      // A slice may be relabelled to another Service, or replaced by one of another family under the same name.
      if (before && (!after || serviceKeyOf(before) !== serviceKeyOf(after) || familyOf(before) !== familyOf(after)))
        remove(before, key);
      if (after) set(after, key);
    },
    get(family, key) {
      const serviceKey = key.slice(0, key.indexOf(':'));
      return services[family].get(serviceKey)?.ports.get(key) ?? [];
    },
    count: (family) => counts[family],
    localReady(family, serviceKey) {
      const ips = new Set<string>();
      for (const endpoints of services[family].get(serviceKey)?.ports.values() ?? [])
        for (const endpoint of endpoints) if (endpoint.ready && endpoint.isLocal) ips.add(endpoint.ip);
      return ips.size;
    },
    takeTriggerTimes(family, serviceKey) {
      const entry = services[family].get(serviceKey);
      if (!entry || entry.triggers.length === 0) return [];
      const taken = entry.triggers;
      entry.triggers = [];
      return taken;
    },
    changesTotal: () => changes,
    ignoredTotal: () => ignored,
  };
}
