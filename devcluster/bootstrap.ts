// What is in a cluster from its beginning: namespaces, and the Service of the API itself.
import { addressAt, familyOf, parseRange } from './addresses.ts';
import { kindByName } from './kinds.ts';
import type { Registry } from './registry.ts';

export interface BootstrapOptions {
  readonly serviceCidr: string;
  readonly port: number;
  /** Where pods reach the API server; undefined: its Service has no endpoints. */
  readonly advertiseAddress: string | undefined;
}

export function bootstrap(registry: Registry, { serviceCidr, port, advertiseAddress }: BootstrapOptions): void {
  const make = (plural: string, fields: object, metadata: { readonly name: string; readonly namespace?: string }) =>
    registry.create(kindByName(plural), { metadata, ...fields });
  for (const name of ['default', 'kube-system', 'kube-public', 'kube-node-lease']) make('namespaces', {}, { name });
  const clusterIP = addressAt(parseRange(serviceCidr), 1);
  const own = { name: 'kubernetes', namespace: 'default' };
  const ports = [{ name: 'https', port: 443, protocol: 'TCP', targetPort: port }];
  make('services', { spec: { clusterIP, ports } }, own);
  if (!advertiseAddress) return;
  const slice = {
    addressType: familyOf(advertiseAddress),
    endpoints: [{ addresses: [advertiseAddress], conditions: { ready: true } }],
    ports: [{ name: 'https', port, protocol: 'TCP' }],
  };
  const labels = { 'kubernetes.io/service-name': 'kubernetes' };
  make('endpointslices', slice, { ...own, ...{ labels } });
}
