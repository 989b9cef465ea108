// Exec credential providers: the protocol, matching, caching and what is refused.
import { describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import type { ExecOptions } from '../../lib/exec.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { parseCredentialProviderConfig } from './credential-provider-config.ts';
import { createCredentialProviders } from './credential-providers.ts';

const config = (extra = '') => `
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
  - name: helper
    apiVersion: credentialprovider.kubelet.k8s.io/v1
    matchImages: ["*.registry.example"]
    defaultCacheDuration: 1m
    args: [get]
    env: [{name: REGION, value: here}]
${extra}`;
const pod: Pod = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p', namespace: 'ns', uid: 'u' },
  spec: { containers: [], serviceAccountName: 'robot' },
};

function make(answer: Record<string, unknown>, text = config()) {
  const clock = createFakeClock();
  const calls: { command: string; args: readonly string[]; request: Record<string, unknown>; env: unknown }[] = [];
  const providers = createCredentialProviders(
    {
      clock,
      log: silentLog,
      exec: async (command: string, args: readonly string[], options: ExecOptions = {}) => {
        calls.push({ command, args, request: JSON.parse(String(options.input)), env: options.env });
        return {
          stdout: JSON.stringify({
            kind: 'CredentialProviderResponse',
            apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
            cacheKeyType: 'Registry',
            auth: { '*.registry.example': { username: 'u', password: 'p' } },
            ...answer,
          }),
          stderr: '',
        };
      },
      serviceAccount: async () => ({
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        metadata: { name: 'robot', namespace: 'ns', uid: 'sa', annotations: { role: 'reader' } },
      }),
      serviceAccountToken: async () => 'token-1',
    },
    { providers: parseCredentialProviderConfig('/etc/providers.yaml', text), binDir: '/bin-dir' },
  );
  const lookUp = (image: string) => providers.lookUp(pod, image, new AbortController().signal);
  return { clock, calls, lookUp };
}

describe('credential providers', () => {
  it('are asked on standard input for images they match, and for no others', async () => {
    const { calls, lookUp } = make({});
    expect((await lookUp('a.registry.example/app')).map(({ auth }) => auth)).toEqual([
      { username: 'u', password: 'p' },
    ]);
    expect(await lookUp('other.example/app')).toEqual([]);
    expect(calls).toEqual([
      {
        command: '/bin-dir/helper',
        args: ['get'],
        env: { REGION: 'here' },
        request: {
          kind: 'CredentialProviderRequest',
          apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
          image: 'a.registry.example/app',
        },
      },
    ]);
  });

  it.each([
    ['Image', 3],
    ['Registry', 2],
    ['Global', 1],
  ])('answers for %s are asked %i times for three images in two registries', async (cacheKeyType, times) => {
    const { calls, lookUp } = make({ cacheKeyType });
    for (const image of [
      'a.registry.example/x',
      'a.registry.example/y',
      'b.registry.example/x',
      'a.registry.example/x',
    ])
      await lookUp(image);
    expect(calls).toHaveLength(times);
  });

  it.each([
    [{}, 60_000],
    [{ cacheDuration: '10s' }, 10_000],
    [{ cacheDuration: '0s' }, 0],
  ])('%j is remembered for %i ms', async (answer, ttlMs) => {
    const { calls, lookUp, clock } = make(answer);
    await lookUp('a.registry.example/x');
    await clock.advance(Math.max(0, ttlMs - 1));
    await lookUp('a.registry.example/x');
    expect(calls).toHaveLength(ttlMs === 0 ? 2 : 1);
    await clock.advance(1);
    await lookUp('a.registry.example/x');
    expect(calls).toHaveLength(ttlMs === 0 ? 3 : 2);
  });

  it('one question at a time for the same image', async () => {
    const { calls, lookUp } = make({ cacheDuration: '0s' });
    await Promise.all([lookUp('a.registry.example/x'), lookUp('a.registry.example/x')]);
    expect(calls).toHaveLength(1);
  });

  it.each([
    [{ apiVersion: 'credentialprovider.kubelet.k8s.io/v1beta1' }],
    [{ cacheKeyType: 'Sometimes' }],
    [{ kind: 'Other' }],
  ])('passes over the answer %j', async (answer) => {
    expect(await make(answer).lookUp('a.registry.example/x')).toEqual([]);
  });

  const withToken = config(`    tokenAttributes:
      serviceAccountTokenAudience: registry
      cacheType: ServiceAccount
      requireServiceAccount: true
      requiredServiceAccountAnnotationKeys: [role]`);

  it('are handed the service account’s token and annotations where they want them', async () => {
    const { calls, lookUp } = make({}, withToken);
    const [found] = await lookUp('a.registry.example/x');
    expect(found?.source).toEqual({ kind: 'serviceAccount', uid: 'sa', namespace: 'ns', name: 'robot' });
    expect(calls[0]?.request).toMatchObject({
      serviceAccountToken: 'token-1',
      serviceAccountAnnotations: { role: 'reader' },
    });
  });

  it('may not answer with the token itself where it is remembered for the account', async () => {
    const { lookUp } = make({ auth: { '*.registry.example': { username: 'u', password: 'token-1' } } }, withToken);
    expect(await lookUp('a.registry.example/x')).toEqual([]);
  });
});

describe('their configuration', () => {
  it.each([
    ['providers: []', /at least 1 item/],
    [config('    colour: red'), /providers\.0\.colour/],
    [config().replace('1m', 'soon'), /providers\.0\.defaultCacheDuration: must be a duration/],
    [config().replace('helper', '../helper'), /providers\.0\.name/],
    ['{', /is no YAML/],
  ])('is refused with the file and the field', (text, message) => {
    const whole = text.startsWith('providers')
      ? `apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\n${text}`
      : text;
    expect(() => parseCredentialProviderConfig('/etc/providers.yaml', whole)).toThrow(message);
    expect(() => parseCredentialProviderConfig('/etc/providers.yaml', whole)).toThrow('/etc/providers.yaml');
  });
});
