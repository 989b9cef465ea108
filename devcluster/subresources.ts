// What lies below an object and is not a plain part of it: binding, eviction, scale, token.
import type { Clock } from '../lib/clock.ts';
import type { TokenRequest } from '../kube/types/core.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import type { Pod } from '../kube/types/pod.ts';
import { badRequest, conflict, invalid } from './failure.ts';
import type { Handlers } from './handlers.ts';
import { type Answer, statusText } from './handlers.ts';
import { at, kindByName } from './kinds.ts';
import { timestamp } from './names.ts';
import { patchObject } from './patches.ts';
import type { Registry } from './registry.ts';
import { type ApiRequest, isTrue, readBody, readObject, type Target } from './request.ts';
import { requirementText } from './selector-text.ts';
import type { Obj } from './store.ts';
import { issuer, type Tokens } from './tokens.ts';

export interface SubresourceDeps {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly tokens: Tokens;
  readonly handlers: Handlers;
}

const created = (body: unknown): Answer => ({ status: 201, body: JSON.stringify(body) });

/** POST pods/NAME/binding, and POST bindings: the scheduler's word. */
export async function bind(deps: SubresourceDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const body = await readObject(request);
  const node = at(body, 'target.name') as string | undefined;
  if (!node) throw badRequest('target.name is required');
  const annotations = at(body, 'metadata.annotations') as Record<string, string> | undefined;
  const name = target.name ?? (at(body, 'metadata.name') as string);
  const kind = kindByName('pods');
  const current = deps.registry.read(kind, target.namespace, name) as unknown as Pod;
  if (current.metadata.deletionTimestamp)
    throw conflict(kind.resource, name, `pod ${name} is being deleted, cannot be assigned to a host`);
  if (current.spec.nodeName)
    throw conflict(kind.resource, name, `pod ${name} is already assigned to node "${current.spec.nodeName}"`);
  const collection = deps.registry.collectionOf(kind);
  const conditions = (current.status?.conditions ?? []).filter(({ type }) => type !== 'PodScheduled');
  const next = {
    ...current,
    metadata: {
      ...current.metadata,
      ...(annotations ? { annotations: { ...current.metadata.annotations, ...annotations } } : {}),
    },
    spec: { ...current.spec, nodeName: node },
    status: {
      ...current.status,
      conditions: [
        ...conditions,
        { type: 'PodScheduled', status: 'True', lastProbeTime: null, lastTransitionTime: timestamp(deps.clock.now()) },
      ],
    },
  };
  if (!deps.handlers.contextOf(request).dryRun) collection.put(next as unknown as Obj);
  return { status: 201, body: statusText({ status: 'Success', code: 201 }) };
}

/** There are no disruption budgets here, so an eviction is a deletion. */
export async function evict(deps: SubresourceDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const body = await readObject(request);
  const options = (body.deleteOptions ?? {}) as Record<string, unknown>;
  deps.registry.remove(kindByName('pods'), target.namespace, target.name!, options, deps.handlers.contextOf(request));
  return { status: 201, body: statusText({ status: 'Success', code: 201 }) };
}

