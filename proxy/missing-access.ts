// What to tell an operator whose node may not list what a Service proxy needs. Pure.
import { isForbidden } from '../kube/errors.ts';

export interface MissingAccess {
  /** One sentence. */
  readonly summary: string;
  /** With the object that mends it. */
  readonly message: string;
}

/** Undefined where the error is another one. */
export function missingAccess(error: unknown, nodeName: string): MissingAccess | undefined {
  if (!isForbidden(error)) return undefined;
  const user = /User "([^"]+)"/.exec(error.message)?.[1] ?? `system:node:${nodeName}`;
  const what = /cannot (?:list|watch|get) resource "([^"]+)"/.exec(error.message)?.[1] ?? 'endpointslices';
  const name = `stevedore-proxy-${user.replace(/[^a-z0-9.-]+/gi, '-').toLowerCase()}`;
  const summary = `${user} may not list ${what}: no Service is served by this node until a ClusterRoleBinding to system:node-proxier allows it`;
  return {
    summary,
    message: `${summary}. Apply this, or give clientConnection.kubeconfig of another identity in KubeProxyConfiguration; it is tried again until it works:
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: ${name}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: system:node-proxier
subjects:
- apiGroup: rbac.authorization.k8s.io
  kind: User
  name: ${user}
`,
  };
}
