// From a request that may be made to the handler that answers it.
import { apiVersionOf } from '../kube/api-path.ts';
import { discover } from './discovery.ts';
import { badRequest, noSuchPath } from './failure.ts';
import { type Answer, handlers } from './handlers.ts';
import { type NodeLinkDeps, streamLog } from './node-link.ts';
import { openApi } from './openapi.ts';
import { type ApiRequest, readObject, type Target, verbOf } from './request.ts';
import { review } from './reviews.ts';
import { bind, issueToken, scale, type SubresourceDeps } from './subresources.ts';
import { type OpenStream, watch } from './watch.ts';

export type DispatchDeps = SubresourceDeps & NodeLinkDeps;

const special = {
  binding: bind,
  token: issueToken,
  scale,
  log: streamLog,
  exec: bare,
  attach: bare,
  portforward: bare,
};

/** Answers, or streams and returns nothing. */
export async function dispatch(
  deps: DispatchDeps,
  request: ApiRequest,
  target: Target | undefined,
  open: OpenStream,
): Promise<Answer | undefined> {
  if (!target) return elsewhere(request);
  const { kind, subresource = '' } = target;
  const verb = verbOf(request, target);
  if (kind.virtual) {
    const own = { kind: kind.resource.kind, apiVersion: apiVersionOf(kind.resource) };
    const asked = { ...own, ...(await readObject(request)) };
    const status = review(deps.tokens, own.kind, asked);
    return { status: 201, body: JSON.stringify({ ...asked, status }) };
  }
  if (subresource in special) return special[subresource as keyof typeof special](deps, request, target, open);
  return verb === 'watch' ? watch(deps, request, target, open) : handlers[verb](deps, request, target);
}

function bare(): never {
  throw badRequest('Upgrade request required');
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
