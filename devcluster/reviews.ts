// The kinds that are questions: TokenReview, SubjectAccessReview and their kin. Nothing is kept.
import type { SubjectAccessReview, TokenReview } from '../kube/types/core.ts';
import type { Authorize, User } from './authorize.ts';
import { issuer, type Tokens } from './tokens.ts';

export interface ReviewDeps {
  readonly authorize: Authorize;
  readonly tokens: Tokens;
}

const infoOf = ({ name, uid, groups, extra }: User) => ({ username: name, uid, groups, extra });

/** Answers a review with itself, its status filled in. */
export function review(deps: ReviewDeps, kind: string, asked: Record<string, unknown>, asking: User): object {
  const access = asked as unknown as SubjectAccessReview;
  switch (kind) {
    case 'TokenReview':
      return { ...asked, status: reviewToken(deps, asked as unknown as TokenReview) };
    case 'SelfSubjectReview':
      return { ...asked, status: { userInfo: infoOf(asking) } };
    case 'SelfSubjectAccessReview':
      return { ...asked, status: reviewAccess(deps, access, asking) };
    default: {
      const { user: name = '', groups = [] } = access.spec;
      return { ...asked, status: reviewAccess(deps, access, { name, groups }) };
    }
  }
}

function reviewToken({ tokens }: ReviewDeps, { spec }: TokenReview): object {
  const found = tokens.authenticate(spec.token, spec.audiences?.length ? spec.audiences : [issuer]);
  if (!found) return { authenticated: false, user: {}, error: 'invalid bearer token' };
  return { authenticated: true, user: infoOf(found.user), audiences: found.audiences };
}

function reviewAccess({ authorize }: ReviewDeps, { spec }: SubjectAccessReview, user: User): object {
  const { resourceAttributes, nonResourceAttributes } = spec;
  const { verb = '', ...rest } = resourceAttributes ?? { path: '', ...nonResourceAttributes };
  const allowed = authorize(user, { verb, ...rest });
  return allowed ? { allowed } : { allowed, reason: 'no rule allows it' };
}
