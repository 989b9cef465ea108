import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { silentLog } from '../lib/log.ts';
import { createCredentials } from './credentials.ts';
import { inClusterConfig, loadKubeconfig, parseKubeconfig } from './kubeconfig.ts';

const pem = '-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n';
const base64 = Buffer.from(pem).toString('base64');

const document = (cluster: string, user: string, more = ''): string => `apiVersion: v1
kind: Config
current-context: main
clusters:
- name: c
  cluster: ${cluster}
users:
- name: u
  user: ${user}
contexts:
- name: main
  context: {cluster: c, user: u, namespace: ns}
${more}`;
const server = '{server: "https://h:6443"}';

describe('a kubeconfig', () => {
  it('gives server, data and files, relative to its own folder', () => {
    const config = parseKubeconfig(
      document(
        `{server: "https://h:6443/", certificate-authority-data: ${base64}, tls-server-name: api}`,
        '{client-certificate: pki/a.crt, client-key: /etc/a.key}',
      ),
      '/etc/kubernetes/kubelet.conf',
    );
    expect(config).toMatchObject({
      source: 'kubeconfig /etc/kubernetes/kubelet.conf',
      server: 'https://h:6443',
      certificateAuthority: { from: 'data', pem },
      tlsServerName: 'api',
      clientCertificate: { from: 'file', path: '/etc/kubernetes/pki/a.crt' },
      clientKey: { from: 'file', path: '/etc/a.key' },
      namespace: 'ns',
    });
  });

  it('gives an exec plugin, its command relative to the folder where it is a path', () => {
    const exec =
      '{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./get, args: [a], env: [{name: A, value: b}], provideClusterInfo: true, installHint: get it}}';
    expect(parseKubeconfig(document(server, exec), '/k/config').exec).toEqual({
      apiVersion: 'client.authentication.k8s.io/v1',
      command: '/k/get',
      args: ['a'],
      env: { A: 'b' },
      provideClusterInfo: true,
      installHint: 'get it',
      clusterExtension: undefined,
    });
  });

  it.each([
    ['not YAML', '{', /kubeconfig \/k: not YAML/],
    ['no context', 'kind: Config', /current-context is not set/],
    ['an unknown context', 'current-context: x', /there is no context "x"/],
    ['another kind', 'kind: Pod', /kubeconfig \/k: kind: /],
    ['no server', document('{}', '{}'), /clusters\[c\]\.cluster\.server: /],
    ['a token that is no text', document(server, '{token: 5}'), /users\[u\]\.user\.token: .*string/],
    [
      'bad data',
      document('{server: "https://h", certificate-authority-data: "AAAA"}', '{}'),
      /clusters\[c\]\.certificate-authority-data: not PEM/,
    ],
    [
      'a key without certificate',
      document(server, '{client-key: a}'),
      /users\[u\]: client-key is set, client-certificate is not/,
    ],
    [
      'a proxy',
      document('{server: "https://h", proxy-url: "http://p"}', '{}'),
      /proxy-url: connecting through a proxy is not supported/,
    ],
    [
      'an old plugin',
      document(server, '{exec: {apiVersion: client.authentication.k8s.io/v1alpha1, command: x}}'),
      /exec\.apiVersion: .*v1alpha1.*not supported/,
    ],
    [
      'a plugin that wants a terminal',
      document(server, '{exec: {apiVersion: client.authentication.k8s.io/v1, command: x, interactiveMode: Always}}'),
      /interactiveMode/,
    ],
    ['an auth-provider', document(server, '{auth-provider: {name: gcp}}'), /auth-provider/],
  ])('is refused with %s', (_, text, message) => {
    expect(() => parseKubeconfig(text, '/k')).toThrow(message);
  });
});

