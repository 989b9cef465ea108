// Resources as numbers: what the scheduler and the kubelet compute with. CPU in millicores, everything else in whole units (bytes, pods,
// devices), rounded up as Kubernetes does.
import { milliOf, QuantityError, unitsOf } from '../quantity.ts';
import type { QuantityString, ResourceList } from '../types/meta.ts';

/** By resource name; `cpu` is in millicores, all others in whole units. */
export type Amounts = Readonly<Record<string, number>>;

type Wanted = QuantityString | number | undefined;

// The same few texts come again and again, several times for each look at a pod.
const remembered = 1000;

// The API server lets no malformed quantity through; from elsewhere it counts as nothing.
function reader(parse: (text: QuantityString | number) => number): (quantity: Wanted) => number {
  const known = new Map<QuantityString | number, number>();
  const read = (quantity: QuantityString | number): number => {
    try {
      return parse(quantity);
    } catch (error) {
      if (error instanceof QuantityError) return 0;
      throw error;
    }
  };
  return (quantity) => {
    if (quantity === undefined) return 0;
    let amount = known.get(quantity);
    if (amount !== undefined) return amount;
    amount = read(quantity);
    if (known.size >= remembered) known.clear();
    known.set(quantity, amount);
    return amount;
  };
}

/** A quantity in whole units, rounded up: bytes of `64Mi`, 1 of `100m`. Undefined counts as 0. */
export const units = reader(unitsOf);

/** A quantity in thousandths, rounded up: 100 of `100m`, 1500 of `1.5`. Undefined counts as 0. */
export const millis = reader(milliOf);

/** A list of the API as numbers. */
export function amounts(list: ResourceList | undefined): Record<string, number> {
  const result: Record<string, number> = {};
  for (const [name, quantity] of Object.entries(list ?? {}))
    result[name] = name === 'cpu' ? millis(quantity) : units(quantity);
  return result;
}

/** Adds `more` to `to`, in place. */
export function addTo(to: Record<string, number>, more: Amounts): void {
  for (const [name, amount] of Object.entries(more)) to[name] = (to[name] ?? 0) + amount;
}

/** Raises `to` to at least `least`, in place. */
export function raiseTo(to: Record<string, number>, least: Amounts): void {
  for (const [name, amount] of Object.entries(least)) to[name] = Math.max(to[name] ?? amount, amount);
}

/** Pages' size of `hugepages-2Mi` as the kernel's files call it (`2MB`); undefined for other resources. */
export function hugepageSize(resource: string): string | undefined {
  if (!resource.startsWith('hugepages-')) return undefined;
  const names = ['B', 'KB', 'MB', 'GB', 'TB', 'PB'];
  let bytes = units(resource.slice('hugepages-'.length));
  let index = 0;
  while (bytes >= 1024 && bytes % 1024 === 0 && index < names.length - 1) {
    bytes /= 1024;
    index++;
  }
  return bytes > 0 ? `${bytes}${names[index]}` : undefined;
}
