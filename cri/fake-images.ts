// The image half of the fake runtime: a store, and registries that are slow, want credentials or fail as scripted.
import type { Clock } from '../lib/clock.ts';
import { canonicalImageName, parseImageReference, repositoryName } from '../lib/image-reference.ts';
import { RuntimeError } from './errors.ts';
import type { Image, ImageSpec, RegistryAuth } from './types.ts';

export interface FakeImage {
  readonly name: string;
  /** Default: made up from the name. */
  readonly id?: string;
  readonly sizeBytes?: number;
  readonly uid?: number;
  readonly username?: string;
  readonly pinned?: boolean;
}

export interface FakeRegistryImage extends FakeImage {
  /** How long a pull takes. Default 0. */
  readonly pullMs?: number;
  /** Credentials that the registry asks for. */
  readonly auth?: { readonly username: string; readonly password: string };
  /** Every pull fails with these words. */
  readonly error?: string;
}

export interface FakeImages {
  /** Present in the runtime. */
  add(image: FakeImage): Image;
  /** Pullable from its registry. */
  publish(image: FakeRegistryImage): void;
  find(name: string): Image | undefined;
  list(): Image[];
  remove(name: string): void;
  pull(spec: ImageSpec, auth: RegistryAuth | undefined, signal: AbortSignal): Promise<string>;
}

/** 64 hexadecimal digits that depend on the text alone. */
export function fakeHex(text: string): string {
  let state = 0x811c9dc5;
  for (const char of text) state = Math.imul(state ^ char.charCodeAt(0), 0x01000193) >>> 0;
  let hex = '';
  while (hex.length < 64) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    hex += state.toString(16).padStart(8, '0');
  }
  return hex.slice(0, 64);
}

const full = (name: string): string =>
  name.startsWith('sha256:') ? name : canonicalImageName(parseImageReference(name));

export function createFakeImages(clock: Clock): FakeImages {
  const present = new Map<string, Image>();
  const published = new Map<string, FakeRegistryImage>();

  const find = (name: string): Image | undefined => {
    if (present.has(name)) return present.get(name);
    let wanted: string;
    try {
      wanted = full(name);
    } catch {
      return undefined;
    }
    return [...present.values()].find(
      (image) => image.id === wanted || image.repoTags.includes(wanted) || image.repoDigests.includes(wanted),
    );
  };

  const add = (image: FakeImage): Image => {
    const reference = parseImageReference(image.name);
    const name = canonicalImageName(reference);
    const id = image.id ?? `sha256:${fakeHex(name)}`;
    const digest = reference.digest ?? `sha256:${fakeHex(`${id} manifest`)}`;
    // A tag names one image.
    for (const [key, other] of present) {
      if (other.repoTags.includes(name))
        present.set(key, { ...other, repoTags: other.repoTags.filter((tag) => tag !== name) });
    }
    const known = present.get(id);
    const entry: Image = {
      id,
      repoTags: [...new Set([...(known?.repoTags ?? []), ...(reference.digest ? [] : [name])])],
      repoDigests: [...new Set([...(known?.repoDigests ?? []), `${repositoryName(reference)}@${digest}`])],
      sizeBytes: image.sizeBytes ?? 1_000_000,
      uid: image.uid,
      username: image.username ?? '',
      pinned: image.pinned ?? false,
    };
    present.set(id, entry);
    return entry;
  };

  return {
    add,
    publish: (image) => void published.set(full(image.name), image),
    find,
    list: () => [...present.values()],
    remove(name) {
      const image = find(name);
      if (image) present.delete(image.id);
    },
    async pull(spec, auth, signal) {
      const name = full(spec.image);
      const image = published.get(name);
      if (image?.pullMs) await clock.sleep(image.pullMs, signal);
      const failed = `failed to pull and unpack image "${name}": failed to resolve reference "${name}": `;
      if (image?.error !== undefined) throw new RuntimeError('unknown', 'PullImage', image.error);
      if (!image) throw new RuntimeError('not-found', 'PullImage', `${failed}${name}: not found`);
      if (image.auth && !accepts(image.auth, auth))
        throw new RuntimeError('unauthorized', 'PullImage', `${failed}unexpected status: 401 Unauthorized`);
      return add(image).id;
    },
  };
}

function accepts(wanted: NonNullable<FakeRegistryImage['auth']>, auth: RegistryAuth | undefined): boolean {
  const given = auth?.auth
    ? Buffer.from(auth.auth, 'base64').toString()
    : `${auth?.username ?? ''}:${auth?.password ?? ''}`;
  return given === `${wanted.username}:${wanted.password}`;
}
