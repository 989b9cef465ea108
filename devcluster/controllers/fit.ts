// Whether a pod may run on a node, and what of it is in the way. Pure.
import { milliOf } from '../../kube/quantity.ts';
import { matchesNodeSelectorTerms } from '../../kube/selectors.ts';
import type { Node, Taint } from '../../kube/types/core.ts';
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Pod, Toleration } from '../../kube/types/pod.ts';

/** Thousandths; precise enough to compare sums with. */
export const amount = (quantity: string | undefined): number => milliOf(quantity ?? '0');

type Amounts = Map<string, number>;

const add = (to: Amounts, list: ResourceList | undefined): Amounts => {
  for (const [name, quantity] of Object.entries(list ?? {})) to.set(name, (to.get(name) ?? 0) + amount(quantity));
  return to;
};
const most = (to: Amounts, other: Amounts): Amounts => {
  for (const [name, value] of other) to.set(name, Math.max(to.get(name) ?? 0, value));
  return to;
};

/** What the pod asks for: containers and sidecars together, or the largest init container with the sidecars before it. */
export function requestsOf({ spec }: Pod): Amounts {
  const running: Amounts = new Map();
  for (const { resources } of spec.containers) add(running, resources?.requests);
  const sidecars: Amounts = new Map();
  const peak: Amounts = new Map();
  for (const { resources, restartPolicy } of spec.initContainers ?? []) {
    if (restartPolicy === 'Always') add(sidecars, resources?.requests);
    else most(peak, add(new Map(sidecars), resources?.requests));
  }
  for (const [name, value] of sidecars) running.set(name, (running.get(name) ?? 0) + value);
  most(running, peak);
  for (const [name, quantity] of Object.entries(spec.resources?.requests ?? {})) running.set(name, amount(quantity));
  return add(running, spec.overhead);
}

const tolerates = (tolerations: readonly Toleration[], taint: Taint): boolean =>
  tolerations.some(
    ({ key, operator = 'Equal', value = '', effect }) =>
      (!effect || effect === taint.effect) &&
      (!key || key === taint.key) &&
      (operator === 'Exists' || (key !== undefined && operator === 'Equal' && value === (taint.value ?? ''))),
  );

const hostPorts = ({ spec }: Pod): string[] =>
  spec.containers.flatMap(({ ports }) =>
    (ports ?? []).flatMap(({ hostPort, protocol }) => (hostPort ? [`${protocol ?? 'TCP'}/${hostPort}`] : [])),
  );

/** Undefined where the pod fits; else why not, in the scheduler's words. `there` are the pods the node has. */
export function misfit(pod: Pod, node: Node, there: readonly Pod[]): string | undefined {
  const { spec } = pod;
  const ready = node.status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True';
  if (!ready) return 'node(s) were not ready';
  if (node.spec.unschedulable) return 'node(s) were unschedulable';
  const taint = (node.spec.taints ?? []).find(
    (one) => one.effect !== 'PreferNoSchedule' && !tolerates(spec.tolerations ?? [], one),
  );
  if (taint) return `node(s) had untolerated taint(s) {${taint.key}: ${taint.value ?? ''}}`;
  const labels = node.metadata.labels ?? {};
  const terms = spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  if (
    Object.entries(spec.nodeSelector ?? {}).some(([key, value]) => labels[key] !== value) ||
    (terms && !matchesNodeSelectorTerms(terms, node))
  )
    return "node(s) didn't match Pod's node affinity/selector";
  const taken = new Set(there.flatMap(hostPorts));
  if (hostPorts(pod).some((port) => taken.has(port)))
    return "node(s) didn't have free ports for the requested pod ports";
  const allocatable = node.status?.allocatable ?? {};
  if ((there.length + 1) * 1000 > amount(allocatable.pods ?? '110')) return 'Too many pods';
  const used: Amounts = new Map();
  for (const other of there)
    for (const [name, value] of requestsOf(other)) used.set(name, (used.get(name) ?? 0) + value);
  for (const [name, value] of requestsOf(pod))
    if (value > 0 && (used.get(name) ?? 0) + value > amount(allocatable[name])) return `Insufficient ${name}`;
  return undefined;
}
