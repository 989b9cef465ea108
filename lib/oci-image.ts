// Container images made without a registry or a builder: layers in, one archive out, which `ctr images import`, `docker load` and
// anything else that reads an OCI layout or a docker archive accept.
import { createHash } from 'node:crypto';
import { writeTar, type TarEntry } from './tar.ts';

export type ImageArchitecture = 'amd64' | 'arm64';

/** What the image says of itself; the fields of the OCI image configuration. */
export interface ImageConfig {
  readonly entrypoint?: readonly string[];
  readonly cmd?: readonly string[];
  /** `KEY=value`. */
  readonly env?: readonly string[];
  readonly workingDir?: string;
  /** `user`, `uid`, `user:group` or `uid:gid`. */
  readonly user?: string;
  /** For example `8080/tcp`. */
  readonly exposedPorts?: readonly string[];
  readonly volumes?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly stopSignal?: string;
}

export interface ImageDefinition {
  /** All its names, each with a tag, for example `localhost/stevedore/pause:1`. */
  readonly names: readonly string[];
  readonly architecture: ImageArchitecture;
  readonly config: ImageConfig;
  readonly layers: readonly (readonly TarEntry[])[];
}

export interface BuiltImage {
  readonly names: readonly string[];
  /** `sha256:…` of the image's configuration: what runtimes call its id. */
  readonly id: string;
  /** `sha256:…` of the manifest: what goes after `@`. */
  readonly digest: string;
  /** Content addressed by `sha256:…`: layers, configuration, manifest. */
  readonly blobs: ReadonlyMap<string, Uint8Array>;
  readonly manifest: Uint8Array;
}

const mediaTypes = {
  manifest: 'application/vnd.oci.image.manifest.v1+json',
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
  index: 'application/vnd.oci.image.index.v1+json',
} as const;

export const sha256 = (bytes: Uint8Array): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value));
const keys = (names: readonly string[] | undefined): Record<string, object> | undefined =>
  names && names.length > 0 ? Object.fromEntries(names.map((name) => [name, {}])) : undefined;

/** The process's architecture in the names that images use. Throws where there is none of ours. */
export function imageArchitecture(arch: string = process.arch): ImageArchitecture {
  if (arch === 'x64' || arch === 'amd64') return 'amd64';
  if (arch === 'arm64') return 'arm64';
  throw new Error(`no local images can be built for the architecture ${arch}: amd64 and arm64 are known`);
}

/** Content and manifest of one image. The same definition gives the same bytes. */
export function buildImage(definition: ImageDefinition): BuiltImage {
  const { config } = definition;
  const layers = definition.layers.map((entries) => writeTar(entries));
  const configBytes = json({
    created: '1970-01-01T00:00:00Z',
    architecture: definition.architecture,
    os: 'linux',
    config: {
      User: config.user,
      ExposedPorts: keys(config.exposedPorts),
      Env: config.env ?? ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      Entrypoint: config.entrypoint,
      Cmd: config.cmd,
      Volumes: keys(config.volumes),
      WorkingDir: config.workingDir,
      Labels: config.labels,
      StopSignal: config.stopSignal,
    },
    rootfs: { type: 'layers', diff_ids: layers.map(sha256) },
    history: layers.map(() => ({ created: '1970-01-01T00:00:00Z', created_by: 'stevedore' })),
  });
  const describe = (mediaType: string, bytes: Uint8Array) => ({ mediaType, digest: sha256(bytes), size: bytes.length });
  const manifest = json({
    schemaVersion: 2,
    mediaType: mediaTypes.manifest,
    config: describe(mediaTypes.config, configBytes),
    layers: layers.map((layer) => describe(mediaTypes.layer, layer)),
  });
  const blobs = new Map<string, Uint8Array>();
  for (const bytes of [...layers, configBytes, manifest]) blobs.set(sha256(bytes), bytes);
  return { names: definition.names, id: sha256(configBytes), digest: sha256(manifest), blobs, manifest };
}

/** One archive of several images: an OCI layout and a docker archive over the same content. */
export function archiveImages(images: readonly BuiltImage[]): Buffer {
  const entries: TarEntry[] = [
    { path: 'oci-layout', data: JSON.stringify({ imageLayoutVersion: '1.0.0' }) },
    {
      path: 'index.json',
      data: JSON.stringify({
        schemaVersion: 2,
        mediaType: mediaTypes.index,
        manifests: images.flatMap((image) =>
          image.names.map((name) => ({
            mediaType: mediaTypes.manifest,
            digest: image.digest,
            size: image.manifest.length,
            annotations: {
              'io.containerd.image.name': name,
              'org.opencontainers.image.ref.name': name.slice(name.lastIndexOf(':') + 1),
            },
          })),
        ),
      }),
    },
    {
      path: 'manifest.json',
      data: JSON.stringify(
        images.map((image) => {
          const parsed = JSON.parse(Buffer.from(image.manifest).toString()) as {
            config: { digest: string };
            layers: { digest: string }[];
          };
          return {
            Config: blobPath(parsed.config.digest),
            RepoTags: image.names,
            Layers: parsed.layers.map((layer) => blobPath(layer.digest)),
          };
        }),
      ),
    },
    { path: 'blobs', type: 'directory' },
    { path: 'blobs/sha256', type: 'directory' },
  ];
  const blobs = new Map(images.flatMap((image) => [...image.blobs]));
  for (const [digest, data] of blobs) entries.push({ path: blobPath(digest), data });
  return writeTar(entries);
}

const blobPath = (digest: string): string => `blobs/${digest.replace(':', '/')}`;

/** Definition to archive in one step. */
export const imageArchive = (definitions: readonly ImageDefinition[]): Buffer =>
  archiveImages(definitions.map(buildImage));
