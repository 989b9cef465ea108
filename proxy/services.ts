// Follows Services: what each has in either IP family, and which of its ports a change touched.
import type { Change } from '../kube/store.ts';
import type { Service, ServicePort as ApiServicePort } from '../kube/types/core.ts';
import { ipFamilies, type IpFamily, parseCidr, parseIp } from './addresses.ts';
import { type Protocol, sameServicePort, servicePortKey, type ServicePort, type ServicePortKey } from './model.ts';

/** Services that another proxy serves, and headless ones, are left out at the watch itself, as kube-proxy does since 1.36. */
export const serviceSelection = {
  labelSelector: '!service.kubernetes.io/service-proxy-name',
  fieldSelector: 'spec.clusterIP!=None',
};
/** Slices of a Service that another proxy serves are not left out: its label may have been taken away before theirs. */
export const sliceSelection = { labelSelector: '!service.kubernetes.io/headless' };

export interface ServiceTracker {
  /** Takes in a change of the watch. */
  change(change: Change<Service>): void;
  get(family: IpFamily, key: ServicePortKey): ServicePort | undefined;
  keys(family: IpFamily): Iterable<ServicePortKey>;
  count(family: IpFamily): number;
  /** The ports of a Service (`namespace/name`) in this family. */
  keysOf(family: IpFamily, serviceKey: string): readonly ServicePortKey[];
  /** `namespace/name` of the Services with a health check node port, and that port. */
  healthChecks(): ReadonlyMap<string, number>;
  /** Its endpoints are the pods it selects, as ready as these are. */
  followsPods(serviceKey: string): boolean;
  /** Changes taken in so far. */
  changesTotal(): number;
}

export interface ServiceTrackerDeps {
  /** Addresses of `spec.externalIPs` are served; default true. */
  readonly externalIPs?: boolean;
  /** The port was added, changed or removed. */
  onDirty(family: IpFamily, key: ServicePortKey): void;
}

const isSkipped = (service: Service): boolean => {
  const { clusterIP, type } = service.spec;
  return clusterIP === undefined || clusterIP === '' || clusterIP === 'None' || type === 'ExternalName';
};

const clusterIpOf = (service: Service, family: IpFamily): string | undefined => {
  const { ipFamilies: declared, clusterIPs = [], clusterIP } = service.spec;
  const text = declared?.length ? clusterIPs[declared.indexOf(family)] : clusterIP;
  const ip = text === undefined ? undefined : parseIp(text);
  return ip?.family === family ? ip.text : undefined;
};

const unique = (texts: readonly string[]): string[] => [...new Set(texts)];

const ipsOf = (texts: readonly string[], family: IpFamily): string[] =>
  unique(texts.map(parseIp).flatMap((ip) => (ip?.family === family ? [ip.text] : [])));

// A range of all addresses means the same as no ranges. Ranges of the other family alone mean no filter in this one, as upstream.
const rangesOf = (texts: readonly string[], family: IpFamily): string[] => {
  const cidrs = texts.map(parseCidr).flatMap((cidr) => (cidr?.family === family ? [cidr] : []));
  return cidrs.some((cidr) => cidr.prefix === 0) ? [] : unique(cidrs.map((cidr) => cidr.text));
};

const defaultAffinitySeconds = 10_800;

/** The ports of a Service in one family; none where it is headless, an ExternalName, or has no cluster IP of that family. */
export function servicePortsOf(service: Service, family: IpFamily, servesExternalIPs = true): ServicePort[] {
  if (isSkipped(service)) return [];
  const clusterIP = clusterIpOf(service, family);
  if (clusterIP === undefined) return [];
  const { spec, metadata } = service;
  const namespace = metadata.namespace ?? '';
  const external =
    spec.type === 'LoadBalancer' ||
    spec.type === 'NodePort' ||
    (spec.externalIPs !== undefined && spec.externalIPs.length > 0);
  const externalPolicyLocal = external && spec.externalTrafficPolicy === 'Local';
  const ingress = service.status?.loadBalancer?.ingress ?? [];
  const vips = ingress.filter(({ ip, ipMode }) => ip && (ipMode ?? 'VIP') === 'VIP').map(({ ip }) => ip!);
  const affinity = spec.sessionAffinity === 'ClientIP';
  const shared = {
    family,
    namespace,
    name: metadata.name,
    clusterIP,
    externalIPs: servesExternalIPs ? ipsOf(spec.externalIPs ?? [], family) : [],
    loadBalancerVIPs: ipsOf(vips, family),
    sourceRanges: rangesOf(spec.loadBalancerSourceRanges ?? [], family),
    affinitySeconds: affinity ? (spec.sessionAffinityConfig?.clientIP?.timeoutSeconds ?? defaultAffinitySeconds) : 0,
    internalPolicyLocal: spec.internalTrafficPolicy === 'Local',
    externalPolicyLocal,
    healthCheckNodePort: spec.type === 'LoadBalancer' && externalPolicyLocal ? (spec.healthCheckNodePort ?? 0) : 0,
  };
  return (spec.ports ?? []).map((port: ApiServicePort): ServicePort => {
    const protocol: Protocol = port.protocol ?? 'TCP';
    const portName = port.name ?? '';
    return {
      key: servicePortKey(namespace, metadata.name, portName, protocol),
      ...shared,
      portName,
      protocol,
      port: port.port,
      nodePort: port.nodePort ?? 0,
    };
  });
}

export function createServiceTracker(deps: ServiceTrackerDeps): ServiceTracker {
  const ports: Record<IpFamily, Map<ServicePortKey, ServicePort>> = { IPv4: new Map(), IPv6: new Map() };
  const keysByService: Record<IpFamily, Map<string, readonly ServicePortKey[]>> = { IPv4: new Map(), IPv6: new Map() };
  const checks = new Map<string, number>();
  const following = new Set<string>();
  let total = 0;

  const changeFamily = (family: IpFamily, serviceKey: string, after: Service | undefined): void => {
    const known = ports[family];
    const next = after ? servicePortsOf(after, family, deps.externalIPs) : [];
    const keep = new Set(next.map((port) => port.key));
    for (const key of keysByService[family].get(serviceKey) ?? [])
      if (!keep.has(key)) {
        known.delete(key);
        deps.onDirty(family, key);
      }
    if (next.length === 0) keysByService[family].delete(serviceKey);
    else keysByService[family].set(serviceKey, [...keep]);
    for (const port of next) {
      const before = known.get(port.key);
      if (before && sameServicePort(before, port)) continue;
      known.set(port.key, port);
      deps.onDirty(family, port.key);
    }
  };

  return {
    change({ key, after }) {
      total++;
      for (const family of ipFamilies) changeFamily(family, key, after);
      const { selector = {}, publishNotReadyAddresses = false } = after?.spec ?? {};
      if (Object.keys(selector).length > 0 && !publishNotReadyAddresses) following.add(key);
      else following.delete(key);
      const check = ipFamilies
        .flatMap((family) => (after ? servicePortsOf(after, family) : []))
        .find((port) => port.healthCheckNodePort !== 0)?.healthCheckNodePort;
      if (check === undefined) checks.delete(key);
      else checks.set(key, check);
    },
    get: (family, key) => ports[family].get(key),
    keys: (family) => ports[family].keys(),
    count: (family) => ports[family].size,
    keysOf: (family, serviceKey) => keysByService[family].get(serviceKey) ?? [],
    healthChecks: () => checks,
    followsPods: (serviceKey) => following.has(serviceKey),
    changesTotal: () => total,
  };
}
