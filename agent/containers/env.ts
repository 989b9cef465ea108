// The environment of a container, from all the sources a spec may name.
import type { ConfigMap, Secret, Service } from '../../kube/types/core.ts';
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Container, EnvVar, Pod } from '../../kube/types/pod.ts';
import { fieldValue } from '../fields/field-ref.ts';
import { resourceFieldValue } from '../fields/resource-field-ref.ts';
import { ConfigError } from './config-error.ts';
import { expand } from './expansion.ts';
import { serviceVariables } from './service-env.ts';

export interface EnvDeps {
  /** Undefined where there is no such ConfigMap; rejects where it cannot be told. */
  configMap(namespace: string, name: string, signal: AbortSignal): Promise<ConfigMap | undefined>;
  secret(namespace: string, name: string, signal: AbortSignal): Promise<Secret | undefined>;
  /** All Services known; undefined until they have been listed once. */
  services(): Iterable<Service> | undefined;
  /** The value of a key in a file of one of the pod's volumes (env-file.ts), or '' where it has none. */
  fileKey(pod: Pod, volume: string, path: string, key: string, signal: AbortSignal): Promise<string>;
}

export interface EnvContext {
  /** The node's addresses, the primary first. */
  readonly hostIps: readonly string[];
  /** The pod's addresses, the primary first. */
  readonly podIps: readonly string[];
  /** The node's allocatable, which stands in for limits that are not set. */
  readonly allocatable: Readonly<ResourceList>;
  /** Static pods do not wait for Services. */
  readonly isStatic: boolean;
}

interface Sources {
  readonly configMaps: ReadonlyMap<string, ConfigMap | undefined>;
  readonly secrets: ReadonlyMap<string, Secret | undefined>;
}

type Values = Readonly<Record<string, string>>;

const decode = (base64: string): string => Buffer.from(base64, 'base64').toString('utf8');

const decoded = (data: Values | undefined): Values =>
  Object.fromEntries(Object.entries(data ?? {}).map(([key, value]) => [key, decode(value)]));

async function gather(deps: EnvDeps, pod: Pod, container: Container, signal: AbortSignal): Promise<Sources> {
  const namespace = pod.metadata.namespace ?? 'default';
  const configMaps = new Set<string>();
  const secrets = new Set<string>();
  for (const { configMapRef, secretRef } of container.envFrom ?? []) {
    if (configMapRef) configMaps.add(configMapRef.name ?? '');
    else if (secretRef) secrets.add(secretRef.name ?? '');
  }
  for (const { value, valueFrom } of container.env ?? []) {
    if (value || !valueFrom) continue;
    if (valueFrom.configMapKeyRef) configMaps.add(valueFrom.configMapKeyRef.name ?? '');
    if (valueFrom.secretKeyRef) secrets.add(valueFrom.secretKeyRef.name ?? '');
  }
  const all = async <T>(names: Set<string>, get: (name: string) => Promise<T>): Promise<Map<string, T>> =>
    new Map(await Promise.all([...names].map(async (name) => [name, await get(name)] as const)));
  const [maps, found] = await Promise.all([
    all(configMaps, (name) => deps.configMap(namespace, name, signal)),
    all(secrets, (name) => deps.secret(namespace, name, signal)),
  ]);
  return { configMaps: maps, secrets: found };
}

/** Undefined where the source is optional and not there. */
function keyOf(
  pod: Pod,
  kind: 'ConfigMap' | 'Secret',
  ref: { readonly name?: string; readonly key: string; readonly optional?: boolean },
  values: Values | undefined,
): string | undefined {
  const name = ref.name ?? '';
  if (!values) {
    if (ref.optional) return undefined;
    throw new ConfigError(`${kind.toLowerCase()} "${name}" not found`);
  }
  const value = Object.hasOwn(values, ref.key) ? values[ref.key] : undefined;
  if (value === undefined && !ref.optional)
    throw new ConfigError(`couldn't find key ${ref.key} in ${kind} ${pod.metadata.namespace ?? 'default'}/${name}`);
  return value;
}

