// Who is asking, and what they may do: a table of grants, and every right for system:masters. There are no roles to bind: a cluster where
// others than its administrator and its nodes work is a real one.
import type { TLSSocket } from 'node:tls';
import type { Tokens } from './tokens.ts';

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
  readonly subresource?: string | undefined;
  readonly namespace?: string | undefined;
  readonly name?: string | undefined;
  /** For what is no resource, such as /healthz. */
  readonly path?: string;
}

const anonymous: User = { name: 'system:anonymous', groups: ['system:unauthenticated'] };

/** By client certificate, by token, or nobody; undefined where the credentials are wrong, which is another thing than none. */
export function authenticate(tokens: Tokens, socket: TLSSocket, authorization: string | undefined): User | undefined {
  const { CN: name, O: groups = [] } = (socket.authorized && socket.getPeerCertificate().subject) || {};
  if (name) return { name: String(name), groups: [...[groups].flat(), 'system:authenticated'] };
  const bearer = authorization?.match(/^Bearer\s+(.+)$/i)?.[1];
  return bearer ? tokens.authenticate(bearer)?.user : anonymous;
}

// Group or user, verbs, then resources with their group where it is not the core one, or paths. Nodes: as the Node authorizer, without its
// graph, as this is one machine's cluster, and with what a proxy reads.
const grants = `
system:masters * *
system:unauthenticated get /healthz,/livez,/readyz,/version
system:authenticated get /healthz,/livez,/readyz,/version,/api,/apis,/apis/*,/api/*,/openapi/*
system:nodes get,list,watch services,configmaps,secrets,persistentvolumeclaims,persistentvolumes,serviceaccounts
system:nodes create,get,list,watch,update,patch nodes
system:nodes update,patch nodes/status,pods/status,persistentvolumeclaims/status
system:nodes create,get,list,watch,delete pods
system:nodes create serviceaccounts/token,tokenreviews.authentication.k8s.io,subjectaccessreviews.authorization.k8s.io
system:nodes create,update,patch events
system:nodes get,list,watch runtimeclasses.node.k8s.io,csidrivers.storage.k8s.io,volumeattachments.storage.k8s.io
system:nodes get,create,update,patch,delete leases.coordination.k8s.io,csinodes.storage.k8s.io
system:nodes get,list,watch endpointslices.discovery.k8s.io
system:kube-proxy get,list,watch nodes,services,endpointslices.discovery.k8s.io
system:kube-proxy create,update,patch events
`;

const rules = grants
  .trim()
  .split('\n')
  .map((line) => line.split(' '))
  .map(([who = '', verbs = '', what = '']) => ({ who, verbs: verbs.split(','), what: what.split(',') }));

export type Authorize = (user: User, asked: Attributes) => boolean;

/** `pods/log`, `deployments/scale.apps` or a path. */
const subjectOf = ({ path, resource = '', subresource, group }: Attributes): string =>
  path ?? `${resource}${subresource ? `/${subresource}` : ''}${group ? `.${group}` : ''}`;

const covers = (granted: string, asked: string): boolean =>
  granted.endsWith('*') ? asked.startsWith(granted.slice(0, -1)) : granted === asked;

export const authorize: Authorize = ({ name, groups }, asked) =>
  rules.some(
    ({ who, verbs, what }) =>
      (who === name || groups.includes(who)) &&
      verbs.some((verb) => covers(verb, asked.verb)) &&
      what.some((one) => covers(one, subjectOf(asked))),
  );

/** The API server's words for a request that may not be made. */
export function refusalOf(user: User, asked: Attributes): string {
  if (asked.path !== undefined) return `forbidden: User "${user.name}" cannot ${asked.verb} path "${asked.path}"`;
  const resource = `${asked.resource}${asked.group ? `.${asked.group}` : ''}`;
  const what = asked.name ? `${resource} "${asked.name}" is forbidden` : `${resource} is forbidden`;
  const where = asked.namespace ? ` in the namespace "${asked.namespace}"` : ' at the cluster scope';
  const part = asked.subresource ? `${asked.resource}/${asked.subresource}` : asked.resource;
  return `${what}: User "${user.name}" cannot ${asked.verb} resource "${part}" in API group "${asked.group ?? ''}"${where}`;
}
