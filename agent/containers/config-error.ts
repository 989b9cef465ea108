// Why a container or sandbox cannot be described to the runtime.

/** The pod's spec, or an object it names, does not let a configuration be made. The message is shown in the pod's status, verbatim. */
export class ConfigError extends Error {
  override name = 'ConfigError';
}

/** The pod as Kubernetes' messages call it: `name_namespace(uid)`. */
export const podName = (pod: {
  readonly metadata: { readonly name: string; readonly namespace?: string; readonly uid?: string };
}): string => `${pod.metadata.name}_${pod.metadata.namespace ?? 'default'}(${pod.metadata.uid ?? ''})`;
