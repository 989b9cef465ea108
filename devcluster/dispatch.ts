// From a request that may be made to the handler that answers it.
import { Failure, noSuchPath, notAllowed } from './failure.ts';
import { discover } from './discovery.ts';
import { type Answer, checkVerb, type Handlers } from './handlers.ts';
import { apiVersionOf } from './kinds.ts';
import { type NodeLinkDeps, streamLog } from './node-link.ts';
import { openApi } from './openapi.ts';
import type { Registry } from './registry.ts';
import { type ApiRequest, readObject, type Target, verbOf } from './request.ts';
import { review, type ReviewDeps } from './reviews.ts';
import type { OpenStream } from './server.ts';
import { bind, evict, issueToken, scale, type SubresourceDeps } from './subresources.ts';
import { issuer } from './tokens.ts';
import { serveWatch, type WatchDeps } from './watch.ts';

export interface DispatchDeps extends SubresourceDeps, ReviewDeps, Omit<WatchDeps, 'collection'> {
  readonly registry: Registry;
  readonly handlers: Handlers;
  readonly nodeLink: NodeLinkDeps;
  readonly version: { readonly gitVersion: string };
  serverAddress(): string;
  /** Called after a write of a certificate request. */
  onCertificateRequest(): void;
}

export type Dispatch = (
  request: ApiRequest,
  target: Target | undefined,
  open: OpenStream,
) => Promise<Answer | undefined>;

export function createDispatch(deps: DispatchDeps): Dispatch {
  return async (request, target, open) => {
    if (!target) return elsewhere(deps, request);
    const verb = verbOf(request.method, target, request.query);
    checkVerb(target, verb);
    if (target.kind.virtual) {
      const { kind, apiVersion = apiVersionOf(target.kind.resource), ...rest } = await readObject(request);
      const answer = review(
        deps,
        target.kind.resource.kind,
        { kind: kind ?? target.kind.resource.kind, apiVersion, ...rest },
        request.user,
      );
      return { status: 201, body: JSON.stringify(answer) };
    }
    if (target.subresource) return below(deps, request, target, verb, open);
    return plain(deps, request, target, verb, open);
  };
}

async function plain(
  deps: DispatchDeps,
  request: ApiRequest,
  target: Target,
  verb: string,
  open: OpenStream,
): Promise<Answer | undefined> {
  const { handlers } = deps;
  switch (verb) {
    case 'get':
      return handlers.get(request, target);
    case 'list':
      return handlers.list(request, target);
    case 'watch': {
      const table = (request.header('accept') ?? '').includes('as=Table');
      const sink = open(
        table ? 'application/json;as=Table;v=v1;g=meta.k8s.io;stream=watch' : 'application/json;stream=watch',
      );
      serveWatch({ ...deps, collection: deps.registry.collectionOf(target.kind) }, request, target, sink);
      return undefined;
    }
    case 'create': {
      const made = await handlers.create(request, target);
      if (target.kind.resource.kind === 'CertificateSigningRequest') deps.onCertificateRequest();
      return made;
    }
    case 'update':
      return handlers.update(request, target);
    case 'patch':
      return handlers.patch(request, target);
    case 'delete':
      return handlers.remove(request, target);
    case 'deletecollection':
      return handlers.removeAll(request, target);
    default:
      throw notAllowed('the server does not allow this method on the requested resource');
  }
}

const writable = ['status', 'approval', 'finalize', 'ephemeralcontainers', 'resize'];

async function below(
  deps: DispatchDeps,
  request: ApiRequest,
  target: Target,
  verb: string,
  open: OpenStream,
): Promise<Answer | undefined> {
  const { handlers } = deps;
  const { kind, subresource } = target;
  const known =
    subresource === 'status'
      ? kind.hasStatus
      : subresource === 'finalize'
        ? kind.resource.kind === 'Namespace'
        : subresource! in kind.subresources;
  if (!known) throw noSuchPath();
  if (writable.includes(subresource!)) {
    if (verb === 'get') return handlers.get(request, target);
    const done = verb === 'patch' ? await handlers.patch(request, target) : await handlers.update(request, target);
    if (subresource === 'approval') deps.onCertificateRequest();
    return done;
  }
  switch (subresource) {
    case 'binding':
      return bind(deps, request, target);
    case 'eviction':
      return evict(deps, request, target);
    case 'scale':
      return scale(deps, request, target);
    case 'token':
      return issueToken(deps, request, target);
    case 'log':
      await streamLog(deps.nodeLink, request, target, open);
      return undefined;
    default:
      // exec, attach and port-forward come as upgrades only.
      throw new Failure(400, 'BadRequest', 'Upgrade request required');
  }
}

function elsewhere(deps: DispatchDeps, request: ApiRequest): Answer {
  const { path } = request;
  const found = discover(path, request.header('accept'), deps.serverAddress()) ?? openApi(path);
  if (found) return { status: 200, ...found };
  const json = (value: unknown): Answer => ({ status: 200, body: JSON.stringify(value) });
  switch (path) {
    case '/healthz':
    case '/livez':
    case '/readyz':
      return { status: 200, body: 'ok', contentType: 'text/plain' };
    case '/version':
      return json(deps.version);
    case '/.well-known/openid-configuration':
      return json({
        issuer,
        jwks_uri: `https://${deps.serverAddress()}/openid/v1/jwks`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['ES256'],
      });
    case '/openid/v1/jwks':
      return { ...json(deps.tokens.jwks()), contentType: 'application/jwk-set+json' };
    case '/':
      return json({ paths: ['/api', '/apis', '/healthz', '/livez', '/openapi/v3', '/readyz', '/version'] });
    default:
      throw new Failure(404, 'NotFound', 'the server could not find the requested resource');
  }
}
