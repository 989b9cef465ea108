// Who may do what: RBAC as it is stored, what every node may, and what comes with the cluster.
import type { KubeObject } from '../kube/types/meta.ts';
import type { User } from './registry.ts';

export interface Attributes {
  readonly verb: string;
  readonly group?: string;
  readonly resource?: string;
  readonly subresource?: string;
  readonly namespace?: string;
  readonly name?: string;
  /** For what is no resource, such as /healthz. */
  readonly path?: string;
}

export interface Rule {
  verbs: string[];
  apiGroups?: string[];
  resources?: string[];
  resourceNames?: string[];
  nonResourceURLs?: string[];
}

interface Role extends KubeObject {
  rules?: Rule[] | null;
}

interface Binding extends KubeObject {
  roleRef: { kind: string; name: string };
  subjects?: { kind: string; name: string; namespace?: string }[];
}

export interface AuthorizeDeps {
  role(namespace: string | undefined, name: string): Role | undefined;
  bindings(namespace: string | undefined): readonly Binding[];
}

export type Authorize = (user: User, attributes: Attributes) => boolean;

const rule = (verbs: string, group: string, resources: string): Rule => ({
  verbs: verbs.split(' '),
  apiGroups: [group],
  resources: resources.split(' '),
});

// The Node authorizer's rules, without its graph: this is one machine's cluster.
const nodeRules: readonly Rule[] = [
  rule('get list watch', '', 'services'),
  rule('create get list watch', '', 'nodes'),
  rule('update patch', '', 'nodes nodes/status'),
  rule('create get list watch delete', '', 'pods'),
  rule('update patch', '', 'pods/status'),
  rule('create', '', 'pods/eviction serviceaccounts/token'),
  rule('create update patch', '', 'events'),
  rule('create update patch', 'events.k8s.io', 'events'),
  rule('get list watch', '', 'configmaps secrets persistentvolumeclaims persistentvolumes serviceaccounts'),
  rule('update patch', '', 'persistentvolumeclaims/status'),
  rule('get create update patch delete', 'coordination.k8s.io', 'leases'),
  rule('create', 'authentication.k8s.io', 'tokenreviews'),
  rule('create', 'authorization.k8s.io', 'subjectaccessreviews localsubjectaccessreviews'),
  rule('create get list watch', 'certificates.k8s.io', 'certificatesigningrequests'),
  rule('get list watch', 'node.k8s.io', 'runtimeclasses'),
  rule('get list watch', 'storage.k8s.io', 'csidrivers volumeattachments'),
  rule('get create update patch delete', 'storage.k8s.io', 'csinodes'),
];

const everybody: readonly Rule[] = [
  { verbs: ['get'], nonResourceURLs: ['/healthz', '/livez', '/readyz', '/version', '/version/'] },
];

const authenticated: readonly Rule[] = [
  {
    verbs: ['get'],
    nonResourceURLs: ['/api', '/api/*', '/apis', '/apis/*', '/openapi', '/openapi/*', '/.well-known/*', '/openid/*'],
  },
  rule('create', 'authorization.k8s.io', 'selfsubjectaccessreviews selfsubjectrulesreviews'),
  rule('create', 'authentication.k8s.io', 'selfsubjectreviews'),
];

const bootstrappers: readonly Rule[] = [
  rule('create get list watch', 'certificates.k8s.io', 'certificatesigningrequests'),
  { verbs: ['get'], apiGroups: [''], resources: ['nodes'] },
  {
    verbs: ['get'],
    apiGroups: [''],
    resources: ['configmaps'],
    resourceNames: ['kubeadm-config', 'kubelet-config', 'kube-proxy'],
  },
];

export function createAuthorize(deps: AuthorizeDeps): Authorize {
  return (user, asked) => {
    const { groups } = user;
    if (groups.includes('system:masters')) return true;
    if (everybody.some((one) => allows(one, asked))) return true;
    if (groups.includes('system:authenticated') && authenticated.some((one) => allows(one, asked))) return true;
    if (
      groups.includes('system:nodes') &&
      user.name.startsWith('system:node:') &&
      nodeRules.some((one) => allows(one, asked))
    )
      return true;
    if (groups.includes('system:bootstrappers') && bootstrappers.some((one) => allows(one, asked))) return true;
    return (
      byBindings(deps, user, asked, undefined) ||
      (asked.namespace ? byBindings(deps, user, asked, asked.namespace) : false)
    );
  };
}

function byBindings(deps: AuthorizeDeps, user: User, asked: Attributes, namespace: string | undefined): boolean {
  return deps.bindings(namespace).some((binding) => {
    const bound = binding.subjects?.some((subject) => {
      if (subject.kind === 'Group') return user.groups.includes(subject.name);
      if (subject.kind === 'ServiceAccount')
        return user.name === `system:serviceaccount:${subject.namespace ?? namespace}:${subject.name}`;
      return user.name === subject.name;
    });
    if (!bound) return false;
    const { kind, name } = binding.roleRef;
    const role = deps.role(kind === 'ClusterRole' ? undefined : namespace, name);
    return role?.rules?.some((one) => allows(one, asked)) ?? false;
  });
}

const covers = (list: readonly string[] | undefined, value: string): boolean =>
  list?.some((one) => one === '*' || one === value) ?? false;

function allows(one: Rule, asked: Attributes): boolean {
  if (!covers(one.verbs, asked.verb)) return false;
  if (asked.path !== undefined)
    return (
      one.nonResourceURLs?.some(
        (url) => url === asked.path || url === '*' || (url.endsWith('*') && asked.path!.startsWith(url.slice(0, -1))),
      ) ?? false
    );
  const resource = asked.subresource ? `${asked.resource}/${asked.subresource}` : (asked.resource ?? '');
  if (!covers(one.apiGroups, asked.group ?? '')) return false;
  if (!covers(one.resources, resource) && !(asked.subresource && covers(one.resources, `*/${asked.subresource}`)))
    return false;
  return !one.resourceNames?.length || one.resourceNames.includes(asked.name ?? '');
}
