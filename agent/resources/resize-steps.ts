// In which order a promised resize is carried out, so that no container ever has more than its pod, and none is killed on the way.
import type { LinuxResources } from '../../cri/types.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import {
  type CgroupResources,
  containerResources,
  type PodCgroupFacts,
  podCgroupResources,
  type ResourceFacts,
} from './linux-resources.ts';
import type { PodCgroupConfig } from './pod-cgroups.ts';
import { type ActualResources, wantedResources } from './resize-actual.ts';

export type ResizeStep =
  | { readonly kind: 'pod'; readonly resources: CgroupResources }
  /** `actual` is what the container has when the step is done. */
  | {
      readonly kind: 'container';
      readonly name: string;
      readonly resources: LinuxResources;
      readonly actual: ActualResources;
    };

export interface RunningContainer {
  readonly container: Container;
  readonly actual: ActualResources;
}

const strip = <Key extends keyof CgroupResources>(resources: CgroupResources, ...keys: Key[]): CgroupResources =>
  Object.fromEntries(Object.entries(resources).filter(([key]) => (keys as string[]).includes(key)));

/** What the container gets in the pass of one resource: the other one stays as it is. */
function pass(resource: 'cpu' | 'memory', wanted: ActualResources, actual: ActualResources): ActualResources {
  return resource === 'memory'
    ? { ...actual, memoryRequest: wanted.memoryRequest, memoryLimit: wanted.memoryLimit }
    : { ...actual, cpuRequest: wanted.cpuRequest, cpuLimit: wanted.cpuLimit };
}

function quantities(container: Container, has: ActualResources): Container {
  return {
    ...container,
    resources: {
      ...container.resources,
      requests: { ...container.resources?.requests, cpu: `${has.cpuRequest}m`, memory: String(has.memoryRequest) },
      limits: { ...container.resources?.limits, cpu: `${has.cpuLimit}m`, memory: String(has.memoryLimit) },
    },
  };
}

/**
 * Memory first, then cpu. Of each: the pod's limit rises before the containers', falls after them, and among the containers those that
 * shrink go first. `pod` carries its allocation; `current` is what its cgroup is set to.
 */
export function resizeSteps(
  pod: Pod,
  current: PodCgroupConfig,
  running: readonly RunningContainer[],
  facts: ResourceFacts & PodCgroupFacts,
): ResizeStep[] {
  const wantedPod = podCgroupResources(pod, facts);
  const steps: ResizeStep[] = [];
  const has = new Map(running.map(({ container, actual }) => [container.name, actual]));

  const containers = (resource: 'cpu' | 'memory'): void => {
    const changes = running.flatMap(({ container }) => {
      const [before, wanted] = [has.get(container.name)!, wantedResources(pod, container)];
      const after = pass(resource, wanted, before);
      const key = resource === 'memory' ? 'memoryLimit' : 'cpuLimit';
      const request = resource === 'memory' ? 'memoryRequest' : 'cpuRequest';
      if (after[key] === before[key] && after[request] === before[request]) return [];
      return [{ container, after, delta: after[key] - before[key] || after[request] - before[request] }];
    });
    for (const { container, after } of changes.sort((a, b) => a.delta - b.delta)) {
      has.set(container.name, after);
      const resources = containerResources(pod, quantities(container, after), facts);
      steps.push({ kind: 'container', name: container.name, resources, actual: after });
    }
  };

  const podStep = (resources: CgroupResources): void => {
    if (Object.keys(resources).length > 0) steps.push({ kind: 'pod', resources });
  };

  const memory = strip(wantedPod, 'memoryLimit');
  const memoryRises = (wantedPod.memoryLimit ?? 0) > (current.memoryLimitBytes ?? Number.POSITIVE_INFINITY);
  const memoryFalls =
    (wantedPod.memoryLimit ?? Number.POSITIVE_INFINITY) < (current.memoryLimitBytes ?? Number.POSITIVE_INFINITY);
  if (memoryRises) podStep(memory);
  containers('memory');
  if (memoryFalls) podStep(memory);

  const limit = strip(wantedPod, 'cpuQuota', 'cpuPeriod');
  const shares = strip(wantedPod, 'cpuShares');
  const wantedQuota = wantedPod.cpuQuota && wantedPod.cpuQuota > 0 ? wantedPod.cpuQuota : undefined;
  const period = wantedPod.cpuPeriod ?? facts.cpuCfsQuotaPeriodUs;
  const currentQuota = current.cpuLimitMilli === undefined ? undefined : (current.cpuLimitMilli * period) / 1000;
  const cpuRises = wantedQuota !== undefined && currentQuota !== undefined && wantedQuota > currentQuota;
  const cpuFalls = wantedQuota !== undefined && (currentQuota === undefined || wantedQuota < currentQuota);
  if (cpuRises) podStep(limit);
  podStep(shares);
  containers('cpu');
  if (cpuFalls) podStep(limit);
  return steps;
}

/** Bytes in use; undefined where they are not known. */
export interface MemoryUse {
  readonly pod: number | undefined;
  readonly containers: ReadonlyMap<string, number>;
}

/** Why memory limits cannot be lowered now, in the kubelet's words: the kernel would kill. Undefined: they can. */
export function refuseMemoryDecrease(
  pod: Pod,
  current: PodCgroupConfig,
  running: readonly RunningContainer[],
  use: MemoryUse,
  facts: PodCgroupFacts,
): string | undefined {
  const why: string[] = [];
  const limit = podCgroupResources(pod, facts).memoryLimit ?? 0;
  if (limit > 0 && limit < (current.memoryLimitBytes ?? Number.POSITIVE_INFINITY)) {
    if (use.pod === undefined) why.push('missing pod memory usage');
    else if (use.pod >= limit)
      why.push(`attempting to set pod memory limit (${limit}) below current usage (${use.pod})`);
  }
  for (const { container, actual } of running) {
    const wanted = wantedResources(pod, container).memoryLimit;
    if (wanted === 0 || (actual.memoryLimit !== 0 && wanted >= actual.memoryLimit)) continue;
    const used = use.containers.get(container.name);
    if (used === undefined) why.push(`missing container "${container.name}" memory usage`);
    else if (used >= wanted)
      why.push(
        `attempting to set container "${container.name}" memory limit (${wanted}) below current usage (${used})`,
      );
  }
  if (why.length === 0) return undefined;
  return `cannot decrease memory limits: ${why.length === 1 ? why[0] : `[${why.join(', ')}]`}`;
}
