// What is special about a kind when it is written: its defaults, what admission adds, what is checked. Kinds not named here have nothing.
import type { ConfigMap, Node, RuntimeClass, Secret, Service, ServiceAccount } from '../kube/types/core.ts';
import type { Pod } from '../kube/types/pod.ts';
import { admitPod } from './admit-pod.ts';
import { allocateService, defaultService } from './admit-service.ts';
import { defaultPod } from './default-pod.ts';
import { type Deployment, defaultDeployment, defaultReplicaSet, type ReplicaSet } from './default-workload.ts';
import { type Cause, notFound } from './failure.ts';
import { collectionNameOf, type Kind, kindByName } from './kinds.ts';
import { timestamp } from './names.ts';
import type { Obj, Storage } from './store.ts';
import { forbiddenField, validatePod, validatePodUpdate, validateService, validateWorkload } from './validate.ts';
import { qosClassOf } from './qos.ts';
import { resources } from '../kube/resources.ts';

export interface StrategyContext {
  readonly storage: Storage;
  readonly serviceCidrs: readonly string[];
  readonly now: number;
  readonly user: { readonly name: string; readonly groups: readonly string[]; readonly uid?: string };
  random(): number;
}

const specOf = (object: Obj): Record<string, unknown> => {
  object.spec ??= {};
  return object.spec as Record<string, unknown>;
};

interface Strategy {
  /** Changes the new object in place. */
  create?(context: StrategyContext, object: Obj): Cause[] | undefined;
  /** Changes the new object in place; `before` is what is there. */
  update?(context: StrategyContext, object: Obj, before: Obj): Cause[] | undefined;
}

const all = <T>(context: StrategyContext, kind: Kind, namespace?: string): readonly T[] =>
  context.storage.collection(collectionNameOf(kind)).list(namespace) as unknown as readonly T[];

const one = <T>(context: StrategyContext, kind: Kind, namespace: string | undefined, name: string): T | undefined =>
  context.storage.collection(collectionNameOf(kind)).get(namespace, name) as unknown as T | undefined;

const pods: Strategy = {
  create(context, object) {
    const pod = object as unknown as Pod;
    if (!pod.spec?.containers) return validatePod({ ...pod, spec: { ...pod.spec, containers: [] } });
    pod.status = { phase: 'Pending' };
    defaultPod(pod);
    admitPod(
      {
        serviceAccount: (namespace, name) =>
          one<ServiceAccount>(context, kindByName('serviceaccounts'), namespace, name),
        priorityClasses: () => all(context, kindByName('priorityclasses', 'scheduling.k8s.io')),
        runtimeClass: (name) =>
          one<RuntimeClass>(context, kindByName('runtimeclasses', 'node.k8s.io'), undefined, name),
      },
      pod,
    );
    defaultPod(pod);
    pod.status.qosClass = qosClassOf(pod);
    const gates = pod.spec.schedulingGates?.length ?? 0;
    if (gates > 0)
      pod.status.conditions = [
        {
          type: 'PodScheduled',
          status: 'False',
          reason: 'SchedulingGated',
          message: 'Scheduling is blocked due to non-empty scheduling gates',
        },
      ];
    return validatePod(pod);
  },
  update(_context, object, before) {
    const pod = object as unknown as Pod;
    defaultPod(pod);
    const causes = validatePod(pod);
    return causes.length > 0 ? causes : validatePodUpdate(pod, before as unknown as Pod);
  },
};

const serviceDeps = (context: StrategyContext) => ({
  serviceCidrs: context.serviceCidrs,
  services: () => all<Service>(context, kindByName('services')),
  random: context.random,
});

const writeService = (context: StrategyContext, object: Obj, before?: Obj): Cause[] => {
  const service = object as unknown as Service;
  service.spec ??= {};
  defaultService(service);
  const causes = validateService(service);
  if (causes.length > 0) return causes;
  return allocateService(serviceDeps(context), service, before as unknown as Service | undefined);
};

const services: Strategy = {
  create: (context, object) => writeService(context, object),
  update(context, object, before) {
    const [next, old] = [object as unknown as Service, before as unknown as Service];
    const asked = next.spec?.clusterIP;
    if (
      asked &&
      old.spec.clusterIP &&
      asked !== old.spec.clusterIP &&
      old.spec.type !== 'ExternalName' &&
      next.spec.type !== 'ExternalName'
    )
      return [
        {
          reason: 'FieldValueInvalid',
          field: 'spec.clusterIPs[0]',
          message: `Invalid value: ["${asked}"]: may not change once set`,
        },
      ];
    return writeService(context, object, before);
  },
};

const immutableData = (object: Obj, before: Obj): Cause[] => {
  const [next, old] = [object as unknown as Secret, before as unknown as Secret];
  if (!old.immutable) return [];
  if (!next.immutable) return [forbiddenField('immutable', 'field is immutable when `immutable` is set')];
  const text = (value: ConfigMap | Secret): string =>
    JSON.stringify([value.data ?? {}, (value as ConfigMap).binaryData ?? {}]);
  return text(next) === text(old) ? [] : [forbiddenField('data', 'field is immutable when `immutable` is set')];
};

