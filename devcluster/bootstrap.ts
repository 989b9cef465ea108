// What is in a cluster from its beginning: namespaces, priority classes, roles, the Service of the API itself, cluster-info for those who join.
import { createHmac } from 'node:crypto';
import type { Secret } from '../kube/types/core.ts';
import { addressAt, familyOf, parseRange } from './addresses.ts';
import type { Rule } from './authorize.ts';
import { kindByName } from './kinds.ts';
import type { Registry, User } from './registry.ts';
import type { Obj } from './store.ts';

export interface BootstrapOptions {
  readonly serviceCidrs: readonly string[];
  readonly port: number;
  /** Where pods reach the API server; undefined: its Service has no endpoints. */
  readonly advertiseAddress: string | undefined;
  readonly infoKubeconfig: string;
  /** Whether nodes may read what a proxy reads, as their own identity. */
  readonly nodesMayProxy: boolean;
}

export const system: User = { name: 'system:apiserver', groups: ['system:masters'] };
const rbac = 'rbac.authorization.k8s.io';

const rule = (verbs: string, group: string, resources: string): Rule => ({
  verbs: verbs.split(' '),
  apiGroups: [group],
  resources: resources.split(' '),
});

const clusterRoles: Readonly<Record<string, Rule[]>> = {
  'cluster-admin': [rule('*', '*', '*'), { verbs: ['*'], nonResourceURLs: ['*'] }],
  view: [
    rule(
      'get list watch',
      '',
      'configmaps endpoints events namespaces persistentvolumeclaims pods pods/log pods/status serviceaccounts services',
    ),
    rule('get list watch', 'apps', 'deployments deployments/scale replicasets replicasets/scale'),
    rule('get list watch', 'discovery.k8s.io', 'endpointslices'),
  ],
  'system:node-proxier': [
    rule('list watch', '', 'services endpoints'),
    rule('get list watch', '', 'nodes'),
    rule('create patch update', '', 'events'),
    rule('create patch update', 'events.k8s.io', 'events'),
    rule('list watch', 'discovery.k8s.io', 'endpointslices'),
    rule('list watch', 'networking.k8s.io', 'servicecidrs'),
  ],
  'system:kubelet-api-admin': [
    rule('get list watch', '', 'nodes'),
    rule('*', '', 'nodes/log nodes/metrics nodes/proxy nodes/stats nodes/configz nodes/healthz nodes/pods'),
  ],
  'system:service-account-issuer-discovery': [
    { verbs: ['get'], nonResourceURLs: ['/.well-known/openid-configuration', '/openid/v1/jwks'] },
  ],
};

const binding = (name: string, role: string, kind: 'Group' | 'User', subject: string): Obj => ({
  metadata: { name },
  roleRef: { apiGroup: rbac, kind: 'ClusterRole', name: role },
  subjects: [{ kind, name: subject, apiGroup: rbac }],
});

export function bootstrap(registry: Registry, options: BootstrapOptions): void {
  const make = (plural: string, group: string, object: Obj): void => {
    registry.create(kindByName(plural, group), object, { user: system, dryRun: false });
  };
  for (const name of ['default', 'kube-system', 'kube-public', 'kube-node-lease'])
    make('namespaces', '', { metadata: { name } });
  make('priorityclasses', 'scheduling.k8s.io', { metadata: { name: 'system-cluster-critical' }, value: 2_000_000_000 });
  make('priorityclasses', 'scheduling.k8s.io', { metadata: { name: 'system-node-critical' }, value: 2_000_001_000 });
  for (const [name, rules] of Object.entries(clusterRoles)) make('clusterroles', rbac, { metadata: { name }, rules });
  make('clusterrolebindings', rbac, binding('cluster-admin', 'cluster-admin', 'Group', 'system:masters'));
  make('clusterrolebindings', rbac, binding('system:node-proxier', 'system:node-proxier', 'User', 'system:kube-proxy'));
  make(
    'clusterrolebindings',
    rbac,
    binding(
      'system:service-account-issuer-discovery',
      'system:service-account-issuer-discovery',
      'Group',
      'system:serviceaccounts',
    ),
  );
  if (options.nodesMayProxy)
    make('clusterrolebindings', rbac, binding('stevedore:nodes-proxy', 'system:node-proxier', 'Group', 'system:nodes'));
  make('servicecidrs', 'networking.k8s.io', {
    metadata: { name: 'kubernetes' },
    spec: { cidrs: [...options.serviceCidrs] },
  });
  makeClusterInfo(make, options.infoKubeconfig);
  makeOwnService(make, options);
}

