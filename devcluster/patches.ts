// PATCH in its four kinds, on objects as they are kept.
import { applyJsonPatch } from '../kube/json-patch.ts';
import { applyMergePatch, applyStrategicMergePatch, PatchError } from '../kube/strategic-merge.ts';
import { serverSideApply } from './apply.ts';
import { badRequest, Failure, unsupportedType } from './failure.ts';
import { apiVersionOf, type Kind } from './kinds.ts';
import { type ApiRequest, isTrue, readBody } from './request.ts';
import type { Obj } from './store.ts';
import { stripped } from './wire.ts';

export interface Patch {
  readonly type: string;
  readonly body: unknown;
  readonly fieldManager: string;
  readonly force: boolean;
  readonly now: number;
}

export const patchOf = async (request: ApiRequest, now: number): Promise<Patch> => ({
  type: (request.header('content-type') ?? '').split(';')[0]!.trim(),
  body: await readBody(request),
  fieldManager: request.query.get('fieldManager') ?? '',
  force: isTrue(request.query.get('force')),
  now,
});

export const isApply = ({ type }: Patch): boolean => type === 'application/apply-patch+yaml';

/** `current` is undefined only for apply, which makes what is not there. */
export function patchObject(kind: Kind, current: Obj | undefined, patch: Patch): Obj {
  const { resource } = kind;
  const wire = current && { apiVersion: apiVersionOf(resource), kind: resource.kind, ...current };
  try {
    return stripped(patchWire(kind, wire, patch) as Obj);
  } catch (error) {
    if (!(error instanceof PatchError)) throw error;
    if (error.code === 'invalid') throw badRequest(error.message);
    const message = `the server rejected our request due to an error in our request: ${error.message}`;
    throw new Failure(422, 'Invalid', message);
  }
}

function patchWire(kind: Kind, wire: Obj | undefined, patch: Patch): unknown {
  if (isApply(patch)) return serverSideApply(kind, wire, patch.body as Obj, patch);
  switch (patch.type) {
    case 'application/merge-patch+json':
      return applyMergePatch(wire, patch.body);
    case 'application/strategic-merge-patch+json':
      return applyStrategicMergePatch(wire, patch.body, kind.resource.kind);
    case 'application/json-patch+json':
      return applyJsonPatch(wire, patch.body);
    default:
      throw unsupportedType(`the body of the request was in an unknown format: ${patch.type || 'no content type'}`);
  }
}
