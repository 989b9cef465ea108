// One Event about a pod; what cannot be written is not missed.
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { randomSuffix, timestamp } from '../names.ts';
import type { ControllerDeps } from './world.ts';

export function recordEvent(
  deps: ControllerDeps,
  pod: Pod,
  type: 'Normal' | 'Warning',
  reason: string,
  message: string,
  component: string,
  signal: AbortSignal,
): void {
  const { name, namespace = 'default', uid, resourceVersion } = pod.metadata;
  const time = timestamp(deps.clock.now());
  const event = {
    metadata: { name: `${name}.${randomSuffix(10)}`, namespace },
    involvedObject: { apiVersion: 'v1', kind: 'Pod', name, namespace, uid: uid!, resourceVersion: resourceVersion! },
    type,
    reason,
    message,
    count: 1,
    firstTimestamp: time,
    lastTimestamp: time,
    source: { component },
    reportingComponent: component,
    reportingInstance: '',
  };
  deps.client
    .create(resources.events, event, { signal })
    .catch((error: unknown) => deps.log.debug('an event could not be written', { reason, error }));
}
