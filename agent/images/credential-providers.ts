// Asks exec credential providers for registry credentials, as the kubelet does: a request on standard input, an answer on standard
// output, remembered for as long and as widely as the answer says.
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import * as v from 'valibot';
import type { ServiceAccount } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import type { exec, ExecResult } from '../../lib/exec.ts';
import { createExpiringCache } from '../../lib/expiring-cache.ts';
import { parseGoDuration } from '../../lib/go-duration.ts';
import type { Log } from '../../lib/log.ts';
import type { CredentialProvider } from './credential-provider-config.ts';
import {
  type Credential,
  credentialHash,
  type CredentialSource,
  imageMatches,
  type KeyringEntry,
  lookUpCredentials,
} from './keyring.ts';

export interface CredentialProvidersDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly exec: typeof exec;
  /** For providers with tokenAttributes: the pod's service account. */
  serviceAccount?(namespace: string, name: string, signal: AbortSignal): Promise<ServiceAccount | undefined>;
  /** A token of the service account for the audience, bound to the pod. */
  serviceAccountToken?(
    pod: Pod,
    serviceAccount: ServiceAccount,
    audience: string,
    signal: AbortSignal,
  ): Promise<string>;
}

export interface CredentialProviders {
  /** A provider that fails is logged and passed over. */
  lookUp(pod: Pod, repository: string, signal: AbortSignal): Promise<Credential[]>;
}

const programTimeoutMs = 60_000;
const maxCached = 1_000;

const answer = v.object({
  kind: v.literal('CredentialProviderResponse'),
  apiVersion: v.string(),
  cacheKeyType: v.picklist(['Image', 'Registry', 'Global']),
  cacheDuration: v.optional(v.nullable(v.string())),
  auth: v.optional(v.nullable(v.record(v.string(), v.object({ username: v.string(), password: v.string() }))), {}),
});
type Answer = v.InferOutput<typeof answer>;

interface Identity {
  readonly token: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly source: CredentialSource;
  readonly cacheKey: string;
}

