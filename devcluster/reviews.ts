// The kinds that are questions: TokenReview, SubjectAccessReview and their kin. Nothing is kept.
import type { SubjectAccessReview, TokenReview } from '../kube/types/core.ts';
import type { Attributes, Authorize } from './authorize.ts';
import { noSuchPath } from './failure.ts';
import type { User } from './registry.ts';
import { issuer, type Tokens } from './tokens.ts';

export interface ReviewDeps {
  readonly authorize: Authorize;
  readonly tokens: Tokens;
  authenticateToken(token: string): User | undefined;
}

const asUserInfo = (user: User) => ({
  username: user.name,
  ...(user.uid ? { uid: user.uid } : {}),
  groups: [...user.groups],
  ...(user.extra ? { extra: user.extra } : {}),
});

/** Answers a review with itself, its status filled in. */
export function review(
  deps: ReviewDeps,
  kind: string,
  object: Record<string, unknown>,
  asking: User,
): Record<string, unknown> {
  switch (kind) {
    case 'TokenReview':
      return { ...object, status: reviewToken(deps, object as unknown as TokenReview) };
    case 'SelfSubjectReview':
      return { ...object, status: { userInfo: asUserInfo(asking) } };
    case 'SelfSubjectAccessReview':
      return { ...object, status: reviewAccess(deps, object as unknown as SubjectAccessReview, asking) };
    case 'SubjectAccessReview':
    case 'LocalSubjectAccessReview': {
      const { user = '', groups = [] } = (object as unknown as SubjectAccessReview).spec;
      return {
        ...object,
        status: reviewAccess(deps, object as unknown as SubjectAccessReview, { name: user, groups }),
      };
    }
    case 'SelfSubjectRulesReview': {
      const everything = asking.groups.includes('system:masters');
      return {
        ...object,
        status: {
          incomplete: !everything,
          resourceRules: everything ? [{ verbs: ['*'], apiGroups: ['*'], resources: ['*'] }] : [],
          nonResourceRules: everything ? [{ verbs: ['*'], nonResourceURLs: ['*'] }] : [],
        },
      };
    }
    default:
      throw noSuchPath();
  }
}

function reviewToken(deps: ReviewDeps, { spec }: TokenReview): TokenReview['status'] {
  const audiences = spec.audiences?.length ? spec.audiences : [issuer];
  const found = deps.tokens.authenticate(spec.token, audiences);
  if (found) return { authenticated: true, user: asUserInfo(found.user) as never, audiences: found.audiences };
  const other = audiences.includes(issuer) ? deps.authenticateToken(spec.token) : undefined;
  return other
    ? { authenticated: true, user: asUserInfo(other) as never }
    : { authenticated: false, user: {}, error: 'invalid bearer token' };
}

function reviewAccess(deps: ReviewDeps, { spec }: SubjectAccessReview, user: User): SubjectAccessReview['status'] {
  const { resourceAttributes: resource, nonResourceAttributes: other } = spec;
  const attributes: Attributes = resource
    ? {
        verb: resource.verb ?? '',
        group: resource.group ?? '',
        resource: resource.resource ?? '',
        ...(resource.subresource ? { subresource: resource.subresource } : {}),
        ...(resource.namespace ? { namespace: resource.namespace } : {}),
        ...(resource.name ? { name: resource.name } : {}),
      }
    : { verb: other?.verb ?? '', path: other?.path ?? '' };
  const allowed = deps.authorize(user, attributes);
  return allowed ? { allowed } : { allowed, reason: 'no rule allows it' };
}