export async function issueToken(deps: SubresourceDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const body = (await readObject(request)) as unknown as TokenRequest;
  const { registry } = deps;
  const account = registry.read(target.kind, target.namespace, target.name!);
  const seconds = body.spec?.expirationSeconds ?? 3600;
  if (seconds < 600)
    throw invalid({ ...target.kind.resource, kind: 'TokenRequest', group: 'authentication.k8s.io' }, '', [
      {
        reason: 'FieldValueInvalid',
        field: 'spec.expirationSeconds',
        message: `Invalid value: ${seconds}: may not specify a duration less than 10 minutes`,
      },
    ]);
  const audiences = body.spec?.audiences?.length ? body.spec.audiences : [issuer];
  const ref = body.spec?.boundObjectRef;
  const bound = ref ? readBound(registry, target, ref) : undefined;
  const nodeName = bound && (bound.object as unknown as Pod).spec?.nodeName;
  const node = nodeName ? registry.collectionOf(kindByName('nodes')).get(undefined, nodeName) : undefined;
  // As the API server does: pods' tokens live a year, so that clients which do not read them again go on; nodes still rotate them hourly.
  const token = deps.tokens.issue(
    {
      namespace: target.namespace!,
      serviceAccount: { name: account.metadata.name, uid: account.metadata.uid! },
      ...(bound
        ? { boundTo: { kind: bound.kind, name: bound.object.metadata.name, uid: bound.object.metadata.uid! } }
        : {}),
      ...(node ? { node: { name: node.metadata.name, uid: node.metadata.uid! } } : {}),
    },
    audiences,
    seconds,
  );
  return created({
    kind: 'TokenRequest',
    apiVersion: 'authentication.k8s.io/v1',
    metadata: {
      name: account.metadata.name,
      namespace: target.namespace,
      creationTimestamp: timestamp(deps.clock.now()),
    },
    spec: { ...body.spec, audiences, expirationSeconds: seconds },
    status: { token, expirationTimestamp: timestamp(deps.clock.now() + seconds * 1000) },
  });
}

function readBound(
  registry: Registry,
  target: Target,
  ref: { kind?: string; name?: string; uid?: string },
): { kind: 'Pod' | 'Secret' | 'Node'; object: KubeObject } {
  const plurals = { Pod: 'pods', Secret: 'secrets', Node: 'nodes' } as const;
  const kind = ref.kind as keyof typeof plurals;
  if (!plurals[kind]) throw badRequest(`cannot bind token to object of type ${ref.kind}`);
  const described = kindByName(plurals[kind]);
  const object = registry.read(described, described.resource.namespaced ? target.namespace : undefined, ref.name ?? '');
  if (ref.uid && ref.uid !== object.metadata.uid)
    throw conflict(
      described.resource,
      ref.name ?? '',
      `the UID in the bound object reference (${ref.uid}) does not match the UID in record. The object might have been deleted and then recreated`,
    );
  return { kind, object };
}

const scaleOf = (object: Obj): Obj => ({
  kind: 'Scale',
  apiVersion: 'autoscaling/v1',
  metadata: {
    name: object.metadata.name,
    namespace: object.metadata.namespace!,
    uid: object.metadata.uid!,
    resourceVersion: object.metadata.resourceVersion!,
    creationTimestamp: object.metadata.creationTimestamp!,
  },
  spec: { replicas: at(object, 'spec.replicas') ?? 0 },
  status: {
    replicas: at(object, 'status.replicas') ?? 0,
    selector: requirementText(at(object, 'spec.selector') as never),
  },
});

/** GET, PUT and PATCH of /scale: the replicas of a Deployment or ReplicaSet in a form of their own. */
export async function scale(deps: SubresourceDeps, request: ApiRequest, target: Target): Promise<Answer> {
  const { registry, handlers } = deps;
  const { kind, namespace, name } = target;
  if (request.method === 'GET')
    return { status: 200, body: JSON.stringify(scaleOf(registry.read(kind, namespace, name!))) };
  const body = await readBody(request);
  const patch = {
    contentType: request.header('content-type') ?? '',
    body,
    fieldManager: request.query.get('fieldManager') ?? '',
    force: isTrue(request.query.get('force')),
    now: deps.clock.now(),
  };
  const next = registry.update(kind, namespace, name!, handlers.contextOf(request), (current) => {
    const wanted = request.method === 'PATCH' ? patchObject(kind, scaleOf(current), patch) : (body as Obj);
    const asked = wanted.metadata?.resourceVersion;
    const replicas = Number(at(wanted, 'spec.replicas') ?? 0);
    return {
      ...current,
      metadata: { ...current.metadata, ...(asked && request.method === 'PUT' ? { resourceVersion: asked } : {}) },
      spec: { ...(current.spec as object), replicas },
    };
  });
  return { status: 200, body: JSON.stringify(scaleOf(next)) };
}
