import { mkdtempSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import type { ConfigMap, Secret, Service } from '../../kube/types/core.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { type EnvContext, type EnvDeps, containerEnv } from './env.ts';
import { parseEnvFile, readEnvFile } from './env-file.ts';

const service = (namespace: string, name: string, spec: Partial<Service['spec']>): Service => ({
  metadata: { namespace, name },
  spec: { clusterIP: '10.96.0.1', ports: [{ port: 80 }], ...spec },
});
const kubernetes = service('default', 'kubernetes', { ports: [{ name: 'https', port: 443 }] });
const configMaps: Record<string, ConfigMap> = {
  app: { metadata: { name: 'app' }, data: { color: 'blue', 'with.dots': 'yes', '1st': 'one' } },
  other: { metadata: { name: 'other' }, data: { color: 'red' } },
};
const secrets: Record<string, Secret> = {
  key: { metadata: { name: 'key' }, data: { token: Buffer.from('s3cr€t').toString('base64') } },
};
const deps: EnvDeps = {
  configMap: async (namespace, name) => (namespace === 'shop' ? configMaps[name] : undefined),
  secret: async (namespace, name) => (namespace === 'shop' ? secrets[name] : undefined),
  services: () => [kubernetes],
  fileKey: async (_pod, volume, path, key) => {
    if (path === 'bad') throw new Error('malformed');
    return key === 'there' ? `${volume}:${path}` : '';
  },
};
const context: EnvContext = {
  hostIps: ['192.0.2.9', 'fd00::9'],
  podIps: ['10.0.0.5', 'fd00::5'],
  allocatable: { cpu: '2', memory: '1Gi' },
  isStatic: false,
};
const pod: Pod = {
  metadata: { name: 'web', namespace: 'shop', uid: 'u-1', labels: { app: 'web' }, annotations: { note: 'n' } },
  spec: { containers: [], nodeName: 'node-1', serviceAccountName: 'builder' },
};
const signal = AbortSignal.timeout(10_000);
const own = (env: Record<string, string>): Record<string, string> =>
  Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith('KUBERNETES_')));
const of = async (container: Partial<Container>, more: Partial<EnvDeps> = {}): Promise<Record<string, string>> =>
  own(await containerEnv({ ...deps, ...more }, pod, { name: 'c', ...container }, context, signal));

