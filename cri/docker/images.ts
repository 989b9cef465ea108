// Images of Docker Engine, by their full names: Docker shows `busybox:1` for what everyone else calls docker.io/library/busybox:1.
import { statfs } from 'node:fs/promises';
import type Docker from 'dockerode';
import type { Clock } from '../../lib/clock.ts';
import { canonicalImageName, parseImageReference } from '../../lib/image-reference.ts';
import { isNotFound, RuntimeError } from '../errors.ts';
import type { Runtime } from '../runtime.ts';
import type * as t from '../types.ts';
import { alreadySo, classifyError, type DockerConnection } from './connection.ts';

export interface ImagesDeps {
  readonly connection: DockerConnection;
  readonly clock: Clock;
  dockerRoot(): Promise<string>;
}

export type Images = Pick<Runtime, 'pullImage' | 'imageStatus' | 'listImages' | 'removeImage' | 'imageFilesystem'>;

const quickMs = 30_000;
/** A pull that tells nothing new for so long is given up; containerd's own bound. */
const stalledMs = 5 * 60_000;

const fullName = (name: string): string => {
  try {
    return canonicalImageName(parseImageReference(name));
  } catch {
    return name;
  }
};
const isName = (name: string): boolean => !name.includes('<none>');

const namesOf = (names: readonly string[] | null | undefined): string[] => (names ?? []).filter(isName).map(fullName);

export function imageOf(info: Docker.ImageInspectInfo): t.Image {
  const user = info.Config?.User ?? '';
  const [name = ''] = user.split(':');
  const uid = /^\d+$/.test(name) ? Number(name) : undefined;
  return {
    id: info.Id,
    repoTags: namesOf(info.RepoTags),
    repoDigests: namesOf(info.RepoDigests),
    sizeBytes: info.Size,
    uid,
    username: uid === undefined ? name : '',
    pinned: false,
  };
}

/** What goes into X-Registry-Auth: the daemon does not read the joined form. */
export function authConfig(auth: t.RegistryAuth): Record<string, string> {
  const joined = auth.auth ? Buffer.from(auth.auth, 'base64').toString() : '';
  const colon = joined.indexOf(':');
  return {
    username: auth.username || (colon < 0 ? '' : joined.slice(0, colon)),
    password: auth.password || (colon < 0 ? '' : joined.slice(colon + 1)),
    serveraddress: auth.serverAddress ?? '',
    ...(auth.identityToken ? { identitytoken: auth.identityToken } : {}),
    ...(auth.registryToken ? { registrytoken: auth.registryToken } : {}),
  };
}

/** `repository:tag@digest` is pulled by its digest; Docker takes one of the two. A name without either means `latest`, not every tag. */
export function pullName(name: string): string {
  const { registry, repository, tag, digest } = parseImageReference(name);
  return `${registry}/${repository}${digest === undefined ? `:${tag ?? 'latest'}` : `@${digest}`}`;
}

