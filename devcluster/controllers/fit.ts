// Whether a pod may run on a node, and what of it is in the way. Pure.
import { milliOf } from '../../kube/quantity.ts';
import { matchesNodeSelectorTerms } from '../../kube/selectors.ts';
import type { Node, Taint } from '../../kube/types/core.ts';
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Pod, Toleration } from '../../kube/types/pod.ts';

/** Thousandths; precise enough to compare sums with. */
type Amounts = Readonly<Record<string, number>>;

const parsed = (list: ResourceList | undefined): Amounts =>
  Object.fromEntries(Object.entries(list ?? {}).map(([name, quantity]) => [name, milliOf(quantity ?? '0')]));

const merge = (lists: readonly Amounts[], by: (a: number, b: number) => number): Amounts => {
  const merged: Record<string, number> = {};
  for (const list of lists)
    for (const [name, value] of Object.entries(list)) merged[name] = by(merged[name] ?? 0, value);
  return merged;
};
const sum = (...lists: Amounts[]): Amounts => merge(lists, (a, b) => a + b);

/** What the pod asks for: containers and sidecars together, or the largest init container with the sidecars before it. */
export function requestsOf({ spec }: Pod): Amounts {
  let sidecars: Amounts = {};
  const peaks: Amounts[] = [];
  for (const { resources, restartPolicy } of spec.initContainers ?? []) {
    const together = sum(sidecars, parsed(resources?.requests));
    if (restartPolicy === 'Always') sidecars = together;
    else peaks.push(together);
  }
  const running = sum(sidecars, ...spec.containers.map(({ resources }) => parsed(resources?.requests)));
  const most = merge([running, ...peaks], Math.max);
  return sum({ ...most, ...parsed(spec.resources?.requests) }, parsed(spec.overhead));
}

const tolerates = (tolerations: readonly Toleration[], taint: Taint): boolean =>
  tolerations.some(
    ({ key, operator = 'Equal', value = '', effect }) =>
      (!effect || effect === taint.effect) &&
      (!key || key === taint.key) &&
      (operator === 'Exists' || (key !== undefined && value === (taint.value ?? ''))),
  );

const hostPorts = ({ spec }: Pod): string[] =>
  spec.containers.flatMap(({ ports = [] }) =>
    ports.flatMap(({ hostPort, protocol }) => (hostPort ? [`${protocol ?? 'TCP'}/${hostPort}`] : [])),
  );

/** Undefined where the pod fits beside those that are there. */
export function misfit(pod: Pod, node: Node, there: readonly Pod[]): string | undefined {
  const { spec } = pod;
  const ready = node.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True');
  if (!ready) return 'node(s) were not ready';
  if (node.spec.unschedulable) return 'node(s) were unschedulable';
  const taint = node.spec.taints?.find(
    (one) => one.effect !== 'PreferNoSchedule' && !tolerates(spec.tolerations ?? [], one),
  );
  if (taint) return `node(s) had untolerated taint(s) {${taint.key}: ${taint.value ?? ''}}`;
  const { labels = {} } = node.metadata;
  const terms = spec.affinity?.nodeAffinity?.requiredDuringSchedulingIgnoredDuringExecution?.nodeSelectorTerms;
  const selected = Object.entries(spec.nodeSelector ?? {}).every(([key, value]) => labels[key] === value);
  if (!selected || (terms && !matchesNodeSelectorTerms(terms, node)))
    return "node(s) didn't match Pod's node affinity/selector";
  const taken = new Set(there.flatMap(hostPorts));
  if (hostPorts(pod).some((port) => taken.has(port)))
    return "node(s) didn't have free ports for the requested pod ports";
  const allocatable = { pods: 110_000, ...parsed(node.status?.allocatable) } as Amounts;
  if ((there.length + 1) * 1000 > allocatable.pods!) return 'Too many pods';
  const used = sum(...there.map(requestsOf));
  const short = Object.entries(requestsOf(pod)).find(
    ([name, value]) => value > 0 && (used[name] ?? 0) + value > (allocatable[name] ?? 0),
  );
  return short && `Insufficient ${short[0]}`;
}
