// Label selectors, field selectors and node selector terms: parsed where they come as text, matched against objects.
import type { LabelSelector } from './types/meta.ts';

/** One requirement; all of a selector's must hold. `Gt` and `Lt` are node affinity's alone. */
export interface Requirement {
  readonly key: string;
  readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist' | 'Gt' | 'Lt';
  readonly values: readonly string[];
}

export type Labels = Readonly<Record<string, string>>;

export class SelectorError extends Error {
  override name = 'SelectorError';
}

const keyPattern = '[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?';
const setForm = new RegExp(String.raw`^(${keyPattern})\s+(in|notin)\s*\(([^()]*)\)$`);
const comparisonForm = new RegExp(String.raw`^(${keyPattern})\s*(==|=|!=)\s*([^\s=!,()]*)$`);
const orderForm = new RegExp(String.raw`^(${keyPattern})\s*(>|<)\s*(-?\d+)$`);
const existsForm = new RegExp(String.raw`^(!?)\s*(${keyPattern})$`);

/**
 * Parses `a=b,c!=d,e in (f,g),!h`. An empty text selects everything. Throws a SelectorError that names the part that makes no sense.
 */
export function parseLabelSelector(text: string): readonly Requirement[] {
  return splitOutsideParentheses(text).map((part) => {
    const inSet = setForm.exec(part);
    if (inSet) {
      const values = inSet[3]!.split(',').map((value) => value.trim());
      return { key: inSet[1]!, operator: inSet[2] === 'in' ? 'In' : 'NotIn', values };
    }
    const comparison = comparisonForm.exec(part);
    if (comparison)
      return { key: comparison[1]!, operator: comparison[2] === '!=' ? 'NotIn' : 'In', values: [comparison[3]!] };
    const order = orderForm.exec(part);
    if (order) return { key: order[1]!, operator: order[2] === '>' ? 'Gt' : 'Lt', values: [order[3]!] };
    const exists = existsForm.exec(part);
    if (exists) return { key: exists[2]!, operator: exists[1] ? 'DoesNotExist' : 'Exists', values: [] };
    throw new SelectorError(`label selector ${JSON.stringify(text)}: cannot read ${JSON.stringify(part)}`);
  });
}

function splitOutsideParentheses(text: string): string[] {
  if (text.trim() === '') return [];
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let at = 0; at <= text.length; at++) {
    const char = text[at];
    if (char === '(') depth++;
    else if (char === ')') depth--;
    else if ((char === ',' && depth === 0) || char === undefined) {
      parts.push(text.slice(start, at).trim());
      start = at + 1;
    }
  }
  return parts;
}

/** The requirements of a LabelSelector object. An empty one selects everything; an absent one nothing, which the caller decides. */
export function labelSelectorRequirements(selector: LabelSelector): readonly Requirement[] {
  const equals = Object.entries(selector.matchLabels ?? {}).map(
    ([key, value]): Requirement => ({ key, operator: 'In', values: [value] }),
  );
  const expressions = (selector.matchExpressions ?? []).map(
    ({ key, operator, values }): Requirement => ({ key, operator, values: values ?? [] }),
  );
  return [...equals, ...expressions];
}

/** As Kubernetes: NotIn holds for a label that is not there; Gt and Lt compare integers and fail on what is none. */
export function requirementHolds(requirement: Requirement, labels: Labels): boolean {
  const value = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined;
  switch (requirement.operator) {
    case 'In':
      return value !== undefined && requirement.values.includes(value);
    case 'NotIn':
      return value === undefined || !requirement.values.includes(value);
    case 'Exists':
      return value !== undefined;
    case 'DoesNotExist':
      return value === undefined;
    case 'Gt':
    case 'Lt':
      return comparesAs(requirement.operator, value, requirement.values);
  }
}

function comparesAs(operator: 'Gt' | 'Lt', value: string | undefined, values: readonly string[]): boolean {
  const limit = values[0];
  if (value === undefined || limit === undefined || values.length !== 1) return false;
  if (!/^[+-]?\d+$/.test(value) || !/^[+-]?\d+$/.test(limit)) return false;
  return operator === 'Gt' ? BigInt(value) > BigInt(limit) : BigInt(value) < BigInt(limit);
}

export const matchesRequirements = (requirements: readonly Requirement[], labels: Labels | undefined): boolean =>
  requirements.every((requirement) => requirementHolds(requirement, labels ?? {}));

/** Whether a LabelSelector object selects these labels; an absent selector selects nothing. */
export const matchesLabelSelector = (selector: LabelSelector | undefined, labels: Labels | undefined): boolean =>
  selector !== undefined && matchesRequirements(labelSelectorRequirements(selector), labels);

export interface FieldRequirement {
  /** A path such as `metadata.name`. */
  readonly field: string;
  readonly value: string;
  readonly equal: boolean;
}

/** Parses `metadata.name=a,spec.nodeName!=b`; `\` escapes a comma, an equals sign or itself. Throws a SelectorError. */
export function parseFieldSelector(text: string): readonly FieldRequirement[] {
  if (text === '') return [];
  return (text.match(/(?:\\.|[^,\\])+/gs) ?? []).map((part) => {
    const match = /^([^=!]+?)(!=|==|=)(.*)$/s.exec(part);
    if (!match) throw new SelectorError(`field selector ${JSON.stringify(text)}: cannot read ${JSON.stringify(part)}`);
    return { field: match[1]!, equal: match[2] !== '!=', value: match[3]!.replaceAll(/\\([\\,=])/g, '$1') };
  });
}

/** `metadata.name=VALUE`, escaped. */
export const fieldEquals = (field: string, value: string): string =>
  `${field}=${value.replaceAll(/[\\,=]/g, (char) => `\\${char}`)}`;

/** Reads the field from the object itself; a field that is absent reads as empty, as the API does. */
export function matchesFieldSelector(requirements: readonly FieldRequirement[], object: unknown): boolean {
  return requirements.every(({ field, value, equal }) => {
    let found: unknown = object;
    for (const part of field.split('.')) found = (found as Record<string, unknown> | undefined | null)?.[part];
    return ((found === undefined || found === null ? '' : String(found)) === value) === equal;
  });
}

export interface NodeSelectorTerm {
  readonly matchExpressions?: readonly { key: string; operator: string; values?: readonly string[] }[];
  readonly matchFields?: readonly { key: string; operator: string; values?: readonly string[] }[];
}

const known: ReadonlySet<string> = new Set(['In', 'NotIn', 'Exists', 'DoesNotExist', 'Gt', 'Lt']);

const toRequirement = (entry: {
  key: string;
  operator: string;
  values?: readonly string[];
}): Requirement | undefined =>
  known.has(entry.operator)
    ? { key: entry.key, operator: entry.operator as Requirement['operator'], values: entry.values ?? [] }
    : undefined;

/** Whether one of the terms holds for the node: terms are ORed, what is in one is ANDed, an empty term or none matches nothing. */
export function matchesNodeSelectorTerms(
  terms: readonly NodeSelectorTerm[],
  node: { readonly metadata: { readonly name: string; readonly labels?: Labels } },
): boolean {
  return terms.some((term) => {
    const expressions = term.matchExpressions ?? [];
    const fields = term.matchFields ?? [];
    if (expressions.length === 0 && fields.length === 0) return false;
    const holds = (entries: typeof expressions, labels: Labels): boolean =>
      entries.every((entry) => {
        const requirement = toRequirement(entry);
        return requirement !== undefined && requirementHolds(requirement, labels);
      });
    return holds(expressions, node.metadata.labels ?? {}) && holds(fields, { 'metadata.name': node.metadata.name });
  });
}
