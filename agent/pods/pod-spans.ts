// What traces say of pods: spans and attributes under the kubelet's names where it has them.
import type { Pod } from '../../kube/types/pod.ts';
import type { Attributes, Tracer } from '../../lib/tracing/tracer.ts';
import type { Executor } from './execute.ts';

export const podAttributes = (pod: Pod, updateType?: 'create' | 'sync' | 'kill'): Attributes => {
  const { name, namespace = '', uid = '' } = pod.metadata;
  return {
    'k8s.pod': `${namespace}/${name}`,
    'k8s.pod.uid': uid,
    'k8s.pod.name': name,
    'k8s.namespace.name': namespace,
    ...(updateType === undefined ? {} : { 'k8s.pod.update_type': updateType }),
  };
};

/** Each operation in a span named for its kind, around the calls to the runtime that it makes. It lasts longer than the look that started it. */
export const traceExecutor = (executor: Executor, tracer: Tracer | undefined): Executor =>
  tracer
    ? {
        execute: (context, operation, signal) =>
          tracer.run(operation.kind, { attributes: podAttributes(context.pod) }, () =>
            executor.execute(context, operation, signal),
          ),
      }
    : executor;
