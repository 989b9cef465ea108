// PATCH in its four kinds, on objects as they are kept.
import { applyJsonPatch } from '../kube/json-patch.ts';
import { applyMergePatch, applyStrategicMergePatch, PatchError } from '../kube/strategic-merge.ts';
import { serverSideApply } from './apply.ts';
import { badRequest, Failure } from './failure.ts';
import { apiVersionOf, type Kind } from './kinds.ts';
import { fromView, toView } from './wire.ts';
import type { Obj } from './store.ts';

export interface Patch {
  readonly contentType: string;
  readonly body: unknown;
  readonly fieldManager: string;
  readonly force: boolean;
  readonly now: number;
}

export const isApply = (contentType: string): boolean => contentType.startsWith('application/apply-patch');

/** `current` is undefined only for apply, which makes what is not there. */
export function patchObject(kind: Kind, current: Obj | undefined, patch: Patch): Obj {
  const wire = current && {
    apiVersion: apiVersionOf(kind.resource),
    kind: kind.resource.kind,
    ...toView(kind, current),
  };
  try {
    return fromView(kind, patchWire(kind, wire, patch) as Obj);
  } catch (error) {
    if (!(error instanceof PatchError)) throw error;
    if (error.code === 'invalid') throw badRequest(error.message);
    throw new Failure(
      422,
      'Invalid',
      `the server rejected our request due to an error in our request: ${error.message}`,
    );
  }
}

function patchWire(kind: Kind, wire: Obj | undefined, patch: Patch): unknown {
  const type = patch.contentType.split(';')[0]!.trim();
  switch (type) {
    case 'application/merge-patch+json':
      return applyMergePatch(wire, patch.body);
    case 'application/strategic-merge-patch+json':
      return applyStrategicMergePatch(wire, patch.body, kind.resource.kind);
    case 'application/json-patch+json':
      return applyJsonPatch(wire, patch.body);
    case 'application/apply-patch+yaml':
      return serverSideApply(kind, wire, patch.body as Obj, patch);
    default:
      throw new Failure(
        415,
        'UnsupportedMediaType',
        'the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml, application/strategic-merge-patch+json',
      );
  }
}
