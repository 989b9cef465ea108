// The mistakes in manifests that people make, refused with the API server's own words.
import { isDeepStrictEqual } from 'node:util';
import { matchesLabelSelector } from '../kube/selectors.ts';
import type { Service } from '../kube/types/core.ts';
import type { LabelSelector } from '../kube/types/meta.ts';
import type { Container, Pod, PodSpec } from '../kube/types/pod.ts';
import type { Deployment } from './default-workload.ts';
import type { Cause } from './failure.ts';
import { isDnsLabel, isDnsSubdomain } from './names.ts';

const labelWords =
  "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const subdomainWords =
  "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

export const required = (field: string, detail = ''): Cause => ({
  reason: 'FieldValueRequired',
  field,
  message: detail ? `Required value: ${detail}` : 'Required value',
});

export const wrong = (field: string, value: unknown, detail: string): Cause => ({
  reason: 'FieldValueInvalid',
  field,
  message: `Invalid value: ${JSON.stringify(value)}: ${detail}`,
});

export const forbiddenField = (field: string, detail: string): Cause => ({
  reason: 'FieldValueForbidden',
  field,
  message: `Forbidden: ${detail}`,
});

/** RBAC's names may hold colons; most others are subdomains, a few are labels. */
export function validateName(kind: string, group: string, name: string): Cause[] {
  if (group === 'rbac.authorization.k8s.io')
    return /[/%]/.test(name) ? [wrong('metadata.name', name, "may not contain '/'")] : [];
  if (kind === 'Service' || kind === 'Namespace')
    return isDnsLabel(name) ? [] : [wrong('metadata.name', name, labelWords)];
  return isDnsSubdomain(name) ? [] : [wrong('metadata.name', name, subdomainWords)];
}

export const validatePod = (pod: Pod): Cause[] => validatePodSpec(pod.spec, 'spec');

export function validatePodSpec(spec: PodSpec, path: string): Cause[] {
  const causes: Cause[] = [];
  if (!spec.containers?.length) causes.push(required(`${path}.containers`));
  const volumes = new Set((spec.volumes ?? []).map((volume) => volume.name));
  const seen = new Set<string>();
  const lists = [
    ['initContainers', spec.initContainers],
    ['containers', spec.containers],
  ] as const;
  for (const [field, list] of lists)
    for (const [index, container] of (list ?? []).entries())
      causes.push(...validateContainer(container, `${path}.${field}[${index}]`, volumes, seen));
  for (const [index, volume] of (spec.volumes ?? []).entries())
    if (!isDnsLabel(volume.name)) causes.push(wrong(`${path}.volumes[${index}].name`, volume.name, labelWords));
  if (spec.restartPolicy && !['Always', 'OnFailure', 'Never'].includes(spec.restartPolicy))
    causes.push({
      reason: 'FieldValueInvalid',
      field: `${path}.restartPolicy`,
      message: `Unsupported value: "${spec.restartPolicy}": supported values: "Always", "OnFailure", "Never"`,
    });
  return causes;
}

function validateContainer(
  container: Container,
  path: string,
  volumes: ReadonlySet<string>,
  seen: Set<string>,
): Cause[] {
  const causes: Cause[] = [];
  if (!container.name) causes.push(required(`${path}.name`));
  else if (!isDnsLabel(container.name)) causes.push(wrong(`${path}.name`, container.name, labelWords));
  else if (seen.has(container.name))
    causes.push({
      reason: 'FieldValueInvalid',
      field: `${path}.name`,
      message: `Duplicate value: "${container.name}"`,
    });
  seen.add(container.name);
  if (!container.image) causes.push(required(`${path}.image`));
  for (const [index, mount] of (container.volumeMounts ?? []).entries())
    if (!volumes.has(mount.name))
      causes.push({
        reason: 'FieldValueInvalid',
        field: `${path}.volumeMounts[${index}].name`,
        message: `Not found: "${mount.name}"`,
      });
  for (const [index, port] of (container.ports ?? []).entries())
    if (!(port.containerPort >= 1 && port.containerPort <= 65_535))
      causes.push(
        wrong(`${path}.ports[${index}].containerPort`, port.containerPort, 'must be between 1 and 65535, inclusive'),
      );
  return causes;
}

/** A pod's spec may change in few ways once it is there. */
export function validatePodUpdate(pod: Pod, before: Pod): Cause[] {
  const frozen = (spec: PodSpec): unknown => ({
    ...spec,
    containers: spec.containers.map((container) => ({ ...container, image: '' })),
    initContainers: spec.initContainers?.map((container) => ({ ...container, image: '' })),
    activeDeadlineSeconds: undefined,
    tolerations: undefined,
    terminationGracePeriodSeconds: undefined,
    schedulingGates: undefined,
    nodeSelector: undefined,
  });
  const plain = (spec: PodSpec): unknown => JSON.parse(JSON.stringify(frozen(spec)));
  if (isDeepStrictEqual(plain(pod.spec), plain(before.spec))) return [];
  return [
    forbiddenField(
      'spec',
      'pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)',
    ),
  ];
}

export function validateService(service: Service): Cause[] {
  const { spec } = service;
  const causes: Cause[] = [];
  const ports = spec.ports ?? [];
  if (ports.length === 0 && spec.type !== 'ExternalName' && spec.clusterIP !== 'None')
    causes.push(required('spec.ports'));
  for (const [index, port] of ports.entries()) {
    const path = `spec.ports[${index}]`;
    if (!(port.port >= 1 && port.port <= 65_535))
      causes.push(wrong(`${path}.port`, port.port, 'must be between 1 and 65535, inclusive'));
    if (ports.length > 1 && !port.name) causes.push(required(`${path}.name`));
  }
  if (spec.type === 'ExternalName' && !spec.externalName) causes.push(required('spec.externalName'));
  return causes;
}

export function validateWorkload(object: {
  spec: { selector: LabelSelector; template: Deployment['spec']['template'] };
}): Cause[] {
  const { selector, template } = object.spec;
  if (!selector || Object.keys(selector).length === 0) return [required('spec.selector')];
  if (!template?.spec) return [required('spec.template.spec')];
  const causes = validatePodSpec(template.spec, 'spec.template.spec');
  if (!matchesLabelSelector(selector, template.metadata?.labels ?? {}))
    causes.push(
      wrong(
        'spec.template.metadata.labels',
        template.metadata?.labels ?? {},
        '`selector` does not match template `labels`',
      ),
    );
  return causes;
}
