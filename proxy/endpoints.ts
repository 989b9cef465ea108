// Follows EndpointSlices: merges those of a Service into the endpoints of each of its ports. A slice that makes no sense costs
// nobody but itself.
import type { Change } from '../kube/store.ts';
import type { Endpoint as SliceEndpoint, EndpointSlice } from '../kube/types/core.ts';
import type { IpFamily } from './addresses.ts';
import { mergeSlices, type Serving } from './merge-slices.ts';
import { type Endpoint, sameEndpoints, type ServicePortKey } from './model.ts';

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
   * when the pod or Service changed that made the slice change. Those noted since the write began are left for the next.
   */
  takeTriggerTimes(family: IpFamily, serviceKey: string): readonly number[];
  /** A write begins: what comes from now on is not in it. */
  beginWrite(family: IpFamily): void;
  /**
   * What this node knows of its pod before the API tells. It holds where the endpoint will say the same as soon as the controllers come to
   * it, and until it is taken back (undefined).
   */
  hint(podUid: string, serving: Serving | undefined): void;
  changesTotal(): number;
  /** Parts of slices that were ignored because they make no sense. */
  ignoredTotal(): number;
}

export interface EndpointTrackerDeps {
  readonly nodeName: string;
  /** Trigger times before this, in milliseconds since the epoch, are not noted: they were not ours to wait for. */
  readonly startedAtMs: number;
  onDirty(family: IpFamily, key: ServicePortKey): void;
  /** The Service's endpoints are the pods it selects, as ready as these are. */
  followsPods(serviceKey: string): boolean;
}

interface SliceEntry {
  readonly slice: EndpointSlice;
  /** Order of arrival: where slices overlap, the later one knows better. */
  readonly order: number;
}

interface ServiceEntry {
  readonly slices: Map<string, SliceEntry>;
  ports: Map<ServicePortKey, readonly Endpoint[]>;
  triggers: { readonly time: number; readonly order: number }[];
}

const newEntry = (): ServiceEntry => ({ slices: new Map(), ports: new Map(), triggers: [] });

// Others make slices too, by hand or for an Endpoints object: what those say of a pod is their own affair.
const managerLabel = 'endpointslice.kubernetes.io/managed-by';
const manager = 'endpointslice-controller.k8s.io';
const serviceNameLabel = 'kubernetes.io/service-name';
const triggerAnnotation = 'endpoints.kubernetes.io/last-change-trigger-time';

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
  const hints = new Map<string, Serving>();
  // Slices with endpoints on this node, by family and name.
  const local = new Map<
    string,
    { readonly family: IpFamily; readonly serviceKey: string; readonly slice: EndpointSlice }
  >();
  let order = 0;
  // The first change that is not in the write that began last.
  const nextOrder: Record<IpFamily, number> = { IPv4: Number.POSITIVE_INFINITY, IPv6: Number.POSITIVE_INFINITY };
  let changes = 0;
  let ignored = 0;

  const isOwn = (endpoint: SliceEndpoint): boolean => deps.nodeName !== '' && endpoint.nodeName === deps.nodeName;

  const known = (serviceKey: string, slice: EndpointSlice, endpoint: SliceEndpoint): Serving | undefined => {
    const { kind, uid } = endpoint.targetRef ?? {};
    if (hints.size === 0 || uid === undefined || kind !== 'Pod' || !isOwn(endpoint)) return undefined;
    const hint = hints.get(uid);
    if (!hint || slice.metadata.labels?.[managerLabel] !== manager) return undefined;
    return deps.followsPods(serviceKey) ? hint : undefined;
  };

  /** True where that changed an endpoint. */
  const remerge = (family: IpFamily, serviceKey: string, entry: ServiceEntry): boolean => {
    const slices = [...entry.slices.values()].sort((a, b) => a.order - b.order).map(({ slice }) => slice);
    const before = entry.ports;
    const after = mergeSlices(serviceKey, slices, {
      nodeName: deps.nodeName,
      ignored: () => void ignored++,
      known: (slice, endpoint) => known(serviceKey, slice, endpoint),
    });
    let changed = false;
    for (const key of before.keys())
      if (!after.has(key)) {
        changed = true;
        counts[family] -= before.get(key)!.length;
        deps.onDirty(family, key);
      }
    for (const [key, endpoints] of after) {
      const old = before.get(key);
      if (old && sameEndpoints(old, endpoints)) {
        after.set(key, old);
        continue;
      }
      changed = true;
      counts[family] += endpoints.length - (old?.length ?? 0);
      deps.onDirty(family, key);
    }
    entry.ports = after;
    if (entry.slices.size === 0) services[family].delete(serviceKey);
    return changed;
  };

  const remove = (slice: EndpointSlice, name: string): void => {
    const family = familyOf(slice);
    const serviceKey = serviceKeyOf(slice);
    if (!family || serviceKey === undefined) return;
    local.delete(`${family} ${name}`);
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
    if (slice.endpoints?.some(isOwn)) local.set(`${family} ${name}`, { family, serviceKey, slice });
    else local.delete(`${family} ${name}`);
    // Where nothing is to be written, nothing is to be waited for.
    if (!remerge(family, serviceKey, entry)) return;
    const time = triggerTime(slice);
    if (time !== undefined && time > deps.startedAtMs && entry.triggers.length < 1_000)
      entry.triggers.push({ time, order: order - 1 });
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
      const taken = entry.triggers.filter((trigger) => trigger.order < nextOrder[family]);
      entry.triggers = entry.triggers.filter((trigger) => trigger.order >= nextOrder[family]);
      return taken.map(({ time }) => time);
    },
    beginWrite(family) {
      nextOrder[family] = order;
    },
    hint(podUid, serving) {
      if (serving) hints.set(podUid, serving);
      else if (!hints.delete(podUid)) return;
      const touched = new Map<string, [IpFamily, string]>();
      for (const { family, serviceKey, slice } of local.values())
        if (slice.endpoints?.some(({ targetRef }) => targetRef?.uid === podUid))
          touched.set(`${family} ${serviceKey}`, [family, serviceKey]);
      for (const [family, serviceKey] of touched.values()) {
        const entry = services[family].get(serviceKey);
        if (entry) remerge(family, serviceKey, entry);
      }
    },
    changesTotal: () => changes,
    ignoredTotal: () => ignored,
  };
}