function fromEnvFrom(container: Container, sources: Sources): Map<string, string> {
  const result = new Map<string, string>();
  for (const { prefix = '', configMapRef, secretRef } of container.envFrom ?? []) {
    const ref = configMapRef ?? secretRef;
    if (!ref) continue;
    const name = ref.name ?? '';
    const values = configMapRef
      ? sources.configMaps.get(name) && (sources.configMaps.get(name)?.data ?? {})
      : sources.secrets.get(name) && decoded(sources.secrets.get(name)?.data);
    if (!values) {
      if (ref.optional) continue;
      throw new ConfigError(`${configMapRef ? 'configmap' : 'secret'} "${name}" not found`);
    }
    for (const [key, value] of Object.entries(values)) result.set(`${prefix}${key}`, value);
  }
  return result;
}

async function fromFile(
  deps: EnvDeps,
  pod: Pod,
  ref: NonNullable<NonNullable<EnvVar['valueFrom']>['fileKeyRef']>,
  signal: AbortSignal,
): Promise<string | undefined> {
  let value: string;
  try {
    value = await deps.fileKey(pod, ref.volumeName, ref.path, ref.key, signal);
  } catch (error) {
    signal.throwIfAborted();
    throw new ConfigError("couldn't parse env file", { cause: error });
  }
  if (value !== '') return value;
  if (ref.optional) return undefined;
  throw new ConfigError(`environment variable key "${ref.key}" not found in file "${ref.path}"`);
}

/** Undefined: the variable is left out. */
async function resolveVariable(
  variable: EnvVar,
  known: (name: string) => string | undefined,
  sources: Sources,
  deps: EnvDeps,
  of: { readonly pod: Pod; readonly container: Container; readonly context: EnvContext },
  signal: AbortSignal,
): Promise<string | undefined> {
  const { pod, container, context } = of;
  if (variable.value) return expand(variable.value, known);
  const from = variable.valueFrom;
  if (from?.fieldRef)
    return fieldValue(pod, from.fieldRef.fieldPath, { hostIPs: context.hostIps, podIPs: context.podIps });
  if (from?.resourceFieldRef) return resourceFieldValue(pod, from.resourceFieldRef, context.allocatable, container);
  if (from?.configMapKeyRef) {
    const map = sources.configMaps.get(from.configMapKeyRef.name ?? '');
    return keyOf(pod, 'ConfigMap', from.configMapKeyRef, map && (map.data ?? {}));
  }
  if (from?.secretKeyRef) {
    const secret = sources.secrets.get(from.secretKeyRef.name ?? '');
    return keyOf(pod, 'Secret', from.secretKeyRef, secret && decoded(secret.data));
  }
  if (from?.fileKeyRef) return fromFile(deps, pod, from.fileKeyRef, signal);
  return '';
}

/**
 * The container's variables in the order they are declared, envFrom first, then those of Services that are not set otherwise. Rejects with
 * a ConfigError whose message is Kubernetes' (the pod waits with CreateContainerConfigError), or with what a dependency rejected with.
 */
export async function containerEnv(
  deps: EnvDeps,
  pod: Pod,
  container: Container,
  context: EnvContext,
  signal: AbortSignal,
): Promise<Record<string, string>> {
  const services = deps.services();
  if (!services && !context.isStatic)
    throw new ConfigError('services have not yet been read at least once, cannot construct envvars');
  const namespace = pod.metadata.namespace ?? 'default';
  const fromServices = serviceVariables(services ?? [], namespace, pod.spec.enableServiceLinks ?? true);
  const sources = await gather(deps, pod, container, signal);
  const result = fromEnvFrom(container, sources);
  const known = (name: string): string | undefined => result.get(name) ?? fromServices.get(name);
  for (const variable of container.env ?? []) {
    try {
      const value = await resolveVariable(variable, known, sources, deps, { pod, container, context }, signal);
      if (value !== undefined) result.set(variable.name, value);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof ConfigError) throw error;
      throw new ConfigError(error instanceof Error ? error.message : String(error), { cause: error });
    }
  }
  for (const [name, value] of fromServices) if (!result.has(name)) result.set(name, value);
  return Object.fromEntries(result);
}
