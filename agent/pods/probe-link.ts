// Tells the prober what runs, and the plan what the prober found.
import type { Container, ContainerStatus, Pod, PodStatus } from '../../kube/types/pod.ts';
import type { ProbedContainer, Prober } from '../probes/prober.ts';
import { isHostNetwork, isSidecar, type ObservedPod } from './observed.ts';
import type { PodWorkersDeps } from './pod-workers.ts';

/** Before the agent was restarted, the API was told this of a container that still runs: it holds until our first own result. */
function shownBefore(pod: Pod, id: string): ContainerStatus | undefined {
  const { containerStatuses = [], initContainerStatuses = [] } = pod.status ?? {};
  return [...containerStatuses, ...initContainerStatuses].find((status) => status.containerID?.endsWith(`//${id}`));
}

export function createProbeLink(prober: Prober, options: { hostIps(): readonly string[] }): PodWorkersDeps['probes'] {
  const seen = new Set<string>();

  const probed = (pod: Pod, observed: ObservedPod): ProbedContainer[] => {
    const containers: readonly Container[] = [
      ...(pod.spec.initContainers ?? []).filter(isSidecar),
      ...pod.spec.containers,
    ];
    return containers.flatMap((container) => {
      const running = observed.containers.find((each) => each.metadata.name === container.name);
      if (running?.state !== 'running') return [];
      const fresh = !seen.has(running.id);
      seen.add(running.id);
      const shown = fresh ? shownBefore(pod, running.id) : undefined;
      return [
        {
          container,
          id: running.id,
          startedAtMs: running.startedAtMs,
          ...(shown ? { adopted: { started: shown.started ?? false, ready: shown.ready } } : {}),
        },
      ];
    });
  };

  return {
    verdict(container, id) {
      const state = prober.state(container, id);
      return { started: state.started, ready: state.ready, failed: state.failed?.kind };
    },
    sync(pod, observed, phase, _status: PodStatus) {
      const containers = phase === 'ended' ? [] : probed(pod, observed);
      const sandbox = observed.sandboxes.find((each) => each.state === 'ready');
      const podIp = isHostNetwork(pod) ? options.hostIps()[0] : sandbox?.ips[0];
      prober.sync(pod, podIp ?? '', containers, phase === 'terminating');
    },
    forget(uid) {
      prober.remove(uid);
    },
  };
}