type Make = (plural: string, group: string, object: Obj) => void;

function makeOwnService(make: Make, { serviceCidrs, port, advertiseAddress }: BootstrapOptions): void {
  const clusterIP = addressAt(parseRange(serviceCidrs[0]!), 1);
  const labels = { component: 'apiserver', provider: 'kubernetes' };
  make('services', '', {
    metadata: { name: 'kubernetes', namespace: 'default', labels },
    spec: { clusterIP, ports: [{ name: 'https', port: 443, protocol: 'TCP', targetPort: port }] },
  });
  if (!advertiseAddress) return;
  make('endpointslices', 'discovery.k8s.io', {
    metadata: { name: 'kubernetes', namespace: 'default', labels: { 'kubernetes.io/service-name': 'kubernetes' } },
    addressType: familyOf(advertiseAddress),
    endpoints: [{ addresses: [advertiseAddress], conditions: { ready: true } }],
    ports: [{ name: 'https', port, protocol: 'TCP' }],
  });
}

function makeClusterInfo(make: Make, kubeconfig: string): void {
  make('configmaps', '', { metadata: { name: 'cluster-info', namespace: 'kube-public' }, data: { kubeconfig } });
  make('roles', rbac, {
    metadata: { name: 'kubeadm:bootstrap-signer-clusterinfo', namespace: 'kube-public' },
    rules: [{ verbs: ['get'], apiGroups: [''], resources: ['configmaps'], resourceNames: ['cluster-info'] }],
  });
  make('rolebindings', rbac, {
    metadata: { name: 'kubeadm:bootstrap-signer-clusterinfo', namespace: 'kube-public' },
    roleRef: { apiGroup: rbac, kind: 'Role', name: 'kubeadm:bootstrap-signer-clusterinfo' },
    subjects: [{ kind: 'User', name: 'system:anonymous', apiGroup: rbac }],
  });
}

const encode = (value: string): string => Buffer.from(value).toString('base64url');

/** Signs cluster-info with every bootstrap token that says so, each time such a token comes or goes. */
export function signClusterInfo(registry: Registry): () => void {
  const secrets = registry.collectionOf(kindByName('secrets'));
  const sign = (): void => {
    const tokens = (secrets.list('kube-system') as unknown as Secret[]).filter(
      ({ type }) => type === 'bootstrap.kubernetes.io/token',
    );
    registry.update(
      kindByName('configmaps'),
      'kube-public',
      'cluster-info',
      { user: system, dryRun: false },
      (current) => {
        const data = current.data as Record<string, string>;
        const signed: Record<string, string> = { kubeconfig: data.kubeconfig ?? '' };
        for (const { data: fields = {} } of tokens) {
          const read = (key: string): string => Buffer.from(fields[key] ?? '', 'base64').toString('utf8');
          if (read('usage-bootstrap-signing') !== 'true') continue;
          const head = encode(JSON.stringify({ alg: 'HS256', kid: read('token-id') }));
          const mac = createHmac('sha256', read('token-secret'))
            .update(`${head}.${encode(signed.kubeconfig!)}`)
            .digest('base64url');
          signed[`jws-kubeconfig-${read('token-id')}`] = `${head}..${mac}`;
        }
        return { ...current, data: signed };
      },
    );
  };
  return secrets.subscribe(({ object }) => {
    if (object.metadata.namespace === 'kube-system' && object.metadata.name.startsWith('bootstrap-token-')) sign();
  });
}
