// PATCH in its four kinds, on objects as they are kept.
import { apiVersionOf } from '../kube/api-path.ts';
import { applyJsonPatch } from '../kube/json-patch.ts';
import { applyMergePatch, applyStrategicMergePatch, PatchError } from '../kube/strategic-merge.ts';
import { serverSideApply } from './apply.ts';
import { badRequest, unsupportedType } from './failure.ts';
import type { Kind, Obj } from './kinds.ts';
import { type ApiRequest, isTrue, readBody } from './request.ts';
import { stripped } from './wire.ts';

export type Patch = Awaited<ReturnType<typeof patchOf>>;

export const patchOf = async (request: ApiRequest, now: number) => ({
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
    throw error instanceof PatchError ? badRequest(error.message) : error;
  }
}

function patchWire(kind: Kind, wire: Obj | undefined, patch: Patch): unknown {
  switch (patch.type) {
    case 'application/apply-patch+yaml':
      return serverSideApply(kind, wire, patch.body as Obj, patch);
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
