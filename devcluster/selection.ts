// Label and field selectors of a request's query, as one test of an object.
import {
  matchesFieldSelector,
  matchesRequirements,
  parseFieldSelector,
  parseLabelSelector,
  SelectorError,
} from '../kube/selectors.ts';
import { badRequest } from './failure.ts';
import { at, type Kind, type Obj } from './kinds.ts';

export type Selected = (object: Obj) => boolean;

/** Throws 400 for what makes no sense. */
export function selectionOf({ resource, fields: others }: Kind, query: URLSearchParams, name?: string): Selected {
  const said = query.get('fieldSelector') ?? '';
  const { labels, fields } = parse(query.get('labelSelector') ?? '', said);
  const known = ['metadata.name', 'metadata.namespace', ...others];
  const odd = fields.find(({ field }) => !known.includes(field))?.field;
  if (odd)
    throw badRequest(
      `Unable to find "${resource.plural}" that match field selector "${said}": field label not supported: ${odd}`,
    );
  return (object) =>
    (name === undefined || object.metadata.name === name) &&
    matchesRequirements(labels, object.metadata.labels) &&
    (fields.length === 0 || matchesFieldSelector(fields, selectable(object)));
}

function parse(labels: string, fields: string) {
  try {
    return { labels: parseLabelSelector(labels), fields: parseFieldSelector(fields) };
  } catch (error) {
    if (error instanceof SelectorError) throw badRequest(error.message);
    throw error;
  }
}

// What a field selector sees differs from the object in few places: booleans that are absent are false, an event's source is its component.
const selectable = (object: Obj): unknown => ({
  ...object,
  spec: { unschedulable: false, ...(object.spec as object) },
  ...(object.source === undefined ? {} : { source: at(object, 'source.component') ?? '' }),
});
