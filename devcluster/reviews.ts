// The kinds that are questions: TokenReview and SubjectAccessReview. Nothing is kept.
import type { SubjectAccessReview, TokenReview } from '../kube/types/core.ts';
import { authorize, type User } from './authorize.ts';
import { issuer, type Tokens } from './tokens.ts';

const infoOf = ({ name, uid, groups, extra }: User) => ({ username: name, uid, groups, extra });

/** The status of a review. */
export function review(tokens: Tokens, kind: string, asked: object): object {
  if (kind === 'TokenReview') return reviewToken(tokens, asked as TokenReview);
  const { user: name = '', groups = [], ...spec } = (asked as SubjectAccessReview).spec;
  const { verb = '', ...rest } = spec.resourceAttributes ?? { path: '', ...spec.nonResourceAttributes };
  const allowed = authorize({ name, groups }, { verb, ...rest });
  return allowed ? { allowed } : { allowed, reason: 'no rule allows it' };
}

function reviewToken(tokens: Tokens, { spec }: TokenReview): object {
  const found = tokens.authenticate(spec.token, spec.audiences?.length ? spec.audiences : [issuer]);
  if (!found) return { authenticated: false, user: {}, error: 'invalid bearer token' };
  return { authenticated: true, user: infoOf(found.user), audiences: found.audiences };
}