const writeSecret = (object: Obj): void => {
  const secret = object as unknown as Secret;
  for (const [key, value] of Object.entries(secret.stringData ?? {})) {
    secret.data ??= {};
    secret.data[key] = Buffer.from(value).toString('base64');
  }
  delete secret.stringData;
  secret.type ??= 'Opaque';
};

const sameSelector = (object: Obj, before: Obj): Cause[] => {
  const selector = (value: Obj): unknown => (value as unknown as Deployment).spec.selector;
  return JSON.stringify(selector(object)) === JSON.stringify(selector(before))
    ? []
    : [{ reason: 'FieldValueInvalid', field: 'spec.selector', message: 'Invalid value: field is immutable' }];
};

const strategies: Readonly<Record<string, Strategy>> = {
  pods,
  services,
  nodes: {
    create(_context, object) {
      object.spec ??= {};
      object.status ??= {};
      return [];
    },
  },
  namespaces: {
    create(_context, object) {
      object.spec = { finalizers: ['kubernetes'] };
      object.status = { phase: 'Active' };
      object.metadata.labels = { ...object.metadata.labels, 'kubernetes.io/metadata.name': object.metadata.name };
      return [];
    },
    update(_context, object) {
      object.metadata.labels = { ...object.metadata.labels, 'kubernetes.io/metadata.name': object.metadata.name };
      return [];
    },
  },
  configmaps: { update: (_context, object, before) => immutableData(object, before) },
  secrets: {
    create: (_context, object) => {
      writeSecret(object);
      return [];
    },
    update: (_context, object, before) => {
      writeSecret(object);
      return immutableData(object, before);
    },
  },
  'deployments.apps': {
    create(_context, object) {
      defaultDeployment(object as unknown as Deployment);
      return validateWorkload(object as unknown as Deployment);
    },
    update(_context, object, before) {
      defaultDeployment(object as unknown as Deployment);
      const causes = validateWorkload(object as unknown as Deployment);
      return causes.length > 0 ? causes : sameSelector(object, before);
    },
  },
  'replicasets.apps': {
    create(_context, object) {
      defaultReplicaSet(object as unknown as ReplicaSet);
      (object as unknown as ReplicaSet).status ??= { replicas: 0 };
      return validateWorkload(object as unknown as ReplicaSet);
    },
    update(_context, object, before) {
      defaultReplicaSet(object as unknown as ReplicaSet);
      return sameSelector(object, before);
    },
  },
  'endpointslices.discovery.k8s.io': {
    create(_context, object) {
      object.endpoints ??= [];
      return [];
    },
  },
  persistentvolumes: {
    create(_context, object) {
      const spec = specOf(object);
      spec.persistentVolumeReclaimPolicy ??= 'Retain';
      spec.volumeMode ??= 'Filesystem';
      object.status = { phase: 'Pending' };
      return [];
    },
  },
  persistentvolumeclaims: {
    create(_context, object) {
      const spec = specOf(object);
      spec.volumeMode ??= 'Filesystem';
      object.status = { phase: 'Pending' };
      return [];
    },
  },
  'csidrivers.storage.k8s.io': {
    create(_context, object) {
      const spec = specOf(object);
      spec.attachRequired ??= true;
      spec.podInfoOnMount ??= false;
      spec.requiresRepublish ??= false;
      spec.storageCapacity ??= false;
      spec.seLinuxMount ??= false;
      spec.fsGroupPolicy ??= 'ReadWriteOnceWithFSType';
      spec.volumeLifecycleModes ??= ['Persistent'];
      return [];
    },
  },
  'storageclasses.storage.k8s.io': {
    create(_context, object) {
      object.reclaimPolicy ??= 'Delete';
      object.volumeBindingMode ??= 'Immediate';
      return [];
    },
  },
  'priorityclasses.scheduling.k8s.io': {
    create(_context, object) {
      object.preemptionPolicy ??= 'PreemptLowerPriority';
      return [];
    },
  },
  'certificatesigningrequests.certificates.k8s.io': {
    create(context, object) {
      const spec = specOf(object);
      object.spec = { ...spec, username: context.user.name, groups: [...context.user.groups] };
      object.status = {};
      return [];
    },
  },
};

/** Throws where the namespace is not there; a namespace that is going away takes nothing new. */
export function checkNamespace(context: StrategyContext, namespace: string): 'ok' | 'terminating' {
  const found = one<Node>(context, kindByName('namespaces'), undefined, namespace);
  if (!found) throw notFound(resources.namespaces, namespace);
  return found.metadata.deletionTimestamp ? 'terminating' : 'ok';
}

export const strategyOf = (kind: Kind): Strategy => strategies[collectionNameOf(kind)] ?? {};
export const creationTime = (context: StrategyContext): string => timestamp(context.now);
