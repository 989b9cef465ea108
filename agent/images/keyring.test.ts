// Which credentials fit which image: the kubelet's rules.
import { describe, expect, it } from 'vitest';
import { imageMatches, lookUpCredentials, parseDockercfg, parseDockerConfigJson } from './keyring.ts';
import { entriesOfSecrets } from './pull-secrets.ts';

const auth = (username: string) => ({ auth: Buffer.from(`${username}:secret`).toString('base64') });
const names = (config: Record<string, unknown>, repository: string) =>
  lookUpCredentials(parseDockercfg(JSON.stringify(config)), repository).map((found) => found.auth.username);

describe('matching', () => {
  it.each([
    ['registry.example', 'registry.example/app', true],
    ['registry.example/team', 'registry.example/team/app', true],
    ['registry.example/team', 'registry.example/other/app', false],
    ['*.example', 'registry.example/app', true],
    ['*.example', 'a.registry.example/app', false],
    ['*.*.example', 'a.registry.example/app', true],
    ['reg*.example', 'registry.example/app', true],
    ['registry.example', 'registry.example:5000/app', false],
    ['registry.example:5000', 'registry.example:5000/app', true],
    ['registr?.example', 'registry.example/app', true],
    ['registr[x-z].example', 'registry.example/app', true],
    ['registry+example', 'registryyexample/app', false],
  ])('%s fits %s: %s', (glob, image, fits) => {
    expect(imageMatches(glob, image)).toBe(fits);
  });

  it('gives the most specific first, and all that fit', () => {
    const config = {
      'reg.example': auth('host'),
      'reg.example/team/app': auth('app'),
      'reg.example/team': auth('team'),
    };
    expect(names(config, 'reg.example/team/app')).toEqual(['app', 'team', 'host']);
    expect(names(config, 'reg.example/team/web')).toEqual(['team', 'host']);
  });

  it.each([
    ['https://reg.example/v1/', 'reg.example/app'],
    ['http://reg.example/v2/', 'reg.example/app'],
    ['reg.example/', 'reg.example/app'],
  ])('%s is a registry', (location, repository) => {
    expect(names({ [location]: auth('x') }, repository)).toEqual(['x']);
  });

  it('uses index.docker.io for Docker Hub where nothing else fits', () => {
    const config = { 'https://index.docker.io/v1/': auth('hub') };
    expect(names(config, 'docker.io/library/busybox')).toEqual(['hub']);
    expect(names(config, 'quay.io/busybox')).toEqual([]);
    expect(names({ ...config, 'docker.io': auth('exact') }, 'docker.io/library/busybox')).toEqual(['exact']);
  });
});

describe('formats', () => {
  it('reads username and password, and auth over both', () => {
    const entries = parseDockerConfigJson(
      JSON.stringify({ auths: { a: { username: 'u', password: 'p:q' }, b: { username: 'x', ...auth('y') } } }),
    );
    expect(entries.map(({ credential }) => credential.auth)).toEqual([
      { username: 'u', password: 'p:q' },
      { username: 'y', password: 'secret' },
    ]);
  });

  it('refuses what it cannot read, without telling the content', () => {
    expect(() => parseDockerConfigJson('{"auths":{"a":{"auth":"c2VjcmV0"}}}')).toThrow(/must be formatted as base64/);
    expect(() => parseDockercfg('[]')).toThrow(/no JSON object/);
  });

  it('reads both types of secret, passes over others and names the broken', () => {
    const data = (key: string, value: unknown) => ({ [key]: Buffer.from(JSON.stringify(value)).toString('base64') });
    const secret = (name: string, type: string, content: Record<string, string>) => ({
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name, namespace: 'ns', uid: `uid-${name}` },
      type,
      data: content,
    });
    const json = secret(
      'j',
      'kubernetes.io/dockerconfigjson',
      data('.dockerconfigjson', { auths: { a: auth('one') } }),
    );
    const cfg = secret('c', 'kubernetes.io/dockercfg', data('.dockercfg', { b: auth('two') }));
    const other = secret('o', 'Opaque', data('.dockercfg', { b: auth('three') }));
    expect(entriesOfSecrets([json, cfg, other]).map(({ key, credential }) => [key, credential.source?.name])).toEqual([
      ['a', 'j'],
      ['b', 'c'],
    ]);
    const broken = secret('x', 'kubernetes.io/dockercfg', data('.dockercfg', []));
    expect(() => entriesOfSecrets([broken])).toThrow(/image pull secret ns\/x cannot be read/);
  });
});
