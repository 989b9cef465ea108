// What the node has and what of it pods may use. Pure: host facts and configuration in, ResourceLists out.
import type { ResourceList } from '../../kube/types/meta.ts';
import type { KubeletConfiguration } from '../config.ts';
import { amounts } from '../../kube/scheduling/amounts.ts';
import type { HostFacts } from './host-facts.ts';
import { parseThresholds, thresholdAmount } from './thresholds.ts';

export type CapacityConfig = Pick<
  KubeletConfiguration,
  | 'maxPods'
  | 'podsPerCore'
  | 'systemReserved'
  | 'kubeReserved'
  | 'reservedSystemCPUs'
  | 'enforceNodeAllocatable'
  | 'localStorageCapacityIsolation'
  | 'evictionHard'
  | 'evictionSoft'
  | 'evictionSoftGracePeriod'
  | 'evictionMinimumReclaim'
>;

/** What device plugins have, by resource name. A resource whose plugin went away stays with 0. */
export interface ExtendedResources {
  readonly capacity: Readonly<Record<string, number>>;
  readonly allocatable: Readonly<Record<string, number>>;
}

const suffixes = ['', 'Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei'];

/** Bytes as Go prints a binary quantity: with the largest suffix that loses nothing. */
export function formatBytes(bytes: number): string {
  let value = BigInt(Math.max(0, Math.floor(bytes)));
  let power = 0;
  while (value !== 0n && value % 1024n === 0n && power < suffixes.length - 1) {
    value /= 1024n;
    power++;
  }
  return `${value}${suffixes[power]}`;
}

/** Millicores as Go prints them: `4`, `3920m`. */
export const formatMillis = (millis: number): string => (millis % 1000 === 0 ? String(millis / 1000) : `${millis}m`);

const format = (name: string, amount: number): string => {
  if (name === 'cpu') return formatMillis(amount);
  return name === 'memory' || name === 'ephemeral-storage' || name.startsWith('hugepages-')
    ? formatBytes(amount)
    : String(amount);
};

const toList = (values: Readonly<Record<string, number>>): ResourceList =>
  Object.fromEntries(Object.entries(values).map(([name, amount]) => [name, format(name, amount)]));

/** The number of CPUs in a list such as `0-3,7`; 0 for an empty one. */
export const countCpus = (list: string): number =>
  list
    .split(',')
    .filter(Boolean)
    .reduce((sum, part) => {
      const [from = '0', to = from] = part.split('-');
      return sum + Number(to) - Number(from) + 1;
    }, 0);

/** CPU in millicores, the rest in whole units. */
export function hostCapacity(facts: HostFacts, config: CapacityConfig): Record<string, number> {
  const pods = config.podsPerCore > 0 ? Math.min(facts.cpus * config.podsPerCore, config.maxPods) : config.maxPods;
  return {
    cpu: facts.cpus * 1000,
    ...(config.localStorageCapacityIsolation ? { 'ephemeral-storage': facts.storageBytes } : {}),
    ...Object.fromEntries([...facts.hugePages].map(([size, bytes]) => [`hugepages-${formatBytes(size)}`, bytes])),
    memory: facts.memoryBytes,
    pods,
  };
}

/** What is set aside for the system and for Kubernetes itself. */
function reserved(
  config: Pick<CapacityConfig, 'systemReserved' | 'kubeReserved' | 'reservedSystemCPUs'>,
): Record<string, number> {
  const system = amounts(config.systemReserved);
  const kube = amounts(config.kubeReserved);
  if (config.reservedSystemCPUs !== '') {
    system.cpu = countCpus(config.reservedSystemCPUs) * 1000;
    delete kube.cpu;
  }
  const kept = { ...system };
  for (const [name, amount] of Object.entries(kube)) kept[name] = (kept[name] ?? 0) + amount;
  return kept;
}

/**
 * What the cgroup of all pods is limited to: what the node has without the reservations, where they are enforced. The eviction threshold lies
 * below that limit, or pods would be killed by the kernel before they could be evicted, and the huge pages are counted by themselves.
 */
export function enforcedLimits(
  capacity: ResourceList,
  config: CapacityConfig,
): { cpuMilli: number; memoryBytes: number } {
  const has = amounts(capacity);
  const kept = config.enforceNodeAllocatable.includes('pods') ? reserved(config) : {};
  const left = (name: string): number => Math.max(0, (has[name] ?? 0) - (kept[name] ?? 0));
  return { cpuMilli: left('cpu'), memoryBytes: left('memory') };
}

/** What is kept from pods: reservations and what eviction defends. */
export function reservation(
  capacity: Readonly<Record<string, number>>,
  config: CapacityConfig,
): Readonly<Record<string, number>> {
  const kept = reserved(config);
  const add = (name: string, amount: number): void => {
    kept[name] = (kept[name] ?? 0) + amount;
  };
  for (const { signal, value, hard } of parseThresholds(config).thresholds) {
    if (!hard) continue;
    if (signal === 'memory.available') add('memory', thresholdAmount(value, capacity.memory ?? 0));
    if (signal === 'nodefs.available')
      add('ephemeral-storage', thresholdAmount(value, capacity['ephemeral-storage'] ?? 0));
  }
  return kept;
}

export interface NodeResources {
  readonly capacity: ResourceList;
  readonly allocatable: ResourceList;
}

export function nodeResources(facts: HostFacts, config: CapacityConfig, extended?: ExtendedResources): NodeResources {
  const capacity = hostCapacity(facts, config);
  const kept = reservation(capacity, config);
  const allocatable: Record<string, number> = {};
  for (const [name, amount] of Object.entries(capacity)) allocatable[name] = Math.max(0, amount - (kept[name] ?? 0));
  const pages = Object.entries(capacity).filter(([name]) => name.startsWith('hugepages-'));
  // Memory set aside for huge pages cannot be handed out as memory.
  for (const [, bytes] of pages) allocatable.memory = Math.max(0, (allocatable.memory ?? 0) - bytes);
  return {
    capacity: toList({ ...capacity, ...extended?.capacity }),
    allocatable: toList({ ...allocatable, ...extended?.allocatable }),
  };
}
