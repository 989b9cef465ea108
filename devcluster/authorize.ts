// Who may do what: RBAC as it is stored, what every node may, and what comes with the cluster.
import type { KubeObject } from '../kube/types/meta.ts';
import type { Registry } from './registry.ts';

export interface User {
  readonly name: string;
  readonly groups: readonly string[];
  readonly uid?: string;
  readonly extra?: Readonly<Record<string, readonly string[]>>;
}

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

export type Authorize = (user: User, attributes: Attributes) => boolean;

/** `verbs group resources`, words separated by commas; the core group is empty. */
export function rule(text: string): Rule {
  const [verbs = '', group = '', resources = ''] = text.split(' ');
  return { verbs: verbs.split(','), apiGroups: [group], resources: resources.split(',') };
}

// The Node authorizer's rules, without its graph: this is one machine's cluster.
const nodeRules = [
  'get,list,watch  services,configmaps,secrets,persistentvolumeclaims,persistentvolumes,serviceaccounts',
  'create,get,list,watch,update,patch  nodes',
  'update,patch  nodes/status,pods/status,persistentvolumeclaims/status',
  'create,get,list,watch,delete  pods',
  'create  pods/eviction,serviceaccounts/token',
  'create,update,patch  events',
  'get,create,update,patch,delete coordination.k8s.io leases',
  'create authentication.k8s.io tokenreviews',
  'create authorization.k8s.io subjectaccessreviews,localsubjectaccessreviews',
  'get,list,watch node.k8s.io runtimeclasses',
  'get,list,watch storage.k8s.io csidrivers,volumeattachments',
  'get,create,update,patch,delete storage.k8s.io csinodes',
].map(rule);

const everybody: readonly Rule[] = [
  { verbs: ['get'], nonResourceURLs: ['/healthz', '/livez', '/readyz', '/version', '/version/'] },
];

const authenticated: readonly Rule[] = [
  { verbs: ['get'], nonResourceURLs: ['/api', '/api/*', '/apis', '/apis/*', '/openapi', '/openapi/*'] },
  rule('create authorization.k8s.io selfsubjectaccessreviews'),
  rule('create authentication.k8s.io selfsubjectreviews'),
];

export function createAuthorize({ registry }: { readonly registry: Registry }): Authorize {
  return (user, asked) => {
    const { name, groups } = user;
    if (groups.includes('system:masters')) return true;
    const own = [
      ...everybody,
      ...(groups.includes('system:authenticated') ? authenticated : []),
      ...(groups.includes('system:nodes') && name.startsWith('system:node:') ? nodeRules : []),
    ];
    if (own.some((one) => allows(one, asked))) return true;
    const scopes = asked.namespace ? [undefined, asked.namespace] : [undefined];
    return scopes.some((namespace) => byBindings(registry, user, asked, namespace));
  };
}

function byBindings(registry: Registry, user: User, asked: Attributes, namespace: string | undefined): boolean {
  const bindings = registry.all<Binding>(namespace ? 'rolebindings' : 'clusterrolebindings', namespace);
  return bindings.some(({ subjects, roleRef }) => {
    const bound = subjects?.some((subject) => {
      if (subject.kind === 'Group') return user.groups.includes(subject.name);
      if (subject.kind === 'User') return user.name === subject.name;
      return user.name === `system:serviceaccount:${subject.namespace ?? namespace}:${subject.name}`;
    });
    if (!bound) return false;
    const role =
      roleRef.kind === 'ClusterRole'
        ? registry.find<Role>('clusterroles', undefined, roleRef.name)
        : registry.find<Role>('roles', namespace, roleRef.name);
    return role?.rules?.some((one) => allows(one, asked)) ?? false;
  });
}

const covers = (list: readonly string[] | undefined, value: string): boolean =>
  list?.some((one) => one === '*' || one === value) ?? false;

function allows(one: Rule, { verb, path, group = '', resource = '', subresource, name = '' }: Attributes): boolean {
  if (!covers(one.verbs, verb)) return false;
  const matches = (url: string): boolean => (url.endsWith('*') ? path!.startsWith(url.slice(0, -1)) : url === path);
  if (path !== undefined) return one.nonResourceURLs?.some(matches) ?? false;
  const what = subresource ? `${resource}/${subresource}` : resource;
  if (!covers(one.apiGroups, group) || !covers(one.resources, what)) return false;
  return !one.resourceNames?.length || one.resourceNames.includes(name);
}

/** The API server's words for a request that may not be made. */
export function refusalOf(user: User, asked: Attributes): string {
  if (asked.path !== undefined) return `forbidden: User "${user.name}" cannot ${asked.verb} path "${asked.path}"`;
  const resource = `${asked.resource}${asked.group ? `.${asked.group}` : ''}`;
  const what = asked.name ? `${resource} "${asked.name}" is forbidden` : `${resource} is forbidden`;
  const where = asked.namespace ? ` in the namespace "${asked.namespace}"` : ' at the cluster scope';
  const part = asked.subresource ? `${asked.resource}/${asked.subresource}` : asked.resource;
  return `${what}: User "${user.name}" cannot ${asked.verb} resource "${part}" in API group "${asked.group ?? ''}"${where}`;
}
