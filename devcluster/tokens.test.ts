import { generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import type { KubeObject } from '../kube/types/meta.ts';
import { createTokens, issuer } from './tokens.ts';

const keyPem = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  .privateKey.export({ type: 'pkcs8', format: 'pem' })
  .toString();

function fixture() {
  const clock = createFakeClock();
  const objects = new Map<string, KubeObject>([
    ['serviceaccounts/n/sa', { metadata: { name: 'sa', uid: 'u1' } }],
    ['pods/n/p', { metadata: { name: 'p', uid: 'u2' } }],
  ]);
  const tokens = createTokens(
    { clock, find: (plural, namespace, name) => objects.get(`${plural}/${namespace}/${name}`) },
    keyPem,
  );
  const subject = {
    namespace: 'n',
    serviceaccount: { name: 'sa', uid: 'u1' },
    pod: { name: 'p', uid: 'u2' },
  };
  return { clock, objects, tokens, subject };
}

describe('service account tokens', () => {
  it('name the account, its groups and the pod', () => {
    const { tokens, subject } = fixture();
    const found = tokens.authenticate(tokens.issue(subject, [issuer], 600));
    expect(found?.user).toMatchObject({
      name: 'system:serviceaccount:n:sa',
      uid: 'u1',
      groups: ['system:serviceaccounts', 'system:serviceaccounts:n', 'system:authenticated'],
      extra: { 'authentication.kubernetes.io/pod-name': ['p'], 'authentication.kubernetes.io/pod-uid': ['u2'] },
    });
  });

  it('hold for their audiences only', () => {
    const { tokens, subject } = fixture();
    const token = tokens.issue(subject, ['vault'], 600);
    expect(tokens.authenticate(token)).toBeUndefined();
    expect(tokens.authenticate(token, ['vault', 'other'])?.audiences).toEqual(['vault']);
  });

  it('end with their time, with their pod, and with a byte that is changed', async () => {
    const { clock, objects, tokens, subject } = fixture();
    const token = tokens.issue(subject, [issuer], 600);
    const [head, body, signature] = token.split('.');
    const claims = JSON.parse(Buffer.from(body!, 'base64url').toString('utf8'));
    const forged = Buffer.from(JSON.stringify({ ...claims, sub: 'system:serviceaccount:kube-system:admin' })).toString(
      'base64url',
    );
    expect(tokens.authenticate(`${head}.${forged}.${signature}`)).toBeUndefined();
    expect(tokens.authenticate('a.b.c')).toBeUndefined();
    expect(tokens.authenticate('nonsense')).toBeUndefined();
    expect(tokens.authenticate(token)).toBeDefined();
    objects.set('pods/n/p', { metadata: { name: 'p', uid: 'another' } });
    expect(tokens.authenticate(token)).toBeUndefined();
    objects.set('pods/n/p', { metadata: { name: 'p', uid: 'u2' } });
    await clock.advance(601_000);
    expect(tokens.authenticate(token)).toBeUndefined();
  });
});
