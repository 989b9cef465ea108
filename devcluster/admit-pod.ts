// What the API server's admission adds to a new pod: its service account with the token volume, tolerations, priority, the runtime
// class's overhead. Source: the reference of the admission controllers ServiceAccount, DefaultTolerationSeconds, Priority, RuntimeClass.
import type { RuntimeClass, ServiceAccount } from '../kube/types/core.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import type { Pod, Toleration } from '../kube/types/pod.ts';
import { forbidden } from './failure.ts';
import { randomSuffix } from './names.ts';

interface PriorityClass extends KubeObject {
  value: number;
  globalDefault?: boolean;
  preemptionPolicy?: string;
}

export interface AdmissionDeps {
  serviceAccount(namespace: string, name: string): ServiceAccount | undefined;
  priorityClasses(): readonly PriorityClass[];
  runtimeClass(name: string): RuntimeClass | undefined;
}

const tokenPath = '/var/run/secrets/kubernetes.io/serviceaccount';
const mirrorAnnotation = 'kubernetes.io/config.mirror';
const tokenSeconds = 3607;

export function admitPod(deps: AdmissionDeps, pod: Pod): void {
  if (!pod.metadata.annotations?.[mirrorAnnotation]) admitServiceAccount(deps, pod);
  admitPriority(deps, pod);
  admitRuntimeClass(deps, pod);
  pod.spec.tolerations = withNodeTolerations(pod.spec.tolerations ?? []);
}

function admitServiceAccount(deps: AdmissionDeps, pod: Pod): void {
  const { spec } = pod;
  const namespace = pod.metadata.namespace!;
  spec.serviceAccountName ??= 'default';
  (spec as { serviceAccount?: string }).serviceAccount = spec.serviceAccountName;
  const account = deps.serviceAccount(namespace, spec.serviceAccountName);
  if (!account)
    throw forbidden(
      `pods "${pod.metadata.name}" is forbidden: error looking up service account ${namespace}/${spec.serviceAccountName}: serviceaccount "${spec.serviceAccountName}" not found`,
    );
  if (!spec.imagePullSecrets?.length && account.imagePullSecrets?.length)
    spec.imagePullSecrets = structuredClone(account.imagePullSecrets);
  if ((spec.automountServiceAccountToken ?? account.automountServiceAccountToken ?? true) === false) return;
  const containers = [...(spec.initContainers ?? []), ...spec.containers].filter(
    (container) => !container.volumeMounts?.some((mount) => mount.mountPath === tokenPath),
  );
  if (containers.length === 0) return;
  const existing = spec.volumes?.find((volume) => volume.name.startsWith('kube-api-access-'));
  const name = existing?.name ?? `kube-api-access-${randomSuffix()}`;
  for (const container of containers)
    container.volumeMounts = [...(container.volumeMounts ?? []), { name, readOnly: true, mountPath: tokenPath }];
  if (existing) return;
  const sources = [
    { serviceAccountToken: { expirationSeconds: tokenSeconds, path: 'token' } },
    { configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
    {
      downwardAPI: {
        items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }],
      },
    },
  ];
  spec.volumes = [...(spec.volumes ?? []), { name, projected: { sources, defaultMode: 0o644 } }];
}

const systemClasses: Readonly<Record<string, number>> = {
  'system-cluster-critical': 2_000_000_000,
  'system-node-critical': 2_000_001_000,
};

function admitPriority(deps: AdmissionDeps, pod: Pod): void {
  const { spec } = pod;
  const classes = deps.priorityClasses();
  const wanted = spec.priorityClassName;
  const found = wanted
    ? classes.find((one) => one.metadata.name === wanted)
    : classes.find((one) => one.globalDefault === true);
  const value = found?.value ?? (wanted ? systemClasses[wanted] : 0);
  if (value === undefined)
    throw forbidden(`pods "${pod.metadata.name}" is forbidden: no PriorityClass with name ${wanted} was found`);
  if (found && !wanted) spec.priorityClassName = found.metadata.name;
  spec.priority = value;
  spec.preemptionPolicy ??= found?.preemptionPolicy ?? 'PreemptLowerPriority';
}

function admitRuntimeClass(deps: AdmissionDeps, pod: Pod): void {
  const name = pod.spec.runtimeClassName;
  if (!name) return;
  const found = deps.runtimeClass(name);
  if (!found)
    throw forbidden(`pods "${pod.metadata.name}" is forbidden: pod rejected: RuntimeClass "${name}" not found`);
  if (found.overhead?.podFixed) pod.spec.overhead = { ...found.overhead.podFixed };
  if (found.scheduling?.nodeSelector)
    pod.spec.nodeSelector = { ...pod.spec.nodeSelector, ...found.scheduling.nodeSelector };
}

function withNodeTolerations(tolerations: Toleration[]): Toleration[] {
  const added = ['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable']
    .filter(
      (key) => !tolerations.some((one) => (!one.key || one.key === key) && (!one.effect || one.effect === 'NoExecute')),
    )
    .map((key): Toleration => ({ key, operator: 'Exists', effect: 'NoExecute', tolerationSeconds: 300 }));
  return [...tolerations, ...added];
}
