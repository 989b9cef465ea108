// What lies below an object and is not a plain part of it: binding, scale, token.
import type { TokenRequest } from '../kube/types/core.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import type { Pod } from '../kube/types/pod.ts';
import { badRequest, conflict, invalid, wrong } from './failure.ts';
import { type Answer, type HandlerDeps, statusText, writeOptionsOf } from './handlers.ts';
import { at, kindByName } from './kinds.ts';
import { selectorText, timestamp } from './names.ts';
import { patchObject, patchOf } from './patches.ts';
import { type ApiRequest, readObject, type Target } from './request.ts';
import type { Obj } from './store.ts';
import { issuer, type Tokens } from './tokens.ts';

export interface SubresourceDeps extends HandlerDeps {
  readonly tokens: Tokens;
}

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
  const seconds = spec?.expirationSeconds ?? 3600;
  if (seconds < 600) {
    const resource = { ...kind.resource, kind: 'TokenRequest', group: 'authentication.k8s.io' };
    const why = 'may not specify a duration less than 10 minutes';
    throw invalid(resource, '', [wrong('spec.expirationSeconds', seconds, why)]);
  }
  const audiences = spec?.audiences?.length ? spec.audiences : [issuer];
  const idOf = ({ metadata }: KubeObject) => ({ name: metadata.name, uid: metadata.uid! });
  const bound = spec?.boundObjectRef && readBound(deps, namespace, spec.boundObjectRef);
  const nodeName = (bound?.object as Pod | undefined)?.spec?.nodeName ?? '';
  const node = registry.find<KubeObject>('nodes', undefined, nodeName);
  const subject = {
    namespace,
    serviceaccount: idOf(account),
    ...(node ? { node: idOf(node) } : {}),
    ...(bound ? { [bound.kind.toLowerCase()]: idOf(bound.object) } : {}),
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

const bindable: Readonly<Record<string, string>> = { Pod: 'pods', Secret: 'secrets', Node: 'nodes' };

function readBound(
  { registry }: SubresourceDeps,
  namespace: string,
  { kind = '', name = '', uid }: { kind?: string; name?: string; uid?: string },
): { kind: string; object: KubeObject } {
  const plural = bindable[kind];
  if (!plural) throw badRequest(`cannot bind token to object of type ${kind}`);
  const described = kindByName(plural);
  const object = registry.read(described, described.resource.namespaced ? namespace : undefined, name);
  const why = `the UID in the bound object reference (${uid}) does not match the UID in record. The object might have been deleted and then recreated`;
  if (uid && uid !== object.metadata.uid) throw conflict(described.resource, name, why);
  return { kind, object };
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
