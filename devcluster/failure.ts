// The answers of the API server that are not what was asked for: one class, and a maker for each of the API's own reasons.
import type { Resource } from '../kube/resources.ts';
import type { Status } from '../kube/types/meta.ts';

export interface Cause {
  readonly reason: string;
  readonly message: string;
  readonly field: string;
}

/** What is wrong in words of its own. */
export const fault = (field: string, message: string, reason = 'FieldValueInvalid'): Cause => ({
  reason,
  field,
  message,
});
export const required = (field: string, detail = ''): Cause =>
  fault(field, detail ? `Required value: ${detail}` : 'Required value', 'FieldValueRequired');
/** A value that is wrong, in the API server's words: `Invalid value: "x": why`. */
export const wrong = (field: string, value: unknown, why: string): Cause =>
  fault(field, `Invalid value: ${JSON.stringify(value)}: ${why}`);
export const forbiddenField = (field: string, detail: string): Cause =>
  fault(field, `Forbidden: ${detail}`, 'FieldValueForbidden');

/** What a handler throws instead of answering; it becomes a Status. */
export class Failure extends Error {
  override name = 'Failure';
  readonly status: Status;
  constructor(code: number, reason: string, message: string, details?: Status['details']) {
    super(message);
    this.status = { status: 'Failure', message, reason, code, ...(details ? { details } : {}) };
  }
}

const qualified = ({ group }: Resource, name: string): string => (group ? `${name}.${group}` : name);

const about = ({ group, plural }: Resource, name: string): NonNullable<Status['details']> => ({
  name,
  ...(group ? { group } : {}),
  kind: plural,
});

const told = (code: number, reason: string, words: string) => (resource: Resource, name: string) =>
  new Failure(code, reason, `${qualified(resource, resource.plural)} "${name}" ${words}`, about(resource, name));
export const notFound = told(404, 'NotFound', 'not found');
export const alreadyExists = told(409, 'AlreadyExists', 'already exists');

const modified = 'the object has been modified; please apply your changes to the latest version and try again';

export const conflict = (resource: Resource, name: string, why = modified): Failure => {
  const message = `Operation cannot be fulfilled on ${qualified(resource, resource.plural)} "${name}": ${why}`;
  return new Failure(409, 'Conflict', message, about(resource, name));
};

export const invalid = (resource: Resource, name: string, causes: readonly Cause[]): Failure => {
  const texts = causes.map((cause) => `${cause.field}: ${cause.message}`);
  const message = `${qualified(resource, resource.kind)} "${name}" is invalid: ${texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`}`;
  return new Failure(422, 'Invalid', message, { name, kind: resource.kind, causes: [...causes] });
};

export const badRequest = (message: string): Failure => new Failure(400, 'BadRequest', message);
export const forbidden = (message: string): Failure => new Failure(403, 'Forbidden', message);
export const expired = (message: string): Failure => new Failure(410, 'Expired', message);
export const unsupportedType = (message: string): Failure => new Failure(415, 'UnsupportedMediaType', message);
export const noSuchPath = (): Failure =>
  new Failure(404, 'NotFound', 'the server could not find the requested resource');