export function createImages(deps: ImagesDeps): Images {
  const { connection, clock } = deps;
  const { docker } = connection;

  const inspect = (call: string, name: string, options: Parameters<Images['imageStatus']>[1]) =>
    connection.call(call, options, quickMs, () => docker.getImage(imagePath(name)).inspect());

  const list = (options: Parameters<Images['listImages']>[0]) =>
    connection.call('ListImages', options, quickMs, (abortSignal) => docker.listImages({ abortSignal }));

  /** Reads the progress to its end. Throws what the daemon reports in it. */
  async function readProgress(stream: AsyncIterable<Buffer | string>, moved: () => void): Promise<void> {
    let rest = '';
    const line = (text: string): void => {
      if (text.trim() === '') return;
      const { error, errorDetail } = JSON.parse(text) as { error?: string; errorDetail?: { message?: string } };
      if (error !== undefined) throw new Error(errorDetail?.message ?? error);
    };
    for await (const chunk of stream) {
      moved();
      const lines = (rest + chunk.toString()).split('\n');
      rest = lines.pop() ?? '';
      for (const text of lines) line(text);
    }
    line(rest);
  }

  return {
    async pullImage(image, auth, _sandbox, options) {
      const call = 'PullImage';
      const controller = new AbortController();
      const parent = options?.signal;
      const onAbort = (): void => controller.abort(parent?.reason);
      let stalled = false;
      let timer = clock.setTimer(stalledMs, () => undefined);
      const moved = (): void => {
        timer.cancel();
        timer = clock.setTimer(stalledMs, () => {
          stalled = true;
          controller.abort();
        });
      };
      try {
        if (parent?.aborted) throw new RuntimeError('aborted', call, 'cancelled');
        parent?.addEventListener('abort', onAbort, { once: true });
        moved();
        const abortSignal = controller.signal;
        const stream = await docker.pull(pullName(image.image), {
          abortSignal,
          ...(auth ? { authconfig: authConfig(auth) } : {}),
        });
        await readProgress(stream, moved);
      } catch (error) {
        if (parent?.aborted) throw new RuntimeError('aborted', call, 'cancelled', error);
        if (stalled)
          throw new RuntimeError(
            'deadline',
            call,
            `pulling ${image.image}: no progress within ${stalledMs / 1000} s`,
            error,
          );
        const { code, detail } = classifyError(call, error);
        throw new RuntimeError(
          code,
          call,
          detail.includes(image.image) ? detail : `failed to pull ${image.image}: ${detail}`,
          error,
        );
      } finally {
        timer.cancel();
        parent?.removeEventListener('abort', onAbort);
      }
      return (await inspect(call, pullName(image.image), undefined)).Id;
    },

    async imageStatus(image, options) {
      try {
        return imageOf(await inspect('ImageStatus', image.image, options));
      } catch (error) {
        // A name that is none is found nowhere.
        if (isNotFound(error)) return undefined;
        throw error;
      }
    },

    async listImages(options) {
      return (await list(options)).map((info) => ({
        id: info.Id,
        repoTags: namesOf(info.RepoTags),
        repoDigests: namesOf(info.RepoDigests),
        sizeBytes: info.Size,
        username: '',
        pinned: false,
      }));
    },

    async removeImage(image, options) {
      const call = 'RemoveImage';
      await connection.call(call, options, 120_000, async (abortSignal) => {
        const found = await docker.getImage(imagePath(image.image)).inspect().catch(alreadySo);
        if (!found) return;
        // Docker refuses to remove an image by its id as long as it has several names. The last name takes the image along.
        const names = [...(found.RepoTags ?? []), ...(found.RepoDigests ?? [])].filter(isName);
        const remove = (name: string): Promise<unknown> =>
          docker.getImage(imagePath(name)).remove({ abortSignal }).catch(alreadySo);
        for (const name of names) await remove(name);
        await remove(found.Id);
      });
    },

    async imageFilesystem(options) {
      const mountpoint = await deps.dockerRoot();
      // Docker's own sum walks every volume and container; images share layers, so theirs is bounded by what the file system holds.
      const sizes = (await list(options)).reduce((sum, { Size }) => sum + Size, 0);
      const fs = await statfs(mountpoint).catch(() => undefined);
      const usedBytes = fs ? Math.min(sizes, (fs.blocks - fs.bfree) * fs.bsize) : sizes;
      const usage = { timestampMs: clock.now(), mountpoint, usedBytes, inodesUsed: 0 };
      return { image: [usage], container: [usage] };
    },
  };
}

/** Docker resolves no name that has both; the digest says it all. */
export function imagePath(name: string): string {
  // It becomes part of a path of the API's.
  if (!/^[\w.:@/-]+$/.test(name) || name.includes('..') || name.includes('//'))
    throw new RuntimeError('invalid', 'ImageStatus', `invalid reference format: ${name}`);
  const at = name.indexOf('@');
  if (at < 0) return name;
  const named = name.slice(0, at);
  return named.lastIndexOf(':') > named.lastIndexOf('/')
    ? `${named.slice(0, named.lastIndexOf(':'))}${name.slice(at)}`
    : name;
}
