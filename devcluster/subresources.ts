// What lies below an object and is not a plain part of it: binding, scale, token.
import type { TokenRequest } from '../kube/types/core.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import type { Pod } from '../kube/types/pod.ts';
import { badRequest, conflict } from './failure.ts';
import { type Answer, type HandlerDeps, statusText, writeOptionsOf } from './handlers.ts';
import { at, kindByName, type Obj } from './kinds.ts';
import { selectorText, timestamp } from './names.ts';
import { patchObject, patchOf } from './patches.ts';
import { type ApiRequest, readObject, type Target } from './request.ts';
import { issuer, type Tokens } from './tokens.ts';

export interface SubresourceDeps extends HandlerDeps {
  readonly tokens: Tokens;
}

type BoundObjectRef = NonNullable<NonNullable<TokenRequest['spec']>['boundObjectRef']>;

const json = (status: number, body: unknown): Answer => ({ status, body: JSON.stringify(body) });

/** POST pods/NAME/binding: the scheduler's word. */
export async function bind(deps: SubresourceDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const { registry, clock } = deps;
  const { kind, namespace, name = '' } = target;
  const nodeName = at(await readObject(request), 'target.name') as string | undefined;
  if (!nodeName) throw badRequest('target.name is required');
  const current = registry.read(kind, namespace, name) as Obj & Pod;
  const { metadata, spec, status } = current;
  if (metadata.deletionTimestamp)
    throw conflict(kind.resource, name, `pod ${name} is being deleted, cannot be assigned to a host`);
  if (spec.nodeName) throw conflict(kind.resource, name, `pod ${name} is already assigned to node "${spec.nodeName}"`);
  const others = (status?.conditions ?? []).filter(({ type }) => type !== 'PodScheduled');
  const lastTransitionTime = timestamp(clock.now());
  const scheduled = { type: 'PodScheduled', status: 'True', lastProbeTime: null, lastTransitionTime };
  const bound = { spec: { ...spec, nodeName }, status: { ...status, conditions: [...others, scheduled] } };
  registry.collectionOf(kind).put({ ...current, ...bound });
  return { status: 201, body: statusText({ status: 'Success', code: 201 }) };
}

/** POST serviceaccounts/NAME/token. */
export async function issueToken(deps: SubresourceDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const { registry, clock, tokens } = deps;
  const { kind, namespace = '', name = '' } = target;
  const { spec } = (await readObject(request)) as unknown as Partial<TokenRequest>;
  const account = registry.read(kind, namespace, name);
  const seconds = Math.max(600, spec?.expirationSeconds ?? 3600);
  const audiences = spec?.audiences?.length ? spec.audiences : [issuer];
  const idOf = ({ metadata }: KubeObject) => ({ name: metadata.name, uid: metadata.uid! });
  const pod = spec?.boundObjectRef && readBound(deps, namespace, spec.boundObjectRef);
  const node = registry.find<KubeObject>('nodes', undefined, pod?.spec.nodeName ?? '');
  const subject = {
    namespace,
    serviceaccount: idOf(account),
    ...(node ? { node: idOf(node) } : {}),
    ...(pod ? { pod: idOf(pod) } : {}),
  };
  const now = clock.now();
  return json(201, {
    kind: 'TokenRequest',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: { name, namespace, creationTimestamp: timestamp(now) },
    spec: { ...spec, audiences, expirationSeconds: seconds },
    status: {
      token: tokens.issue(subject, audiences, seconds),
      expirationTimestamp: timestamp(now + seconds * 1000),
    },
  });
}

/** Tokens are bound to pods, as nodes ask for them. */
function readBound({ registry }: SubresourceDeps, namespace: string, ref: BoundObjectRef): Pod {
  const { kind = '', name = '', uid } = ref;
  if (kind !== 'Pod') throw badRequest(`cannot bind token to object of type ${kind}`);
  const pods = kindByName('pods');
  const pod = registry.read(pods, namespace, name);
  const why = `the UID in the bound object reference (${uid}) does not match the UID in record. The object might have been deleted and then recreated`;
  if (uid && uid !== pod.metadata.uid) throw conflict(pods.resource, name, why);
  return pod as unknown as Pod;
}

function scaleOf({ metadata, ...object }: Obj): Obj {
  const selector = selectorText(at(object, 'spec.selector') as never);
  return {
    kind: 'Scale',
    apiVersion: 'autoscaling/v1',
    metadata,
    spec: { replicas: at(object, 'spec.replicas') ?? 0 },
    status: { replicas: at(object, 'status.replicas') ?? 0, selector },
  };
}

/** GET, PUT and PATCH of /scale: the replicas of a Deployment or ReplicaSet in a form of their own. */
export async function scale(deps: SubresourceDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const { registry, clock } = deps;
  const { kind, namespace, name = '' } = target;
  if (request.method === 'GET') return json(200, scaleOf(registry.read(kind, namespace, name)));
  const patch = await patchOf(request, clock.now());
  const next = registry.update(kind, namespace, name, writeOptionsOf(request), (current) => {
    const wanted = request.method === 'PATCH' ? patchObject(kind, scaleOf(current), patch) : (patch.body as Obj);
    const { resourceVersion = current.metadata.resourceVersion! } = wanted.metadata ?? {};
    const spec = { ...(current.spec as object), replicas: Number(at(wanted, 'spec.replicas') ?? 0) };
    return { ...current, metadata: { ...current.metadata, resourceVersion }, spec };
  });
  return json(200, scaleOf(next));
}
