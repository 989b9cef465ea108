// The mistakes in manifests that people make, refused with the API server's own words.
import { matchesLabelSelector } from '../kube/selectors.ts';
import type { Container, PodSpec } from '../kube/types/pod.ts';
import { type Cause, fault, required, wrong } from './failure.ts';
import type { Deployment } from './workload.ts';

const label = '[a-z0-9]([-a-z0-9]*[a-z0-9])?';
const labelWords = `a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '${label}')`;
const subdomainWords = `a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '${label}(\\.${label})*')`;

const checkLabel = (field: string, name: string): Cause[] =>
  name.length <= 63 && new RegExp(`^${label}$`).test(name) ? [] : [wrong(field, name, labelWords)];

/** Most names are subdomains, a few are labels. */
export function validateName(kind: string, name: string): Cause[] {
  if (kind === 'Service' || kind === 'Namespace') return checkLabel('metadata.name', name);
  const good = name.length <= 253 && new RegExp(`^${label}(\\.${label})*$`).test(name);
  return good ? [] : [wrong('metadata.name', name, subdomainWords)];
}

export const checkPort = (field: string, port: number): Cause[] =>
  port >= 1 && port <= 65_535 ? [] : [wrong(field, port, 'must be between 1 and 65535, inclusive')];

export function validatePodSpec(spec: PodSpec, path: string): Cause[] {
  const { volumes = [], containers = [], initContainers = [] } = spec;
  const known = new Set(volumes.map(({ name }) => name));
  const seen = new Set<string>();
  const check = (field: string) => (container: Container, index: number) => {
    const { name, image, volumeMounts = [] } = container;
    const here = `${path}.${field}[${index}]`;
    const twice = seen.has(name) ? [fault(`${here}.name`, `Duplicate value: "${name}"`)] : [];
    seen.add(name);
    return [
      ...(name ? [...checkLabel(`${here}.name`, name), ...twice] : [required(`${here}.name`)]),
      ...(image ? [] : [required(`${here}.image`)]),
      ...volumeMounts.flatMap((mount, at) =>
        known.has(mount.name) ? [] : [fault(`${here}.volumeMounts[${at}].name`, `Not found: "${mount.name}"`)],
      ),
    ];
  };
  const some = containers.length > 0 ? [] : [required(`${path}.containers`)];
  return [...some, ...initContainers.flatMap(check('initContainers')), ...containers.flatMap(check('containers'))];
}

export function validateWorkload({ spec: { selector, template } }: Deployment): Cause[] {
  if (!selector || Object.keys(selector).length === 0) return [required('spec.selector')];
  if (!template?.spec) return [required('spec.template.spec')];
  const labels = template.metadata?.labels ?? {};
  const apart = wrong('spec.template.metadata.labels', labels, '`selector` does not match template `labels`');
  return [
    ...validatePodSpec(template.spec, 'spec.template.spec'),
    ...(matchesLabelSelector(selector, labels) ? [] : [apart]),
  ];
}
