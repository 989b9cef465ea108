// From a request that may be made to the handler that answers it.
import { discover } from './discovery.ts';
import { badRequest, noSuchPath } from './failure.ts';
import { type Answer, handlers } from './handlers.ts';
import { apiVersionOf } from './kinds.ts';
import { type NodeLinkDeps, streamLog } from './node-link.ts';
import { openApi } from './openapi.ts';
import { type ApiRequest, readObject, type Target, verbOf } from './request.ts';
import { review, type ReviewDeps } from './reviews.ts';
import { bind, evict, issueToken, scale, type SubresourceDeps } from './subresources.ts';
import { type OpenStream, watch } from './watch.ts';

export interface DispatchDeps extends SubresourceDeps, ReviewDeps {
  readonly nodeLink: NodeLinkDeps;
}

/** Answers, or streams and returns nothing. */
export async function dispatch(
  deps: DispatchDeps,
  request: ApiRequest,
  target: Target | undefined,
  open: OpenStream,
): Promise<Answer | undefined> {
  if (!target) return elsewhere(request);
  const verb = verbOf(request, target);
  const { kind, subresource } = target;
  if (kind.virtual) {
    const { kind: name } = kind.resource;
    const asked = { kind: name, apiVersion: apiVersionOf(kind.resource), ...(await readObject(request)) };
    return { status: 201, body: JSON.stringify(review(deps, name, asked, request.user)) };
  }
  if (subresource !== undefined && !kind.subresources[subresource]) throw noSuchPath();
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
      return streamLog(deps.nodeLink, request, target, open);
    case 'exec':
    case 'attach':
    case 'portforward':
      throw badRequest('Upgrade request required');
    default:
  }
  if (verb !== 'watch') return handlers[verb](deps, request, target);
  watch(deps, request, target, open);
  return undefined;
}

const version = { major: '1', minor: '36', gitVersion: 'v1.36.2+stevedore.devcluster', platform: 'linux/amd64' };

function elsewhere({ path }: ApiRequest): Answer {
  const discovered = discover(path);
  if (discovered) return { status: 200, ...discovered };
  if (['/healthz', '/livez', '/readyz'].includes(path)) return { status: 200, body: 'ok', contentType: 'text/plain' };
  const body = path === '/version' ? JSON.stringify(version) : openApi(path);
  if (body === undefined) throw noSuchPath();
  return { status: 200, body };
}
