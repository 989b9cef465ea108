// Where a resource's objects are, as a path of the API.
import type { ObjectName, Selection } from './client.ts';
import type { Resource } from './resources.ts';

/** The path of a collection: in one namespace, or in all where none is given. */
export function collectionPath(resource: Resource, namespace: string | undefined): string {
  const root = resource.group === '' ? `/api/${resource.version}` : `/apis/${resource.group}/${resource.version}`;
  const scope = resource.namespaced && namespace !== undefined ? `/namespaces/${encodeURIComponent(namespace)}` : '';
  return `${root}${scope}/${resource.plural}`;
}

/** The path of one object, or of a subresource of it. */
export function objectPath(resource: Resource, name: ObjectName, subresource?: string): string {
  const object = `${collectionPath(resource, name.namespace)}/${encodeURIComponent(name.name)}`;
  return subresource === undefined ? object : `${object}/${subresource}`;
}

export const apiVersionOf = (resource: Resource): string =>
  resource.group === '' ? resource.version : `${resource.group}/${resource.version}`;

type Parameter = string | number | boolean | undefined;

/** `?a=b&c=d` of the parameters that are set; an empty text where none is. */
export function queryOf(parameters: Readonly<Record<string, Parameter>>): string {
  const set = Object.entries(parameters).filter((entry): entry is [string, string] => entry[1] !== undefined);
  if (set.length === 0) return '';
  return `?${new URLSearchParams(set.map(([key, value]): [string, string] => [key, String(value)]))}`;
}

export const selectionQuery = (selection: Selection): Record<string, Parameter> => ({
  labelSelector: selection.labelSelector || undefined,
  fieldSelector: selection.fieldSelector || undefined,
});
