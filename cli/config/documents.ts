// YAML documents that remember where each field stands, so that a wrong one can be pointed at.
import { isMap, isScalar, isSeq, LineCounter, parseAllDocuments, type Document } from 'yaml';

export type FieldPath = readonly (string | number)[];

/** A thing that is wrong with a configuration, and where. */
export interface ConfigurationProblem {
  /** `file:line:column`, or the flag. */
  readonly where: string;
  readonly field: string;
  readonly message: string;
}

/** A configuration that cannot be used. The message lists every problem, one a line. */
export class ConfigurationError extends Error {
  override name = 'ConfigurationError';
  readonly problems: readonly ConfigurationProblem[];
  constructor(problems: readonly ConfigurationProblem[]) {
    super(problems.map(describeProblem).join('\n'));
    this.problems = problems;
  }
}

export const describeProblem = ({ where, field, message }: ConfigurationProblem): string =>
  `${where}: ${field ? `${field}: ` : ''}${message}`;

/** One document of one file, or what the flags said. */
export interface Layer {
  readonly value: Readonly<Record<string, unknown>>;
  readonly apiVersion: string;
  readonly kind: string;
  /** Where the field stands; undefined where this layer does not have it. `key` points at its name rather than its value. */
  locate(path: FieldPath, at?: 'key' | 'value'): string | undefined;
}

type Node = { readonly range?: readonly number[] | null } | null | undefined;

function walk(root: unknown, path: FieldPath, at: 'key' | 'value'): Node {
  let node = root;
  let key: unknown = root;
  for (const step of path) {
    if (isMap(node)) {
      const pair = node.items.find((item) => (isScalar(item.key) ? String(item.key.value) : item.key) === String(step));
      if (!pair) return undefined;
      key = pair.key;
      node = pair.value;
    } else if (isSeq(node)) {
      key = node.items[Number(step)];
      if (key === undefined) return undefined;
      node = key;
    } else return undefined;
  }
  return (at === 'key' || !isScalar(node) ? key : node) as Node;
}

function layerOf(file: string, document: Document, lines: LineCounter): Layer {
  const value = document.toJS() as Record<string, unknown>;
  return {
    value,
    apiVersion: String(value.apiVersion ?? ''),
    kind: String(value.kind ?? ''),
    locate(path, at = 'value') {
      const node = walk(document.contents, path, at);
      if (!node) return undefined;
      const { line, col } = lines.linePos(node.range?.[0] ?? 0);
      return `${file}:${line}:${col}`;
    },
  };
}

/** The documents of a file's text; empty ones are left out. Throws a ConfigurationError for what is not YAML. */
export function parseDocuments(file: string, text: string): Layer[] {
  const lines = new LineCounter();
  const documents = parseAllDocuments(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false });
  if ('empty' in documents) return [];
  const problems = documents.flatMap((document) =>
    document.errors.map((error): ConfigurationProblem => {
      const { line, col } = lines.linePos(error.pos[0]);
      return { where: `${file}:${line}:${col}`, field: '', message: error.message };
    }),
  );
  if (problems.length > 0) throw new ConfigurationError(problems);
  return documents
    .filter(
      (document) => document.contents !== null && !(isScalar(document.contents) && document.contents.value === null),
    )
    .map((document) => {
      if (isMap(document.contents)) return layerOf(file, document, lines);
      const { line, col } = lines.linePos(document.contents?.range?.[0] ?? 0);
      throw new ConfigurationError([
        { where: `${file}:${line}:${col}`, field: '', message: 'a configuration document is a map of fields' },
      ]);
    });
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** RFC 7386: maps are merged, everything else replaced, null takes away. */
export function mergeValues(base: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const result: Record<string, unknown> = isObject(base) ? { ...base } : {};
  for (const [key, value] of Object.entries(patch)) {
    if (value === null || value === undefined) delete result[key];
    else result[key] = mergeValues(result[key], value);
  }
  return result;
}