describe('the environment', () => {
  it('expands what was set before it, and Services, and nothing set after', async () => {
    expect(
      await of({
        env: [
          { name: 'LATER', value: '$(FIRST)' },
          { name: 'FIRST', value: 'one' },
          { name: 'SECOND', value: '$(FIRST)-$(KUBERNETES_SERVICE_PORT)-$$(FIRST)' },
          { name: 'EMPTY' },
        ],
      }),
    ).toEqual({ LATER: '$(FIRST)', FIRST: 'one', SECOND: 'one-443-$(FIRST)', EMPTY: '' });
  });

  it.each([
    ['metadata.name', 'web'],
    ['metadata.namespace', 'shop'],
    ['metadata.uid', 'u-1'],
    ["metadata.labels['app']", 'web'],
    ["metadata.annotations['note']", 'n'],
    ['spec.nodeName', 'node-1'],
    ['spec.serviceAccountName', 'builder'],
    ['status.hostIP', '192.0.2.9'],
    ['status.hostIPs', '192.0.2.9,fd00::9'],
    ['status.podIP', '10.0.0.5'],
    ['status.podIPs', '10.0.0.5,fd00::5'],
  ])('fieldRef %s', async (fieldPath, value) => {
    expect(await of({ env: [{ name: 'X', valueFrom: { fieldRef: { fieldPath } } }] })).toEqual({ X: value });
  });

  it('resourceFieldRef', async () => {
    const ref = (resource: string, divisor?: string) => ({
      name: resource,
      valueFrom: { resourceFieldRef: { resource, ...(divisor ? { divisor } : {}) } },
    });
    expect(
      await of({
        resources: { requests: { cpu: '250m' } },
        env: [ref('requests.cpu', '1m'), ref('limits.memory', '1Mi')],
      }),
    ).toEqual({ 'requests.cpu': '250', 'limits.memory': '1024' });
  });

  it('envFrom with a prefix, whatever the names, and env over it', async () => {
    expect(
      await of({
        envFrom: [
          { configMapRef: { name: 'app' } },
          { prefix: 'P_', configMapRef: { name: 'other' } },
          { secretRef: { name: 'key' } },
          { configMapRef: { name: 'none', optional: true } },
        ],
        env: [
          { name: 'color', value: 'green' },
          { name: 'seen', value: '$(P_color)' },
        ],
      }),
    ).toEqual({ color: 'green', 'with.dots': 'yes', '1st': 'one', P_color: 'red', token: 's3cr€t', seen: 'red' });
  });

  it('keys of ConfigMaps, Secrets and files; optional ones that are not there are left out', async () => {
    const key = (optional: boolean) => ({ name: 'none', key: 'k', optional });
    expect(
      await of({
        env: [
          { name: 'A', valueFrom: { configMapKeyRef: { name: 'app', key: 'color' } } },
          { name: 'B', valueFrom: { secretKeyRef: { name: 'key', key: 'token' } } },
          { name: 'C', valueFrom: { configMapKeyRef: key(true) } },
          { name: 'D', valueFrom: { secretKeyRef: { name: 'key', key: 'other', optional: true } } },
          { name: 'E', valueFrom: { fileKeyRef: { volumeName: 'v', path: 'f', key: 'there' } } },
          { name: 'F', valueFrom: { fileKeyRef: { volumeName: 'v', path: 'f', key: 'gone', optional: true } } },
        ],
      }),
    ).toEqual({ A: 'blue', B: 's3cr€t', E: 'v:f' });
  });

  it.each<[string, Partial<Container>]>([
    [
      'configmap "none" not found',
      { env: [{ name: 'A', valueFrom: { configMapKeyRef: { name: 'none', key: 'k' } } }] },
    ],
    ['secret "none" not found', { env: [{ name: 'A', valueFrom: { secretKeyRef: { name: 'none', key: 'k' } } }] }],
    ['configmap "none" not found', { envFrom: [{ configMapRef: { name: 'none' } }] }],
    ['secret "none" not found', { envFrom: [{ secretRef: { name: 'none' } }] }],
    [
      "couldn't find key k in ConfigMap shop/app",
      { env: [{ name: 'A', valueFrom: { configMapKeyRef: { name: 'app', key: 'k' } } }] },
    ],
    [
      "couldn't find key toString in Secret shop/key",
      { env: [{ name: 'A', valueFrom: { secretKeyRef: { name: 'key', key: 'toString' } } }] },
    ],
    [
      "couldn't parse env file",
      { env: [{ name: 'A', valueFrom: { fileKeyRef: { volumeName: 'v', path: 'bad', key: 'k' } } }] },
    ],
    [
      'environment variable key "k" not found in file "f"',
      { env: [{ name: 'A', valueFrom: { fileKeyRef: { volumeName: 'v', path: 'f', key: 'k' } } }] },
    ],
    [
      'field label not supported: spec.nope',
      { env: [{ name: 'A', valueFrom: { fieldRef: { fieldPath: 'spec.nope' } } }] },
    ],
    [
      'container other not found',
      { env: [{ name: 'A', valueFrom: { resourceFieldRef: { containerName: 'other', resource: 'limits.cpu' } } }] },
    ],
  ])('%s', async (message, container) => {
    await expect(of(container)).rejects.toMatchObject({ name: 'ConfigError', message });
  });

  it('passes on what a dependency says, and does not call it a mistake of the spec', async () => {
    const broken = of(
      { envFrom: [{ configMapRef: { name: 'app', optional: true } }] },
      {
        configMap: async () => Promise.reject(new Error('the API server is away')),
      },
    );
    await expect(broken).rejects.toMatchObject({ name: 'Error', message: 'the API server is away' });
  });

  it('waits for Services, except in static pods', async () => {
    const none = { ...deps, services: () => undefined };
    await expect(containerEnv(none, pod, { name: 'c' }, context, signal)).rejects.toThrow(
      'services have not yet been read at least once, cannot construct envvars',
    );
    expect(await containerEnv(none, pod, { name: 'c' }, { ...context, isStatic: true }, signal)).toEqual({});
  });
});

