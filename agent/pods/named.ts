// A pod's containers by their names.
import type { Container, Pod } from '../../kube/types/pod.ts';

export const containerNamed = ({ spec }: Pod, name: string): Container | undefined =>
  [...spec.containers, ...(spec.initContainers ?? []), ...(spec.ephemeralContainers ?? [])].find(
    (container) => container.name === name,
  );
