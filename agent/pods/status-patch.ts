// What must be sent so that the API shows a status: only what differs, as a strategic merge patch. Pure.
import { isDeepStrictEqual } from 'node:util';
import type { Condition } from '../../kube/types/meta.ts';
import type { PodStatus } from '../../kube/types/pod.ts';
import { isNodeCondition, isSharedCondition } from './conditions.ts';

// Fields that the node writes; others in the status belong to somebody else.
const fields = [
  'observedGeneration',
  'phase',
  'reason',
  'message',
  'hostIP',
  'podIP',
  'startTime',
  'initContainerStatuses',
  'containerStatuses',
  'ephemeralContainerStatuses',
  'qosClass',
  'resize',
] as const;

// Maps of Kubernetes' types, and a struct that is always there: empty, they say the same as when they are left out.
const emptySaysNothing = new Set(['limits', 'requests', 'allocatedResources', 'lastState']);

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Whether the API leaves the field out: null, undefined, empty text and lists, and maps without entries. */
function saysNothing(key: string, value: unknown): boolean {
  if (value === undefined || value === null || value === '') return true;
  if (Array.isArray(value)) return value.length === 0;
  return (
    emptySaysNothing.has(key) && isObject(value) && Object.entries(value).every(([of, each]) => saysNothing(of, each))
  );
}

// By hand, for every look at a pod compares its whole status.
function saysTheSame(a: unknown, b: unknown): boolean {
  if (a === b || (a ?? undefined) === (b ?? undefined)) return true;
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((each, at) => saysTheSame(each, b[at]));
  }
  if (!isObject(a) || !isObject(b)) return false;
  for (const key of Object.keys(a)) {
    const nothing = saysNothing(key, a[key]);
    if (nothing !== saysNothing(key, b[key]) || !(nothing || saysTheSame(a[key], b[key]))) return false;
  }
  return Object.keys(b).every((key) => key in a || saysNothing(key, b[key]));
}

// A list that is empty is left out as a field; as the whole it is the same as none.
const whole = (value: unknown): unknown => (Array.isArray(value) && value.length === 0 ? undefined : value);
const same = (a: unknown, b: unknown): boolean => saysTheSame(whole(a), whole(b));

// Elements of a list that merges keep the fields a patch leaves out: what is no longer said must be taken back.
const takenBack = (
  before: Condition | undefined,
  after: Condition,
): Condition & { reason?: unknown; message?: unknown } => ({
  ...after,
  ...(before?.reason !== undefined && after.reason === undefined ? { reason: null as never } : {}),
  ...(before?.message !== undefined && after.message === undefined ? { message: null as never } : {}),
});

function conditionPatch(before: readonly Condition[], after: readonly Condition[]): unknown[] {
  const shown = (type: string): Condition | undefined => before.find((each) => each.type === type);
  const changed = after
    .filter((condition) => isNodeCondition(condition.type) && !same(condition, shown(condition.type)))
    .map((condition) => takenBack(shown(condition.type), condition));
  const gone = before.filter(
    ({ type }) => isNodeCondition(type) && !isSharedCondition(type) && !after.some((each) => each.type === type),
  );
  return [...changed, ...gone.map(({ type }) => ({ type, $patch: 'delete' }))];
}

/** Whether the API shows how the pod ended: what its final deletion waits for. */
export const showsEnd = (shown: PodStatus, wanted: PodStatus): boolean =>
  shown.phase === wanted.phase &&
  same(shown.containerStatuses, wanted.containerStatuses) &&
  same(shown.initContainerStatuses, wanted.initContainerStatuses);

// These lists merge by address: without the directive an old address would stay beside the new one.
const replaceList = (list: readonly { ip: string }[]): unknown[] => [...list, { $patch: 'replace' }];

/** Maps merge key by key: what is no longer there must be taken back. */
function mapPatch(before: unknown, after: unknown): unknown {
  if (!isObject(before) || !isObject(after)) return after ?? null;
  return Object.fromEntries(
    [...new Set([...Object.keys(before), ...Object.keys(after)])]
      .filter((key) => !isDeepStrictEqual(before[key], after[key]))
      .map((key) => [key, mapPatch(before[key], after[key])]),
  );
}

/** The patch of the status subresource, or undefined where nothing differs. */
export function statusPatch(uid: string, before: PodStatus, after: PodStatus): object | undefined {
  const status: Record<string, unknown> = {};
  for (const field of fields) {
    if (same(before[field], after[field])) continue;
    status[field] = after[field] ?? null;
  }
  for (const field of ['allocatedResources', 'resources'] as const)
    if (!same(before[field], after[field])) status[field] = mapPatch(before[field], after[field]);
  for (const field of ['podIPs', 'hostIPs'] as const)
    if (!same(before[field], after[field])) status[field] = replaceList(after[field] ?? []);
  const conditions = conditionPatch(before.conditions ?? [], after.conditions ?? []);
  if (conditions.length > 0) status.conditions = conditions;
  return Object.keys(status).length === 0 ? undefined : { metadata: { uid }, status };
}