describe('variables of Services', () => {
  const services = [
    service('shop', 'redis-primary', {
      clusterIP: '10.0.0.11',
      ports: [{ port: 6379 }, { name: 'adm-in', port: 81, protocol: 'UDP' }],
    }),
    service('shop', 'headless', { clusterIP: 'None' }),
    service('elsewhere', 'far', {}),
    service('shop', 'v6', { clusterIP: 'fd00::1' }),
    kubernetes,
  ];
  const names = async (enableServiceLinks?: boolean) =>
    containerEnv(
      { ...deps, services: () => services },
      { ...pod, spec: { ...pod.spec, ...(enableServiceLinks === undefined ? {} : { enableServiceLinks }) } },
      { name: 'c', env: [{ name: 'V6_PORT', value: 'mine' }] },
      context,
      signal,
    );

  it('those of the namespace, and the API server', async () => {
    const env = await names();
    expect(env).toMatchObject({
      REDIS_PRIMARY_SERVICE_HOST: '10.0.0.11',
      REDIS_PRIMARY_SERVICE_PORT: '6379',
      REDIS_PRIMARY_SERVICE_PORT_ADM_IN: '81',
      REDIS_PRIMARY_PORT: 'tcp://10.0.0.11:6379',
      REDIS_PRIMARY_PORT_6379_TCP: 'tcp://10.0.0.11:6379',
      REDIS_PRIMARY_PORT_6379_TCP_PROTO: 'tcp',
      REDIS_PRIMARY_PORT_6379_TCP_PORT: '6379',
      REDIS_PRIMARY_PORT_6379_TCP_ADDR: '10.0.0.11',
      REDIS_PRIMARY_PORT_81_UDP: 'udp://10.0.0.11:81',
      KUBERNETES_SERVICE_HOST: '10.96.0.1',
      KUBERNETES_SERVICE_PORT_HTTPS: '443',
      V6_PORT_80_TCP: 'tcp://[fd00::1]:80',
      V6_PORT: 'mine',
    });
    expect(Object.keys(env).filter((name) => /FAR|HEADLESS/.test(name))).toEqual([]);
  });

  it('only the API server where the pod wants no others', async () => {
    const env = await names(false);
    expect(Object.keys(env).filter((name) => !name.startsWith('KUBERNETES_'))).toEqual(['V6_PORT']);
  });
});

describe('files of variables', () => {
  it.each([
    ["A='one'", 'A', 'one'],
    ["# c\n\n  A='one' # more\nB='two'", 'B', 'two'],
    ["A='one\ntwo\n'", 'A', 'one\ntwo\n'],
    ["A= 'one'\nB='two'", 'A', ''],
    ["A='one'", 'B', ''],
    ["A=''", 'A', ''],
    ["A='$(B) \\n'\r\n", 'A', '$(B) \\n'],
  ])('%j', (text, key, value) => expect(parseEnvFile(text, key)).toBe(value));

  it.each([
    ['A', "line 1: missing '='"],
    ["A ='x'", "line 1: whitespace before '=' is not allowed"],
    ["='x'", 'line 1: empty variable name'],
    ['A=x', 'line 1: value must be enclosed in single quotes'],
    ["A='x'y", 'line 1: unexpected content after closing quote'],
    ["B='1'\nA='x\ny", 'starting at line 2: unclosed single quote'],
  ])('%j is refused', (text, words) => expect(() => parseEnvFile(text, 'A')).toThrow(words));

  const root = mkdtempSync(join(tmpdir(), 'env-file-'));
  afterAll(() => rmSync(root, { recursive: true, force: true }));

  it('are never read outside the volume', async () => {
    mkdirSync(join(root, 'volume/etc'), { recursive: true });
    writeFileSync(join(root, 'volume/etc/env'), "A='inside'");
    mkdirSync(join(root, 'etc'));
    writeFileSync(join(root, 'etc/env'), "A='outside'");
    symlinkSync('../../etc/env', join(root, 'volume/relative'));
    symlinkSync('/etc/env', join(root, 'volume/absolute'));
    symlinkSync('loop', join(root, 'volume/loop'));
    const read = (path: string): Promise<string> => readEnvFile(join(root, 'volume'), path, 'A');
    expect(await read('etc/env')).toBe('inside');
    expect(await read('relative')).toBe('inside');
    expect(await read('absolute')).toBe('inside');
    expect(await read('../../../etc/env')).toBe('inside');
    await expect(read('loop')).rejects.toThrow('too many links');
    await expect(read('none')).rejects.toThrow('ENOENT');
  });
});
