// What the API server's admission adds to a new pod: its service account with the token volume, tolerations, priority. Source: the reference
// of the admission controllers ServiceAccount, DefaultTolerationSeconds, Priority.
import type { ServiceAccount } from '../kube/types/core.ts';
import type { Pod, Toleration } from '../kube/types/pod.ts';
import { type Failure, forbidden } from './failure.ts';
import { randomSuffix } from './names.ts';
import type { StrategyContext } from './strategies.ts';

export function admitPod(context: StrategyContext, pod: Pod): void {
  const { spec } = pod;
  if (!pod.metadata.annotations?.['kubernetes.io/config.mirror']) admitServiceAccount(context, pod);
  admitPriority(pod);
  spec.tolerations = [...(spec.tolerations ?? []), ...['not-ready', 'unreachable'].flatMap(missingToleration(spec))];
}

const refused = (pod: Pod, why: string): Failure => forbidden(`pods "${pod.metadata.name}" is forbidden: ${why}`);

const tokenPath = '/var/run/secrets/kubernetes.io/serviceaccount';
const fieldRef = { apiVersion: 'v1', fieldPath: 'metadata.namespace' };
const tokenSources = [
  { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
  { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
  { downwardAPI: { items: [{ path: 'namespace', fieldRef }] } },
];

function admitServiceAccount(context: StrategyContext, pod: Pod): void {
  const { spec } = pod;
  const { namespace } = pod.metadata;
  spec.serviceAccountName ??= 'default';
  const name = spec.serviceAccountName;
  const account = context.find<ServiceAccount>('serviceaccounts', namespace, name);
  if (!account)
    throw refused(pod, `error looking up service account ${namespace}/${name}: serviceaccount "${name}" not found`);
  if (!spec.imagePullSecrets?.length && account.imagePullSecrets?.length)
    spec.imagePullSecrets = structuredClone(account.imagePullSecrets);
  if (!(spec.automountServiceAccountToken ?? account.automountServiceAccountToken ?? true)) return;
  const containers = [...(spec.initContainers ?? []), ...spec.containers].filter(
    (container) => !container.volumeMounts?.some((mount) => mount.mountPath === tokenPath),
  );
  if (containers.length === 0) return;
  const volume = `kube-api-access-${randomSuffix()}`;
  const mount = { name: volume, readOnly: true, mountPath: tokenPath };
  for (const container of containers) container.volumeMounts = [...(container.volumeMounts ?? []), mount];
  const projected = { sources: structuredClone(tokenSources), defaultMode: 0o644 };
  spec.volumes = [...(spec.volumes ?? []), { name: volume, projected }];
}

/** The classes there are in every cluster. */
const priorities = new Map([
  ['system-cluster-critical', 2_000_000_000],
  ['system-node-critical', 2_000_001_000],
]);

function admitPriority(pod: Pod): void {
  const { priorityClassName: name } = pod.spec;
  if (name && !priorities.has(name)) throw refused(pod, `no PriorityClass with name ${name} was found`);
  pod.spec.priority = priorities.get(name ?? '') ?? 0;
  pod.spec.preemptionPolicy ??= 'PreemptLowerPriority';
}

const missingToleration =
  ({ tolerations = [] }: Pod['spec']) =>
  (name: string): Toleration[] => {
    const key = `node.kubernetes.io/${name}`;
    if (tolerations.some((one) => (!one.key || one.key === key) && (!one.effect || one.effect === 'NoExecute')))
      return [];
    return [{ key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 }];
  };
