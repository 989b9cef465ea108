// Environment variables that tell a container of the Services around it (enableServiceLinks), and always of the API server.
import type { Service } from '../../kube/types/core.ts';

const variableName = (name: string): string => name.replaceAll('-', '_').toUpperCase();

const hostPort = (host: string, port: number): string => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`);

function variablesOf(service: Service): [string, string][] {
  const name = variableName(service.metadata.name);
  const ip = service.spec.clusterIP ?? '';
  const ports = service.spec.ports ?? [];
  const result: [string, string][] = [[`${name}_SERVICE_HOST`, ip]];
  const [first] = ports;
  if (first) result.push([`${name}_SERVICE_PORT`, String(first.port)]);
  for (const port of ports)
    if (port.name) result.push([`${name}_SERVICE_PORT_${variableName(port.name)}`, String(port.port)]);
  for (const [index, port] of ports.entries()) {
    const protocol = (port.protocol ?? 'TCP').toLowerCase();
    const url = `${protocol}://${hostPort(ip, port.port)}`;
    const prefix = `${name}_PORT_${port.port}_${protocol.toUpperCase()}`;
    if (index === 0) result.push([`${name}_PORT`, url]);
    result.push(
      [prefix, url],
      [`${prefix}_PROTO`, protocol],
      [`${prefix}_PORT`, String(port.port)],
      [`${prefix}_ADDR`, ip],
    );
  }
  return result;
}

/** `services` are those of all namespaces, or at least of `namespace` and `default`. Sorted by name. */
export function serviceVariables(
  services: Iterable<Service>,
  namespace: string,
  serviceLinks: boolean,
): ReadonlyMap<string, string> {
  const chosen = new Map<string, Service>();
  for (const service of services) {
    const { name } = service.metadata;
    const of = service.metadata.namespace ?? 'default';
    const ip = service.spec.clusterIP;
    if (!ip || ip === 'None') continue;
    if (of === 'default' && name === 'kubernetes') {
      if (!chosen.has(name)) chosen.set(name, service);
    } else if (of === namespace && serviceLinks) chosen.set(name, service);
  }
  const sorted = [...chosen.values()].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1));
  return new Map(sorted.flatMap(variablesOf));
}
