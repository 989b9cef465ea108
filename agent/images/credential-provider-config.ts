// The kubelet's CredentialProviderConfig: which programs are asked for registry credentials, for which images.
import { readFile } from 'node:fs/promises';
import * as v from 'valibot';
import { parse } from 'yaml';
import { parseGoDuration } from '../../lib/go-duration.ts';

const duration = v.pipe(
  v.string(),
  v.check((text) => (parseGoDuration(text) ?? -1) >= 0, 'must be a duration such as 10m'),
  v.transform((text) => parseGoDuration(text) ?? 0),
);
const apiVersions = ['v1', 'v1beta1', 'v1alpha1'].map((version) => `credentialprovider.kubelet.k8s.io/${version}`);

const tokenAttributes = v.strictObject({
  serviceAccountTokenAudience: v.pipe(v.string(), v.minLength(1, 'must not be empty')),
  cacheType: v.picklist(['Token', 'ServiceAccount']),
  requireServiceAccount: v.boolean(),
  requiredServiceAccountAnnotationKeys: v.optional(v.array(v.string()), []),
  optionalServiceAccountAnnotationKeys: v.optional(v.array(v.string()), []),
});

const provider = v.strictObject({
  name: v.pipe(
    v.string(),
    v.regex(/^[^/\s]+$/, 'must be a file name without folders or spaces'),
    v.check((name) => name !== '.' && name !== '..', 'must be a file name'),
  ),
  matchImages: v.pipe(v.array(v.string()), v.minLength(1, 'must name at least one image pattern')),
  defaultCacheDuration: duration,
  apiVersion: v.picklist(apiVersions),
  args: v.optional(v.array(v.string()), []),
  env: v.optional(v.array(v.strictObject({ name: v.string(), value: v.string() })), []),
  tokenAttributes: v.optional(tokenAttributes),
});

const schema = v.strictObject({
  kind: v.literal('CredentialProviderConfig'),
  apiVersion: v.picklist(['v1', 'v1beta1', 'v1alpha1'].map((version) => `kubelet.config.k8s.io/${version}`)),
  providers: v.pipe(
    v.array(provider),
    v.minLength(1, 'at least 1 item in plugins is required'),
    v.check((all) => new Set(all.map(({ name }) => name)).size === all.length, 'names must be unique'),
  ),
});

export type CredentialProvider = v.InferOutput<typeof provider>;

/** Throws an Error that names the file and the field. */
export function parseCredentialProviderConfig(path: string, text: string): readonly CredentialProvider[] {
  let document: unknown;
  try {
    document = parse(text);
  } catch (error) {
    throw new Error(`${path} is no YAML: ${(error as Error).message}`, { cause: error });
  }
  const result = v.safeParse(schema, document);
  if (result.success) return result.output.providers;
  const problems = result.issues.map((issue) => `${v.getDotPath(issue) ?? 'the document'}: ${issue.message}`);
  throw new Error(`${path} is no valid CredentialProviderConfig: ${problems.join('; ')}`);
}

export const readCredentialProviderConfig = async (path: string): Promise<readonly CredentialProvider[]> =>
  parseCredentialProviderConfig(path, await readFile(path, 'utf8'));
