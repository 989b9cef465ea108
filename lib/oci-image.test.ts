// Archives that tar(1) reads, and images whose digests are what they say.
import { mkdtemp, readFile, readlink, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { exec } from './exec.ts';
import { archiveImages, buildImage, imageArchitecture, sha256 } from './oci-image.ts';
import { writeTar } from './tar.ts';

describe('tar', () => {
  let folder = '';
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sv-tar-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  it('is read by tar: kinds, modes, long names', async () => {
    const long = `deep/${'x'.repeat(150)}/ü`;
    const archive = writeTar([
      { path: 'bin', type: 'directory', mode: 0o750 },
      { path: 'bin/tool', data: 'content', mode: 0o4755 },
      { path: 'bin/link', type: 'symlink', target: '/bin/tool' },
      { path: 'bin/hard', type: 'hardlink', target: 'bin/tool' },
      { path: 'empty', data: '' },
      { path: 'block', data: 'b'.repeat(512) },
      { path: long, data: 'far' },
    ]);
    expect(archive.length % 512).toBe(0);
    await exec('tar', ['-xf', '-', '-p', '-C', folder], { input: archive });
    expect(await readFile(join(folder, 'bin/tool'), 'utf8')).toBe('content');
    expect((await stat(join(folder, 'bin/tool'))).mode & 0o777).toBe(0o755);
    expect((await stat(join(folder, 'bin'))).mode & 0o777).toBe(0o750);
    expect(await readlink(join(folder, 'bin/link'))).toBe('/bin/tool');
    expect((await stat(join(folder, 'bin/hard'))).ino).toBe((await stat(join(folder, 'bin/tool'))).ino);
    expect((await stat(join(folder, 'empty'))).size).toBe(0);
    expect(await readFile(join(folder, 'block'), 'utf8')).toBe('b'.repeat(512));
    expect(await readFile(join(folder, long), 'utf8')).toBe('far');
  });
});

describe('images', () => {
  const definition = {
    names: ['localhost/test:1', 'localhost/test:2'],
    architecture: 'amd64',
    config: { entrypoint: ['/x'], user: '1:2', exposedPorts: ['80/tcp'] },
    layers: [[{ path: 'x', data: 'x', mode: 0o755 }], [{ path: 'y', data: 'y' }]],
  } as const;

  it('are the same bytes each time, addressed by their digests', () => {
    const image = buildImage(definition);
    expect(buildImage(definition)).toEqual(image);
    for (const [digest, bytes] of image.blobs) expect(sha256(bytes)).toBe(digest);
    const manifest = JSON.parse(Buffer.from(image.manifest).toString());
    expect(sha256(image.manifest)).toBe(image.digest);
    expect(manifest.config.digest).toBe(image.id);
    const config = JSON.parse(Buffer.from(image.blobs.get(image.id)!).toString());
    expect(config.rootfs.diff_ids).toEqual(manifest.layers.map((layer: { digest: string }) => layer.digest));
    expect(config.config).toMatchObject({ User: '1:2', Entrypoint: ['/x'], ExposedPorts: { '80/tcp': {} } });
  });

  it('stand in one archive under all their names, each blob once', async () => {
    const archive = archiveImages([
      buildImage(definition),
      buildImage({ ...definition, names: ['localhost/other:1'] }),
    ]);
    const names = (await exec('tar', ['-tf', '-'], { input: archive })).stdout.trim().split('\n');
    expect(new Set(names).size).toBe(names.length);
    const index = JSON.parse((await exec('tar', ['-xOf', '-', 'index.json'], { input: archive })).stdout);
    expect(
      index.manifests.map(
        (entry: { annotations: Record<string, string> }) => entry.annotations['io.containerd.image.name'],
      ),
    ).toEqual(['localhost/test:1', 'localhost/test:2', 'localhost/other:1']);
    const [docker] = JSON.parse((await exec('tar', ['-xOf', '-', 'manifest.json'], { input: archive })).stdout);
    expect(docker.RepoTags).toEqual(definition.names);
    for (const path of [docker.Config, ...docker.Layers]) expect(names).toContain(path);
  });

  it('know their architectures', () => {
    expect(imageArchitecture('x64')).toBe('amd64');
    expect(imageArchitecture('arm64')).toBe('arm64');
    expect(() => imageArchitecture('s390x')).toThrow(/s390x/);
  });
});
