// An image registry on loopback: serves images that were built here, read-only, behind a password where asked.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { BuiltImage } from '../../lib/oci-image.ts';

export interface RegistryOptions {
  /** Basic credentials that every request needs. */
  readonly auth?: { readonly username: string; readonly password: string };
  /** Before each blob, in milliseconds. */
  readonly blobDelayMs?: number;
}

export interface Registry {
  /** `127.0.0.1:port`. */
  readonly host: string;
  /** `repository:tag` under this registry. */
  publish(repository: string, tag: string, image: BuiltImage): string;
  /** Requests for manifests by GET, since the start. */
  manifestRequests(): number;
  stop(): Promise<void>;
}

export async function startRegistry(options: RegistryOptions = {}): Promise<Registry> {
  const manifests = new Map<string, Uint8Array>();
  const blobs = new Map<string, Uint8Array>();
  let requests = 0;
  const wanted =
    options.auth && `Basic ${Buffer.from(`${options.auth.username}:${options.auth.password}`).toString('base64')}`;

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    if (wanted && request.headers.authorization !== wanted) {
      response.writeHead(401, { 'www-authenticate': 'Basic realm="test"' }).end();
      return;
    }
    const path = request.url ?? '';
    const [, kind, reference = ''] = /\/(manifests|blobs)\/([^/?]+)/.exec(path) ?? [];
    if (path === '/v2/') {
      response.writeHead(200).end();
      return;
    }
    const repository = path.slice('/v2/'.length, path.lastIndexOf(`/${kind}/`));
    const body = kind === 'manifests' ? manifests.get(`${repository}:${reference}`) : blobs.get(reference);
    if (!body) {
      response.writeHead(404, { 'content-type': 'application/json' }).end(
        JSON.stringify({
          errors: [{ code: kind === 'manifests' ? 'MANIFEST_UNKNOWN' : 'BLOB_UNKNOWN', message: 'unknown' }],
        }),
      );
      return;
    }
    if (kind === 'manifests' && request.method === 'GET') requests++;
    if (kind === 'blobs' && options.blobDelayMs) await sleep(options.blobDelayMs);
    const digest = [...blobs].find(([, bytes]) => bytes === body)?.[0] ?? reference;
    response.writeHead(200, {
      'content-type': kind === 'manifests' ? 'application/vnd.oci.image.manifest.v1+json' : 'application/octet-stream',
      'content-length': body.length,
      'docker-content-digest': digest,
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  };

  const server = createServer((request, response) => {
    answer(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject);
    server.listen(0, '127.0.0.1', resolve);
  });
  const address = server.address();
  const host = `127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`;
  return {
    host,
    publish(repository, tag, image) {
      for (const [digest, bytes] of image.blobs) blobs.set(digest, bytes);
      const manifest = image.blobs.get(image.digest)!;
      manifests.set(`${repository}:${tag}`, manifest);
      manifests.set(`${repository}:${image.digest}`, manifest);
      return `${host}/${repository}:${tag}`;
    },
    manifestRequests: () => requests,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
