// The answers of the API server that are not what was asked for: one class, and a maker for each of the API's own reasons.
import type { Resource } from '../kube/resources.ts';
import type { Status } from '../kube/types/meta.ts';

export interface Cause {
  readonly reason: 'FieldValueRequired' | 'FieldValueInvalid' | 'FieldValueForbidden' | 'FieldManagerConflict';
  readonly message: string;
  readonly field: string;
}

/** What a handler throws instead of answering; it becomes a Status. */
export class Failure extends Error {
  override name = 'Failure';
  readonly status: Status;
  constructor(code: number, reason: string, message: string, details?: Status['details']) {
    super(message);
    this.status = { status: 'Failure', message, reason, code, ...(details ? { details } : {}) };
  }
}

/** `pods`, or `deployments.apps`. */
export const qualified = (resource: Resource): string =>
  resource.group ? `${resource.plural}.${resource.group}` : resource.plural;

const detailsOf = (resource: Resource, name: string): Status['details'] => ({
  name,
  ...(resource.group ? { group: resource.group } : {}),
  kind: resource.plural,
});

export const notFound = (resource: Resource, name: string): Failure =>
  new Failure(404, 'NotFound', `${qualified(resource)} "${name}" not found`, detailsOf(resource, name));

export const alreadyExists = (resource: Resource, name: string): Failure =>
  new Failure(409, 'AlreadyExists', `${qualified(resource)} "${name}" already exists`, detailsOf(resource, name));

export const conflict = (resource: Resource, name: string, why?: string): Failure =>
  new Failure(
    409,
    'Conflict',
    `Operation cannot be fulfilled on ${qualified(resource)} "${name}": ${
      why ?? 'the object has been modified; please apply your changes to the latest version and try again'
    }`,
    detailsOf(resource, name),
  );

export const invalid = (resource: Resource, name: string, causes: readonly Cause[]): Failure => {
  const kind = resource.group ? `${resource.kind}.${resource.group}` : resource.kind;
  const texts = causes.map((cause) => `${cause.field}: ${cause.message}`);
  const text = texts.length === 1 ? texts[0] : `[${texts.join(', ')}]`;
  return new Failure(422, 'Invalid', `${kind} "${name}" is invalid: ${text}`, {
    name,
    kind: resource.kind,
    causes: [...causes],
  });
};

export const badRequest = (message: string): Failure => new Failure(400, 'BadRequest', message);
export const unauthorized = (): Failure => new Failure(401, 'Unauthorized', 'Unauthorized');
export const forbidden = (message: string): Failure => new Failure(403, 'Forbidden', message);
export const expired = (message: string): Failure => new Failure(410, 'Expired', message);
export const notAllowed = (message: string): Failure => new Failure(405, 'MethodNotAllowed', message);
export const noSuchPath = (): Failure =>
  new Failure(404, 'NotFound', 'the server could not find the requested resource');
export const tooNew = (asked: number, current: number): Failure =>
  new Failure(504, 'Timeout', `Too large resource version: ${asked}, current: ${current}`, {
    retryAfterSeconds: 1,
    causes: [{ reason: 'ResourceVersionTooLarge', message: 'Too large resource version' }],
  });