export function createCredentialProviders(
  deps: CredentialProvidersDeps,
  options: { readonly providers: readonly CredentialProvider[]; readonly binDir: string },
): CredentialProviders {
  const cache = createExpiringCache<readonly KeyringEntry[]>(deps.clock, maxCached);
  const running = new Map<string, Promise<Answer>>();

  /** `skip`: this provider has nothing for such a pod. */
  async function identify(
    provider: CredentialProvider,
    pod: Pod,
    signal: AbortSignal,
  ): Promise<Identity | 'skip' | undefined> {
    const wanted = provider.tokenAttributes;
    if (!wanted) return undefined;
    const name = pod.spec?.serviceAccountName ?? '';
    if (name === '') return wanted.requireServiceAccount ? 'skip' : undefined;
    const namespace = pod.metadata.namespace ?? 'default';
    const account = await deps.serviceAccount?.(namespace, name, signal);
    if (!account || !deps.serviceAccountToken)
      throw new Error(`the service account ${namespace}/${name} cannot be read`);
    const has = account.metadata.annotations ?? {};
    if (wanted.requiredServiceAccountAnnotationKeys.some((key) => has[key] === undefined)) return 'skip';
    const keys = [...wanted.requiredServiceAccountAnnotationKeys, ...wanted.optionalServiceAccountAnnotationKeys];
    const annotations = Object.fromEntries(keys.flatMap((key) => (has[key] === undefined ? [] : [[key, has[key]]])));
    const token = await deps.serviceAccountToken(pod, account, wanted.serviceAccountTokenAudience, signal);
    const uid = account.metadata.uid ?? '';
    const tokenHash = wanted.cacheType === 'Token' ? createHash('sha256').update(token).digest('hex') : '';
    const sorted = Object.entries(annotations).toSorted(([a], [b]) => (a < b ? -1 : 1));
    return {
      token,
      annotations,
      source: { kind: 'serviceAccount', uid, namespace, name },
      cacheKey: JSON.stringify([namespace, name, uid, sorted, tokenHash]),
    };
  }

  async function ask(provider: CredentialProvider, image: string, identity: Identity | undefined): Promise<Answer> {
    const request = {
      kind: 'CredentialProviderRequest',
      apiVersion: provider.apiVersion,
      image,
      ...(identity ? { serviceAccountToken: identity.token, serviceAccountAnnotations: identity.annotations } : {}),
    };
    let result: ExecResult;
    try {
      result = await deps.exec(join(options.binDir, provider.name), provider.args, {
        input: JSON.stringify(request),
        env: Object.fromEntries(provider.env.map(({ name, value }) => [name, value])),
        timeoutMs: programTimeoutMs,
        maxOutputBytes: 1024 * 1024,
      });
    } catch (error) {
      throw new Error(`error execing credential provider plugin ${provider.name} for image ${image}`, { cause: error });
    }
    const parsed = v.safeParse(v.pipe(v.string(), v.parseJson(), answer), result.stdout);
    if (!parsed.success)
      throw new Error(
        `the answer of credential provider plugin ${provider.name} cannot be read: ${parsed.issues[0].message}`,
      );
    if (parsed.output.apiVersion !== provider.apiVersion)
      throw new Error(
        `apiVersion from credential plugin response did not match expected apiVersion:${provider.apiVersion}, actual apiVersion:${parsed.output.apiVersion}`,
      );
    return parsed.output;
  }

  function entriesOf(response: Answer, source: CredentialSource | undefined): KeyringEntry[] {
    return Object.entries(response.auth ?? {}).map(([key, { username, password }]) => ({
      key,
      credential: { auth: { username, password }, source, hash: credentialHash({ username, password }) },
    }));
  }

  async function entries(
    provider: CredentialProvider,
    pod: Pod,
    image: string,
    signal: AbortSignal,
  ): Promise<readonly KeyringEntry[]> {
    const identity = await identify(provider, pod, signal);
    if (identity === 'skip') return [];
    const keyOf = (base: string): string => JSON.stringify([provider.name, base, identity?.cacheKey ?? '']);
    const bases = { Image: image, Registry: image.split('/')[0] ?? '', Global: '<global>' } as const;
    for (const base of [bases.Image, bases.Registry, bases.Global]) {
      const cached = cache.get(keyOf(base));
      if (cached) return cached;
    }
    const flight = keyOf(`${image} ${identity?.token ?? ''}`);
    const shared = running.get(flight) ?? ask(provider, image, identity).finally(() => running.delete(flight));
    running.set(flight, shared);
    const response = await shared;
    const passwords = Object.values(response.auth ?? {}).map(({ password }) => password);
    if (identity && provider.tokenAttributes?.cacheType !== 'Token' && passwords.includes(identity.token))
      throw new Error(
        "credential provider plugin returned the service account token as the password which is not allowed when service account cache type is not set to 'Token'",
      );
    const found = entriesOf(response, identity?.source);
    const said = response.cacheDuration;
    const ttlMs = typeof said === 'string' ? (parseGoDuration(said) ?? 0) : provider.defaultCacheDuration;
    cache.set(keyOf(bases[response.cacheKeyType]), found, ttlMs);
    return found;
  }

  return {
    async lookUp(pod, repository, signal) {
      const fitting = options.providers.filter(({ matchImages }) =>
        matchImages.some((pattern) => imageMatches(pattern, repository)),
      );
      const found = await Promise.all(
        fitting.map(async (provider) => {
          try {
            return lookUpCredentials(await entries(provider, pod, repository, signal), repository);
          } catch (error) {
            signal.throwIfAborted();
            deps.log.error('a credential provider gave no credentials; the pull goes on without them', {
              provider: provider.name,
              image: repository,
              error,
            });
            return [];
          }
        }),
      );
      return found.flat();
    },
  };
}
