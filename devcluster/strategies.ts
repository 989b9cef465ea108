// What is special about a kind when it is written: its defaults, what admission adds, what is checked. Kinds not named here have nothing.
import { isDeepStrictEqual } from 'node:util';
import { defaultPod, defaultPodSpec } from '../kube/pod-defaults.ts';
import { QuantityError } from '../kube/quantity.ts';
import { computeQos } from '../kube/scheduling/qos.ts';
import type { Secret, Service } from '../kube/types/core.ts';
import type { Pod } from '../kube/types/pod.ts';
import { admitPod } from './admit-pod.ts';
import { admitService } from './admit-service.ts';
import { badRequest, type Cause, fault } from './failure.ts';
import type { Kind, Obj } from './kinds.ts';
import { validatePodSpec, validateWorkload } from './validate.ts';
import type { Deployment } from './workload.ts';

/** What writing an object may read of others. */
export interface StrategyContext {
  readonly serviceCidr: string;
  find<T>(plural: string, namespace: string | undefined, name: string): T | undefined;
  all<T>(plural: string): readonly T[];
  random(): number;
}

/** Changes the new object in place; `before` is what is there, undefined where it is created. Returns what is wrong. */
type Strategy = (object: never, before: never, context: StrategyContext) => Cause[] | undefined;

function writePod(pod: Pod, before: Pod | undefined, context: StrategyContext): Cause[] {
  if (!pod.spec?.containers?.length) return validatePodSpec(pod.spec ?? {}, 'spec');
  defaultPod(pod);
  if (!before) {
    pod.status = { phase: 'Pending', qosClass: computeQos(pod.spec) };
    admitPod(context, pod);
    defaultPod(pod);
  }
  return validatePodSpec(pod.spec, 'spec');
}

function writeWorkload(object: Deployment, before: Deployment | undefined): Cause[] {
  object.spec.replicas ??= 1;
  if (object.spec.template?.spec) defaultPodSpec(object.spec.template.spec);
  if (before && !isDeepStrictEqual(plain(object.spec.selector), plain(before.spec.selector)))
    return [fault('spec.selector', 'Invalid value: field is immutable')];
  return validateWorkload(object);
}

function writeDeployment(deployment: Deployment, before: Deployment | undefined): Cause[] {
  const { spec } = deployment;
  spec.strategy ??= {};
  spec.strategy.type ??= 'RollingUpdate';
  if (spec.strategy.type === 'Recreate') delete spec.strategy.rollingUpdate;
  else spec.strategy.rollingUpdate = { maxUnavailable: '25%', maxSurge: '25%', ...spec.strategy.rollingUpdate };
  return writeWorkload(deployment, before);
}

function writeSecret(secret: Secret): undefined {
  const texts = Object.entries(secret.stringData ?? {});
  if (texts.length > 0) secret.data ??= {};
  for (const [key, value] of texts) secret.data![key] = Buffer.from(value).toString('base64');
  delete secret.stringData;
  secret.type ??= 'Opaque';
}

function writeNamespace(namespace: Obj, before: Obj | undefined): undefined {
  const { metadata } = namespace;
  if (!before) namespace.status = { phase: 'Active' };
  metadata.labels = { ...metadata.labels, 'kubernetes.io/metadata.name': metadata.name };
}

const strategies: Readonly<Record<string, Strategy>> = {
  pods: writePod,
  services: (service: Service, before: Service | undefined, context) => admitService(context, service, before),
  nodes(node: Obj): undefined {
    node.spec ??= {};
    node.status ??= {};
  },
  namespaces: writeNamespace,
  secrets: writeSecret,
  deployments: writeDeployment,
  replicasets: writeWorkload,
  endpointslices(slice: Obj): undefined {
    slice.endpoints ??= [];
  },
};

/** Throws 400 for a quantity that is none. */
export function prepare(kind: Kind, object: Obj, before: Obj | undefined, context: StrategyContext): Cause[] {
  try {
    return strategies[kind.resource.plural]?.(object as never, before as never, context) ?? [];
  } catch (error) {
    if (error instanceof QuantityError) throw badRequest(error.message);
    throw error;
  }
}

export const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value));
