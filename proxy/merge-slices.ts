// What the EndpointSlices of a Service say together. Pure.
import type { Endpoint as SliceEndpoint, EndpointSlice } from '../kube/types/core.ts';
import { joinHostPort, parseIp } from './addresses.ts';
import { type Endpoint, type Protocol, servicePortKey, type ServicePortKey } from './model.ts';

/** What is known of a pod before its slices tell; it can only take away. */
export interface Serving {
  readonly ready: boolean;
  readonly terminating: boolean;
}

const byAddress = (a: Endpoint, b: Endpoint): number => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : a.port - b.port);

const validPort = (port: number | null | undefined): port is number =>
  typeof port === 'number' && Number.isInteger(port) && port > 0 && port < 65_536;

function conditionsOf(
  { conditions }: SliceEndpoint,
  known: Serving | undefined,
): Pick<Endpoint, 'ready' | 'serving' | 'terminating'> {
  const said = {
    ready: conditions?.ready ?? true,
    serving: conditions?.serving ?? true,
    terminating: conditions?.terminating ?? false,
  };
  if (!known) return said;
  const { ready, terminating } = known;
  return {
    ready: said.ready && ready && !terminating,
    serving: said.serving && ready,
    terminating: said.terminating || terminating,
  };
}

export interface MergeOptions {
  readonly nodeName: string;
  /** Is told of what makes no sense. */
  ignored(what: string): void;
  /** What is known of an endpoint beyond its slice. */
  known?(slice: EndpointSlice, endpoint: SliceEndpoint): Serving | undefined;
}

/** The endpoints of each port, merged from slices given oldest first. */
export function mergeSlices(
  serviceKey: string,
  slices: readonly EndpointSlice[],
  { nodeName, ignored, known }: MergeOptions,
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
        const conditions = conditionsOf(endpoint, known?.(slice, endpoint));
        const address = joinHostPort(ip.text, port.port);
        // Another pod may have taken the address of one that is still going: the living one counts.
        if (conditions.terminating && endpoints.has(address)) continue;
        const zones = endpoint.hints?.forZones ?? [];
        const nodes = endpoint.hints?.forNodes ?? [];
        endpoints.set(address, {
          ip: ip.text,
          port: port.port,
          isLocal: nodeName !== '' && endpoint.nodeName === nodeName,
          ...conditions,
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
