// What the API server's admission adds to a new pod: its service account with the token volume, tolerations, priority. Source: the reference
// of the admission controllers ServiceAccount, DefaultTolerationSeconds, Priority.
import type { ServiceAccount } from '../kube/types/core.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import type { Pod, Toleration } from '../kube/types/pod.ts';
import { forbidden } from './failure.ts';
import { randomSuffix } from './names.ts';
import type { StrategyContext } from './strategies.ts';

const tokenPath = '/var/run/secrets/kubernetes.io/serviceaccount';
const tokenSeconds = 3607;

export function admitPod(context: StrategyContext, pod: Pod): void {
  if (!pod.metadata.annotations?.['kubernetes.io/config.mirror']) admitServiceAccount(context, pod);
  admitPriority(context, pod);
  pod.spec.tolerations = withNodeTolerations(pod.spec.tolerations ?? []);
  if (!pod.spec.schedulingGates?.length) return;
  const message = 'Scheduling is blocked due to non-empty scheduling gates';
  pod.status!.conditions = [{ type: 'PodScheduled', status: 'False', reason: 'SchedulingGated', message }];
}

const refused = (pod: Pod, why: string) => forbidden(`pods "${pod.metadata.name}" is forbidden: ${why}`);

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
  const existing = spec.volumes?.find((volume) => volume.name.startsWith('kube-api-access-'));
  const volume = existing?.name ?? `kube-api-access-${randomSuffix()}`;
  for (const container of containers)
    container.volumeMounts = [
      ...(container.volumeMounts ?? []),
      { name: volume, readOnly: true, mountPath: tokenPath },
    ];
  if (existing || containers.length === 0) return;
  const fieldRef = { apiVersion: 'v1', fieldPath: 'metadata.namespace' };
  const sources = [
    { serviceAccountToken: { expirationSeconds: tokenSeconds, path: 'token' } },
    { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
    { downwardAPI: { items: [{ path: 'namespace', fieldRef }] } },
  ];
  spec.volumes = [...(spec.volumes ?? []), { name: volume, projected: { sources, defaultMode: 0o644 } }];
}

type PriorityClass = KubeObject & { value: number; globalDefault?: boolean; preemptionPolicy?: string };

function admitPriority(context: StrategyContext, pod: Pod): void {
  const { spec } = pod;
  const wanted = spec.priorityClassName;
  const found = context
    .all<PriorityClass>('priorityclasses')
    .find(({ metadata, globalDefault }) => (wanted ? metadata.name === wanted : globalDefault === true));
  if (wanted && !found) throw refused(pod, `no PriorityClass with name ${wanted} was found`);
  if (found) spec.priorityClassName = found.metadata.name;
  spec.priority = found?.value ?? 0;
  spec.preemptionPolicy ??= found?.preemptionPolicy ?? 'PreemptLowerPriority';
}

function withNodeTolerations(tolerations: readonly Toleration[]): Toleration[] {
  const tolerates = (key: string): boolean =>
    tolerations.some((one) => (!one.key || one.key === key) && (!one.effect || one.effect === 'NoExecute'));
  const added = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable']
    .filter((key) => !tolerates(key))
    .map((key): Toleration => ({ key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 }));
  return [...tolerations, ...added];
}
