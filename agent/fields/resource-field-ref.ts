// What a resourceFieldRef of the downward API says about a container, for environment variables and for files.
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Container, Pod, ResourceFieldSelector } from '../../kube/types/pod.ts';
import { quantityMilliValue, quantityValue } from './quantity-value.ts';

/** A resourceFieldRef that names no container of the pod, or a resource that cannot be asked for. */
export class ResourceFieldError extends Error {
  override name = 'ResourceFieldError';
}

/** The container or init container of that name; throws a ResourceFieldError with Kubernetes' words. */
export function containerNamed(pod: Pod, name: string): Container {
  const found = [...pod.spec.containers, ...(pod.spec.initContainers ?? [])].find((each) => each.name === name);
  if (!found) throw new ResourceFieldError(`container ${name} not found`);
  return found;
}

/**
 * The value as text, in units of the divisor, rounded up. `container` is the one whose environment it is for, used where the selector
 * names none. Limits of cpu, memory and ephemeral storage that are not set (or zero) are the pod's own, or else the node's `allocatable`.
 */
export function resourceFieldValue(
  pod: Pod,
  selector: ResourceFieldSelector,
  allocatable: Readonly<ResourceList>,
  container?: Container,
): string {
  const owner = selector.containerName || !container ? containerNamed(pod, selector.containerName ?? '') : container;
  const [, kind, resource = ''] = /^(limits|requests)\.(.+)$/.exec(selector.resource) ?? [];
  const plain = resource === 'cpu' || resource === 'memory' || resource === 'ephemeral-storage';
  if (kind === undefined || (!plain && !resource.startsWith('hugepages-')))
    throw new ResourceFieldError(`unsupported container resource : ${selector.resource}`);
  const set = kind === 'limits' ? owner.resources?.limits?.[resource] : owner.resources?.requests?.[resource];
  const isSet = (quantity: string | undefined): boolean =>
    quantity !== undefined && quantityMilliValue(quantity) !== 0n;
  // Of these resources only cpu and memory can be limited for a pod as a whole.
  const ofPod = resource === 'ephemeral-storage' ? undefined : pod.spec.resources?.limits?.[resource];
  const implied = (isSet(ofPod) ? ofPod : allocatable[resource]) ?? '0';
  const quantity = kind === 'limits' && plain && !isSet(set) ? implied : (set ?? '0');
  const value = resource === 'cpu' ? quantityMilliValue : quantityValue;
  const asked = value(selector.divisor ?? '0');
  const divisor = asked === 0n ? value('1') : asked;
  return String((value(quantity) + divisor - 1n) / divisor);
}
