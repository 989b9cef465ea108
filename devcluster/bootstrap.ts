// What is in a cluster from its beginning: namespaces, priority classes, roles, the Service of the API itself.
import { addressAt, familyOf, parseRange } from './addresses.ts';
import { type Rule, rule } from './authorize.ts';
import { kindByName } from './kinds.ts';
import type { Registry } from './registry.ts';

export interface BootstrapOptions {
  readonly serviceCidr: string;
  readonly port: number;
  /** Where pods reach the API server; undefined: its Service has no endpoints. */
  readonly advertiseAddress: string | undefined;
  /** Whether nodes may read what a proxy reads, as their own identity. */
  readonly nodesMayProxy: boolean;
}

const clusterRoles: Readonly<Record<string, Rule[]>> = {
  'cluster-admin': [rule('* * *'), { verbs: ['*'], nonResourceURLs: ['*'] }],
  'system:node-proxier': [
    rule('list,watch  services,endpoints'),
    rule('get,list,watch  nodes'),
    rule('create,patch,update  events'),
    rule('list,watch discovery.k8s.io endpointslices'),
  ],
};

const priorities = { 'system-cluster-critical': 2_000_000_000, 'system-node-critical': 2_000_001_000 };

const apiGroup = 'rbac.authorization.k8s.io';

export function bootstrap(registry: Registry, options: BootstrapOptions): void {
  const make = (plural: string, name: string, fields: object, metadata: object = {}): void =>
    void registry.create(kindByName(plural), { metadata: { name, ...metadata }, ...fields });
  const bind = (name: string, role: string, kind: 'Group' | 'User', subject: string): void =>
    make('clusterrolebindings', name, {
      roleRef: { apiGroup, kind: 'ClusterRole', name: role },
      subjects: [{ kind, name: subject, apiGroup }],
    });
  for (const name of ['default', 'kube-system', 'kube-public', 'kube-node-lease']) make('namespaces', name, {});
  for (const [name, value] of Object.entries(priorities)) make('priorityclasses', name, { value });
  for (const [name, rules] of Object.entries(clusterRoles)) make('clusterroles', name, { rules });
  bind('cluster-admin', 'cluster-admin', 'Group', 'system:masters');
  bind('system:node-proxier', 'system:node-proxier', 'User', 'system:kube-proxy');
  if (options.nodesMayProxy) bind('stevedore:nodes-proxy', 'system:node-proxier', 'Group', 'system:nodes');

  const { serviceCidr, port, advertiseAddress } = options;
  const clusterIP = addressAt(parseRange(serviceCidr), 1);
  const labels = { component: 'apiserver', provider: 'kubernetes' };
  const ports = [{ name: 'https', port: 443, protocol: 'TCP', targetPort: port }];
  make('services', 'kubernetes', { spec: { clusterIP, ports } }, { namespace: 'default', labels });
  if (!advertiseAddress) return;
  const slice = {
    addressType: familyOf(advertiseAddress),
    endpoints: [{ addresses: [advertiseAddress], conditions: { ready: true } }],
    ports: [{ name: 'https', port, protocol: 'TCP' }],
  };
  const sliceLabels = { ...labels, 'kubernetes.io/service-name': 'kubernetes' };
  make('endpointslices', 'kubernetes', slice, { namespace: 'default', labels: sliceLabels });
}
