// A pod of which only the runtime knows: its source forgot it while the agent was down. Enough of it is read from labels and annotations
// to end it in order.
import type { Container, Pod } from '../../kube/types/pod.ts';
import type { ObservedPod } from './observed.ts';

const number = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;

/** Undefined where the runtime has nothing of it that we can name. */
export function orphanPod(uid: string, observed: ObservedPod): Pod | undefined {
  const [sandbox] = observed.sandboxes;
  const labels = sandbox?.labels ?? observed.containers[0]?.labels;
  const name = labels?.['io.kubernetes.pod.name'];
  const namespace = labels?.['io.kubernetes.pod.namespace'];
  if (!name || !namespace) return undefined;
  const graces = observed.containers.map(
    (each) =>
      number(each.annotations['io.kubernetes.pod.deletionGracePeriod']) ??
      number(each.annotations['io.kubernetes.pod.terminationGracePeriod']),
  );
  const grace = graces.find((each) => each !== undefined);
  const containers: Container[] = [...new Set(observed.containers.map((each) => each.metadata.name))].map((each) => {
    const hook = observed.containers.find((container) => container.metadata.name === each)?.annotations[
      'io.kubernetes.container.preStopHandler'
    ];
    return { name: each, ...(hook ? { lifecycle: { preStop: parseHook(hook) } } : {}) };
  });
  return {
    metadata: { name, namespace, uid },
    spec: {
      containers,
      restartPolicy: 'Never',
      ...(grace === undefined ? {} : { terminationGracePeriodSeconds: grace }),
      ...(sandbox?.namespaces?.network === 'node' ? { hostNetwork: true } : {}),
    },
  };
}

function parseHook(text: string): NonNullable<NonNullable<Container['lifecycle']>['preStop']> {
  try {
    return JSON.parse(text) as NonNullable<NonNullable<Container['lifecycle']>['preStop']>;
  } catch {
    // A label that cannot be read means a stop without the hook.
    return {};
  }
}