describe('files', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'kubeconfig-'));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  const put = (name: string, text: string): string => {
    const path = join(folder, name);
    writeFileSync(path, text);
    return path;
  };
  const plugin = (script: string): string => {
    const path = put('plugin', `#!/bin/sh\n${script}\n`);
    chmodSync(path, 0o755);
    return path;
  };
  const credentials = async (user: string) => {
    const clock = createFakeClock();
    const config = await loadKubeconfig(put('config', document(server, user)));
    return { clock, of: createCredentials({ clock, log: silentLog }, config) };
  };

  it('that are missing are named', async () => {
    await expect(loadKubeconfig(join(folder, 'none'))).rejects.toThrow(/none: there is no such file/);
    const path = put('config', document(server, '{client-certificate: a.crt, client-key: a.key}'));
    await expect(loadKubeconfig(path)).rejects.toThrow(/client-certificate .*a\.crt: ENOENT/);
  });

  it('with certificates are read again when they change', async () => {
    put('a.crt', `${pem}1`);
    put('a.key', `${pem}1`);
    const { clock, of } = await credentials('{client-certificate: a.crt, client-key: a.key}');
    expect((await of.tls()).cert).toBe(`${pem}1`);
    expect(await of.tlsChanged()).toBe(false);
    put('a.crt', `${pem}22`);
    put('a.key', `${pem}22`);
    expect(await of.tlsChanged()).toBe(false);
    await clock.advance(5001);
    expect(await of.tlsChanged()).toBe(true);
    expect((await of.tls()).cert).toBe(`${pem}22`);
    rmSync(join(folder, 'a.crt'));
    expect((await of.tls()).cert).toBe(`${pem}22`);
  });

  it('with a token are read again each minute, and when it was refused', async () => {
    put('token', 'one\n');
    const { clock, of } = await credentials('{tokenFile: token}');
    expect(await of.authorization()).toBe('Bearer one');
    put('token', 'two');
    expect(await of.authorization()).toBe('Bearer one');
    await clock.advance(60_001);
    expect(await of.authorization()).toBe('Bearer two');
    put('token', 'three');
    expect(await of.refresh()).toBe(true);
    expect(await of.authorization()).toBe('Bearer three');
    expect(await of.refresh()).toBe(false);
  });

  it('that are programs are run, with what they ask for, until their credential expires or is refused', async () => {
    plugin(`echo run >> ${folder}/runs
echo "$KUBERNETES_EXEC_INFO" > ${folder}/info
echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{"token":"'$A-$(wc -l < ${folder}/runs | tr -d ' ')'","expirationTimestamp":"2026-01-01T01:00:00Z"}}'`);
    const { clock, of } = await credentials(
      '{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin, env: [{name: A, value: t}], provideClusterInfo: true}}',
    );
    expect(await Promise.all([of.authorization(), of.authorization()])).toEqual(['Bearer t-1', 'Bearer t-1']);
    expect(JSON.parse(await readFile(join(folder, 'info'), 'utf8'))).toEqual({
      apiVersion: 'client.authentication.k8s.io/v1',
      kind: 'ExecCredential',
      spec: { interactive: false, cluster: { server: 'https://h:6443' } },
    });
    expect(await of.refresh()).toBe(true);
    expect(await of.authorization()).toBe('Bearer t-2');
    await clock.advance(3_600_000);
    expect(await of.authorization()).toBe('Bearer t-3');
  });

  it.each([
    ['fails', 'echo no >&2; exit 3', /plugin failed: .*no/],
    ['prints nonsense', 'echo hello', /printed something that is no JSON/],
    [
      'prints another version',
      `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1beta1"}'`,
      /v1beta1, expected/,
    ],
    [
      'gives nothing',
      `echo '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","status":{}}'`,
      /without token/,
    ],
  ])('a program that %s is told of', async (_, script, message) => {
    plugin(script);
    const { of } = await credentials('{exec: {apiVersion: client.authentication.k8s.io/v1, command: ./plugin}}');
    await expect(of.authorization()).rejects.toThrow(message);
  });

  it('a program that is not there is told of with its hint', async () => {
    const { of } = await credentials(
      '{exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin, installHint: Install it so.}}',
    );
    await expect(of.authorization()).rejects.toThrow(/no-such-plugin.*Install it so/);
  });
});

describe('in a pod', () => {
  it('the environment and the service account folder say all', () => {
    expect(
      inClusterConfig({ KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' }, '/sa'),
    ).toMatchObject({
      server: 'https://[fd00::1]:443',
      tokenFile: '/sa/token',
      certificateAuthority: { from: 'file', path: '/sa/ca.crt' },
    });
    expect(() => inClusterConfig({})).toThrow(/KUBERNETES_SERVICE_HOST/);
  });
});
