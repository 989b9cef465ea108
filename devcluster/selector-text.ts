// A label selector as text, as kubectl prints it and as the API's query takes it.
import type { LabelSelector } from '../kube/types/meta.ts';

export function requirementText(selector: LabelSelector | undefined): string {
  const equals = Object.entries(selector?.matchLabels ?? {}).map(([key, value]) => `${key}=${value}`);
  const expressions = (selector?.matchExpressions ?? []).map(({ key, operator, values = [] }) => {
    if (operator === 'In') return `${key} in (${values.join(',')})`;
    if (operator === 'NotIn') return `${key} notin (${values.join(',')})`;
    return operator === 'Exists' ? key : `!${key}`;
  });
  return [...equals.sort(), ...expressions].join(',');
}
