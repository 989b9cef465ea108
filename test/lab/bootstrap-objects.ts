// What kubeadm leaves in a cluster for nodes to join: a bootstrap token, the permissions to ask for certificates, the kubelet's and the
// proxy's configuration, and cluster-info.
import { readFile } from 'node:fs/promises';
import { randomBytes } from 'node:crypto';
import { exec } from '../../lib/exec.ts';
import type { ControlPlane } from './control-plane.ts';
import { findBinary } from './control-plane.ts';

const binding = (name: string, role: string, group: string) => ({
  apiVersion: 'rbac.authorization.k8s.io/v1',
  kind: 'ClusterRoleBinding',
  metadata: { name },
  roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: role },
  subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: group }],
});

const readable = (name: string, groups: readonly string[], namespace = 'kube-system') => [
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'Role',
    metadata: { name: `read-${name}`, namespace },
    rules: [{ apiGroups: [''], resources: ['configmaps'], resourceNames: [name], verbs: ['get'] }],
  },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'RoleBinding',
    metadata: { name: `read-${name}`, namespace },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: `read-${name}` },
    subjects: groups.map((group) => ({ apiGroup: 'rbac.authorization.k8s.io', kind: 'Group', name: group })),
  },
];

const bootstrappers = 'system:bootstrappers:kubeadm:default-node-token';

export interface BootstrapObjects {
  /** `ID.SECRET`. */
  readonly token: string;
}

export interface BootstrapObjectOptions {
  /** Until when the token holds. Default: an hour from now. */
  readonly expiresAt?: Date;
  /** Documents for the ConfigMaps; absent: no such ConfigMap. */
  readonly kubelet?: string;
  readonly proxy?: string;
}

/** Applies them and returns the token. cluster-info is signed by the controller manager within a moment. */
export async function applyBootstrapObjects(
  plane: ControlPlane,
  options: BootstrapObjectOptions = {},
): Promise<BootstrapObjects> {
  const [id, secret] = [randomBytes(3).toString('hex'), randomBytes(8).toString('hex')];
  const expiration = (options.expiresAt ?? new Date(Date.now() + 3_600_000)).toISOString().replace(/\.\d+Z$/, 'Z');
  const ca = await readFile(plane.caFile, 'utf8');
  const clusterInfo = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      { name: '', cluster: { server: plane.server, 'certificate-authority-data': Buffer.from(ca).toString('base64') } },
    ],
    contexts: null,
    'current-context': '',
    users: null,
  };
  const map = (name: string, namespace: string, data: Record<string, string>) => ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: { name, namespace },
    data,
  });
  const items = [
    {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'bootstrap.kubernetes.io/token',
      metadata: { name: `bootstrap-token-${id}`, namespace: 'kube-system' },
      stringData: {
        'token-id': id,
        'token-secret': secret,
        expiration,
        'usage-bootstrap-authentication': 'true',
        'usage-bootstrap-signing': 'true',
        'auth-extra-groups': bootstrappers,
      },
    },
    binding('kubeadm:kubelet-bootstrap', 'system:node-bootstrapper', bootstrappers),
    binding(
      'kubeadm:node-autoapprove-bootstrap',
      'system:certificates.k8s.io:certificatesigningrequests:nodeclient',
      bootstrappers,
    ),
    binding(
      'kubeadm:node-autoapprove-certificate-rotation',
      'system:certificates.k8s.io:certificatesigningrequests:selfnodeclient',
      'system:nodes',
    ),
    map('cluster-info', 'kube-public', { kubeconfig: JSON.stringify(clusterInfo) }),
    ...readable('cluster-info', ['system:unauthenticated', 'system:authenticated'], 'kube-public'),
    ...(options.kubelet === undefined ? [] : [map('kubelet-config', 'kube-system', { kubelet: options.kubelet })]),
    ...(options.proxy === undefined ? [] : [map('kube-proxy', 'kube-system', { 'config.conf': options.proxy })]),
    ...readable('kubelet-config', ['system:nodes', bootstrappers]),
    ...readable('kube-proxy', ['system:nodes', bootstrappers]),
  ];
  await exec(findBinary('kubectl'), ['--kubeconfig', plane.adminKubeconfig, 'apply', '-f', '-'], {
    input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items }),
  });
  return { token: `${id}.${secret}` };
}
