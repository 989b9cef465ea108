// The answers of the API server that are not what was asked for: one class, and a maker for each of the API's own reasons.
import type { Resource } from '../kube/resources.ts';
import type { Status } from '../kube/types/meta.ts';

export interface Cause {
  readonly reason: string;
  readonly message: string;
  readonly field: string;
}

export const required = (field: string, detail = ''): Cause => ({
  reason: 'FieldValueRequired',
  field,
  message: detail ? `Required value: ${detail}` : 'Required value',
});

/** A value that is wrong, in the API server's words: `Invalid value: "x": why`. */
export const wrong = (field: string, value: unknown, why: string): Cause => ({
  reason: 'FieldValueInvalid',
  field,
  message: `Invalid value: ${JSON.stringify(value)}: ${why}`,
});

/** What is wrong in other words than those. */
export const fault = (field: string, message: string): Cause => ({ reason: 'FieldValueInvalid', field, message });

export const forbiddenField = (field: string, detail: string): Cause => ({
  reason: 'FieldValueForbidden',
  field,
  message: `Forbidden: ${detail}`,
});

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

const detailsOf = (resource: Resource, name: string): NonNullable<Status['details']> => ({
  name,
  ...(resource.group ? { group: resource.group } : {}),
  kind: resource.plural,
});

export const notFound = (resource: Resource, name: string): Failure =>
  new Failure(
    404,
    'NotFound',
    `${qualified(resource, resource.plural)} "${name}" not found`,
    detailsOf(resource, name),
  );

export const alreadyExists = (resource: Resource, name: string): Failure => {
  const message = `${qualified(resource, resource.plural)} "${name}" already exists`;
  return new Failure(409, 'AlreadyExists', message, detailsOf(resource, name));
};

const modified = 'the object has been modified; please apply your changes to the latest version and try again';

export const conflict = (resource: Resource, name: string, why = modified): Failure => {
  const message = `Operation cannot be fulfilled on ${qualified(resource, resource.plural)} "${name}": ${why}`;
  return new Failure(409, 'Conflict', message, detailsOf(resource, name));
};

export const invalid = (resource: Resource, name: string, causes: readonly Cause[]): Failure => {
  const texts = causes.map((cause) => `${cause.field}: ${cause.message}`);
  const message = `${qualified(resource, resource.kind)} "${name}" is invalid: ${texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`}`;
  return new Failure(422, 'Invalid', message, { name, kind: resource.kind, causes: [...causes] });
};

export const badRequest = (message: string): Failure => new Failure(400, 'BadRequest', message);
export const unauthorized = (): Failure => new Failure(401, 'Unauthorized', 'Unauthorized');
export const forbidden = (message: string): Failure => new Failure(403, 'Forbidden', message);
export const expired = (message: string): Failure => new Failure(410, 'Expired', message);
export const notAllowed = (): Failure =>
  new Failure(405, 'MethodNotAllowed', 'the server does not allow this method on the requested resource');
export const noSuchPath = (): Failure =>
  new Failure(404, 'NotFound', 'the server could not find the requested resource');
export const unsupportedType = (message: string): Failure => new Failure(415, 'UnsupportedMediaType', message);
