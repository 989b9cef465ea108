// Whether a pod's host ports are free.
import type { ContainerPort, Pod } from '../types/pod.ts';
import { isSidecar } from './pod-resources.ts';

function hostPorts(pod: Pod): ContainerPort[] {
  const running = [...(pod.spec.initContainers ?? []).filter(isSidecar), ...pod.spec.containers];
  return running.flatMap((container) => (container.ports ?? []).filter((port) => (port.hostPort ?? 0) > 0));
}

const anyAddress: ReadonlySet<string> = new Set(['', '0.0.0.0', '::']);

function conflict(one: ContainerPort, other: ContainerPort): boolean {
  if (one.hostPort !== other.hostPort || (one.protocol ?? 'TCP') !== (other.protocol ?? 'TCP')) return false;
  const [a = '', b = ''] = [one.hostIP, other.hostIP];
  return a === b || anyAddress.has(a) || anyAddress.has(b);
}

export function hostPortsFree(pod: Pod, others: readonly Pod[]): boolean {
  const wanted = hostPorts(pod);
  if (wanted.length === 0) return true;
  const used = others.flatMap(hostPorts);
  return !wanted.some((port) => used.some((other) => conflict(port, other)));
}
