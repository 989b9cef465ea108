// Who may do what: a request of the node's server becomes a verb on nodes/SUBRESOURCE, and the API server is asked by
// SubjectAccessReview. The fine-grained subresource is tried before nodes/proxy, as the kubelet does.
import type { Clock } from '../../lib/clock.ts';
import { createExpiringCache } from '../../lib/expiring-cache.ts';
import type { KubeClient } from '../../kube/client.ts';
import { resources } from '../../kube/resources.ts';
import type { User } from './identity.ts';

const verbs: Readonly<Record<string, string>> = {
  POST: 'create',
  GET: 'get',
  PUT: 'update',
  PATCH: 'patch',
  DELETE: 'delete',
};

/** The API's verb for an HTTP method; empty for others, which no rule allows but `*`. */
export const verbOf = (method: string): string => verbs[method] ?? '';

const under = (folder: string, path: string): boolean => path === folder || path.startsWith(`${folder}/`);

/** The subresources of the node any one of which allows the path, in the order they are asked. */
export function subresourcesOf(path: string): readonly string[] {
  const fine = under('/pods', path)
    ? ['pods']
    : under('/healthz', path)
      ? ['healthz']
      : under('/configz', path)
        ? ['configz']
        : under('/runningpods', path)
          ? ['pods']
          : [];
  const coarse = under('/stats', path)
    ? 'stats'
    : under('/metrics', path)
      ? 'metrics'
      : under('/logs', path)
        ? 'log'
        : under('/checkpoint', path)
          ? 'checkpoint'
          : under('/statusz', path)
            ? 'statusz'
            : under('/flagz', path)
              ? 'configz'
              : 'proxy';
  return [...fine, coarse];
}

export type Decision =
  | { readonly kind: 'allowed' }
  /** Answer 403 with the message. */
  | { readonly kind: 'forbidden'; readonly message: string }
  /** The API server could not be asked: answer 500 with the message. */
  | { readonly kind: 'failed'; readonly message: string; readonly error: unknown };

export interface AuthorizationDeps {
  readonly clock: Clock;
  readonly client?: KubeClient | undefined;
}

export interface AuthorizationOptions {
  readonly mode: 'AlwaysAllow' | 'Webhook';
  readonly nodeName: string;
  /** Defaults 5 minutes and 30 seconds. */
  readonly allowedTtlMs?: number;
  readonly deniedTtlMs?: number;
}

export interface Authorization {
  decide(user: User, method: string, path: string): Promise<Decision>;
}

export function createAuthorization(deps: AuthorizationDeps, options: AuthorizationOptions): Authorization {
  const { clock, client } = deps;
  const { nodeName, allowedTtlMs = 300_000, deniedTtlMs = 30_000 } = options;
  const answers = createExpiringCache<boolean>(clock, 8192);
  const asking = new Map<string, Promise<boolean>>();

  const ask = async (user: User, verb: string, subresource: string): Promise<boolean> => {
    if (!client) throw new Error('there is no API server to ask');
    const review = await client.create(
      resources.subjectAccessReviews,
      {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        metadata: { name: '' },
        spec: {
          user: user.name,
          groups: [...user.groups],
          ...(user.uid === '' ? {} : { uid: user.uid }),
          extra: Object.fromEntries(Object.entries(user.extra).map(([key, values]) => [key, [...values]])),
          resourceAttributes: { verb, version: 'v1', resource: 'nodes', subresource, name: nodeName },
        },
      },
      { timeoutMs: 10_000 },
    );
    return review.status?.allowed === true && review.status.denied !== true;
  };

  const allowed = async (user: User, verb: string, subresource: string): Promise<boolean> => {
    const key = JSON.stringify([user.name, user.uid, user.groups, user.extra, verb, subresource]);
    const known = answers.get(key);
    if (known !== undefined) return known;
    let asked = asking.get(key);
    if (!asked) {
      asked = ask(user, verb, subresource)
        .then((answer) => {
          answers.set(key, answer, answer ? allowedTtlMs : deniedTtlMs);
          return answer;
        })
        .finally(() => asking.delete(key));
      asking.set(key, asked);
    }
    return await asked;
  };

  return {
    async decide(user, method, path) {
      if (options.mode === 'AlwaysAllow') return { kind: 'allowed' };
      const verb = verbOf(method);
      const subresources = subresourcesOf(path);
      for (const subresource of subresources) {
        try {
          if (await allowed(user, verb, subresource)) return { kind: 'allowed' };
        } catch (error) {
          const message = `Authorization error (user=${user.name}, verb=${verb}, resource=nodes, subresource=${subresource})`;
          return { kind: 'failed', message, error };
        }
      }
      const list = subresources.join(' ');
      const message = `Forbidden (user=${user.name}, verb=${verb}, resource=nodes, subresource(s)=[${list}])\n`;
      return { kind: 'forbidden', message };
    },
  };
}
