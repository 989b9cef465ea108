// Registry credentials and which of them fit an image: docker's configuration formats, matched by registry, path prefix and wildcard as
// the kubelet does. Pure.
import { createHash } from 'node:crypto';
import type { RegistryAuth } from '../../cri/types.ts';

/** Where a credential comes from; undefined: the node's own, which every pod may use. */
export type CredentialSource =
  | { readonly kind: 'secret'; readonly uid: string; readonly namespace: string; readonly name: string }
  | { readonly kind: 'serviceAccount'; readonly uid: string; readonly namespace: string; readonly name: string };

export interface Credential {
  readonly auth: RegistryAuth;
  readonly source: CredentialSource | undefined;
  /** Of the credential's content, to tell equal ones. */
  readonly hash: string;
}

/** One entry: a registry, or a registry and a path, with its credentials. */
export interface KeyringEntry {
  /** `host[:port][/path]`, host parts may be globs. */
  readonly key: string;
  readonly credential: Credential;
}

const record = (value: unknown): Record<string, unknown> | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : undefined;
const text = (value: unknown): string => (typeof value === 'string' ? value : '');

export function credentialHash(auth: {
  readonly username: string;
  readonly password: string;
  readonly email?: string;
}): string {
  // The bytes that the kubelet hashes, so that its records stay good: Go leaves out what is empty.
  const fields = Object.entries({ username: auth.username, password: auth.password, email: auth.email ?? '' });
  const json = JSON.stringify(Object.fromEntries(fields.filter(([, value]) => value !== '')))
    .replaceAll('<', '\\u003c')
    .replaceAll('>', '\\u003e')
    .replaceAll('&', '\\u0026');
  return createHash('sha256').update(json).digest('hex');
}

/** `auth` is base64 of `username:password`. Throws where it is not. */
function decodeAuth(auth: string): { username: string; password: string } {
  const decoded = Buffer.from(auth, 'base64').toString('utf8');
  const colon = decoded.indexOf(':');
  if (colon < 0) throw new Error('unable to parse auth field, must be formatted as base64(username:password)');
  return { username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}

/** `https://registry/v1/` and `registry` are one key; undefined where it is no address. */
function keyOf(location: string): string | undefined {
  const schemeless = location.replace(/^https?:\/\//, '');
  const slash = schemeless.indexOf('/');
  const host = slash < 0 ? schemeless : schemeless.slice(0, slash);
  if (host === '' || /\s/.test(host)) return undefined;
  let path = slash < 0 ? '' : schemeless.slice(slash);
  if (path.startsWith('/v2/') || path.startsWith('/v1/')) path = path.slice(3);
  return path === '' || path === '/' ? host : host + path;
}

/** Entries of an `auths` object (what a dockercfg is as a whole). Throws where the JSON has another shape. */
function entriesOf(auths: unknown, source: CredentialSource | undefined): KeyringEntry[] {
  const locations = record(auths);
  if (!locations) throw new Error('the credentials are no JSON object');
  const entries: KeyringEntry[] = [];
  for (const [location, value] of Object.entries(locations)) {
    const fields = record(value);
    if (!fields) throw new Error(`the entry for ${location} is no JSON object`);
    const encoded = text(fields.auth);
    const { username, password } =
      encoded === '' ? { username: text(fields.username), password: text(fields.password) } : decodeAuth(encoded);
    const key = keyOf(location);
    if (key === undefined) continue;
    const hash = credentialHash({ username, password, email: text(fields.email) });
    entries.push({ key, credential: { auth: { username, password }, source, hash } });
  }
  return entries;
}

/** `.docker/config.json`, `kubernetes.io/dockerconfigjson`. Throws where it cannot be read. */
export function parseDockerConfigJson(json: string, source?: CredentialSource): KeyringEntry[] {
  return entriesOf(record(JSON.parse(json))?.auths ?? {}, source);
}

/** `.dockercfg`, `kubernetes.io/dockercfg`. Throws where it cannot be read. */
export const parseDockercfg = (json: string, source?: CredentialSource): KeyringEntry[] =>
  entriesOf(JSON.parse(json), source);

function splitHost(location: string): { parts: string[]; port: string; path: string } {
  const slash = location.indexOf('/');
  const authority = slash < 0 ? location : location.slice(0, slash);
  const path = slash < 0 ? '' : location.slice(slash);
  const colon = authority.lastIndexOf(':');
  const hasPort = colon > authority.lastIndexOf(']') && colon >= 0;
  const host = hasPort ? authority.slice(0, colon) : authority;
  return { parts: host.split('.'), port: hasPort ? authority.slice(colon + 1) : '', path };
}

/** A shell glob (`*`, `?`, `[a-z]`, `\`) over one part of a host name. */
function globMatches(glob: string, part: string): boolean {
  const pattern = glob.replaceAll(/\\.|\[\^?[^\]]*\]|[*?]|[^\\[*?]+/g, (piece) => {
    if (piece === '*') return '[^/]*';
    if (piece === '?') return '[^/]';
    if (piece.startsWith('[') && piece.length > 2) return piece;
    return piece.replace(/^\\/, '').replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
  });
  try {
    return new RegExp(`^${pattern}$`).test(part);
  } catch {
    return false;
  }
}

/** Same port, as many host parts, each matching, and the path a prefix. */
export function imageMatches(glob: string, image: string): boolean {
  const wanted = splitHost(glob);
  const given = splitHost(image);
  return (
    wanted.port === given.port &&
    wanted.parts.length === given.parts.length &&
    given.path.startsWith(wanted.path) &&
    wanted.parts.every((part, index) => globMatches(part, given.parts[index] ?? ''))
  );
}

const defaultRegistry = 'index.docker.io';
const isDefaultRegistry = (repository: string): boolean => {
  const [first = '', second] = repository.split('/', 2);
  if (first === '') return false;
  return second === undefined || first === 'docker.io' || first === defaultRegistry || !/[.:]/.test(first);
};

/** Credentials for a repository, the most specific first; for Docker Hub those of `index.docker.io` where nothing else fits. */
export function lookUpCredentials(entries: readonly KeyringEntry[], repository: string): Credential[] {
  const sorted = entries.toSorted((a, b) => (a.key < b.key ? 1 : a.key > b.key ? -1 : 0));
  const found = sorted.filter(({ key }) => imageMatches(key, repository));
  if (found.length > 0) return found.map(({ credential }) => credential);
  if (!isDefaultRegistry(repository)) return [];
  return sorted.filter(({ key }) => key === defaultRegistry).map(({ credential }) => credential);
}
