import { describe, expect, it } from 'vitest';
import type { KubeClient } from '../../kube/client.ts';
import type { SubjectAccessReview } from '../../kube/types/core.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { createAuthorization, subresourcesOf, verbOf } from './authorization.ts';
import { bearerToken, userOfSubject, webSocketToken } from './identity.ts';
import { parseTarget } from './routes.ts';

describe('subresourcesOf', () => {
  it.each([
    ['/', ['proxy']],
    ['/pods', ['pods', 'proxy']],
    ['/pods/x', ['pods', 'proxy']],
    ['/podsx', ['proxy']],
    ['/runningpods', ['pods', 'proxy']],
    ['/healthz', ['healthz', 'proxy']],
    ['/healthz/syncloop', ['healthz', 'proxy']],
    ['/configz', ['configz', 'proxy']],
    ['/stats/summary', ['stats']],
    ['/metrics', ['metrics']],
    ['/metrics/cadvisor', ['metrics']],
    ['/metricsx', ['proxy']],
    ['/logs/syslog', ['log']],
    ['/checkpoint/a/b/c', ['checkpoint']],
    ['/statusz', ['statusz']],
    ['/flagz', ['configz']],
    ['/exec/a/b/c', ['proxy']],
    ['/containerLogs/a/b/c', ['proxy']],
    ['/debug/pprof/profile', ['proxy']],
  ])('%s', (path, expected) => expect(subresourcesOf(path)).toEqual(expected));

  it.each([
    ['GET', 'get'],
    ['POST', 'create'],
    ['PUT', 'update'],
    ['PATCH', 'patch'],
    ['DELETE', 'delete'],
    ['HEAD', ''],
    ['OPTIONS', ''],
  ])('%s is %j', (method, verb) => expect(verbOf(method)).toBe(verb));
});

describe('credentials', () => {
  it.each([
    [undefined, undefined],
    ['Bearer abc', 'abc'],
    ['bearer  abc', 'abc'],
    ['Bearer', undefined],
    ['Basic abc', undefined],
  ])('Authorization: %s', (header, token) => expect(bearerToken(header)).toBe(token));

  it('come as a WebSocket protocol', () => {
    const encoded = Buffer.from('tok/en').toString('base64url');
    expect(webSocketToken(`v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.${encoded}`)).toBe('tok/en');
    expect(webSocketToken('v5.channel.k8s.io')).toBeUndefined();
  });

  it.each([
    [{ CN: 'u' }, { name: 'u', groups: [] }],
    [
      { CN: 'u', O: 'g' },
      { name: 'u', groups: ['g'] },
    ],
    [
      { CN: ['a', 'b'], O: ['g', 'h'] },
      { name: 'b', groups: ['g', 'h'] },
    ],
    [{ O: 'g' }, undefined],
  ])('subject %j', (subject, user) => expect(userOfSubject(subject)).toEqual(user && { uid: '', extra: {}, ...user }));
});

describe('parseTarget', () => {
  it.each([
    ['/pods', '/pods'],
    ['//pods//', '/pods'],
    ['/%70ods', '/pods'],
    ['/pods/%2e%2e/exec', undefined],
    ['/pods/../exec', undefined],
    ['/pods/a%2Fb', undefined],
    ['/pods%00', undefined],
    ['/pods/%zz', undefined],
    ['http://elsewhere/pods', undefined],
    ['*', undefined],
    [undefined, undefined],
  ])('%s', (target, path) => expect(parseTarget(target)?.path).toBe(path));
});

describe('createAuthorization', () => {
  const user = { name: 'u', uid: '', groups: ['g'], extra: {} };
  const world = (answer: (subresource: string) => boolean | Error) => {
    const asked: string[] = [];
    const client = {
      create: async (_resource: unknown, review: SubjectAccessReview) => {
        const { subresource = '', verb } = review.spec.resourceAttributes!;
        asked.push(`${verb} ${subresource}`);
        const said = answer(subresource);
        if (said instanceof Error) throw said;
        return { ...review, status: { allowed: said } };
      },
    } as unknown as KubeClient;
    const clock = createFakeClock();
    return { asked, clock, rules: createAuthorization({ clock, client }, { mode: 'Webhook', nodeName: 'n' }) };
  };

  it('tries the fine-grained subresource, then proxy, and keeps each answer for its time', async () => {
    const { asked, clock, rules } = world((subresource) => subresource === 'proxy');
    expect(await rules.decide(user, 'GET', '/pods')).toEqual({ kind: 'allowed' });
    expect(asked).toEqual(['get pods', 'get proxy']);
    await rules.decide(user, 'GET', '/pods');
    expect(asked.length).toBe(2);
    await clock.advance(30_000);
    await rules.decide(user, 'GET', '/pods');
    expect(asked).toEqual(['get pods', 'get proxy', 'get pods']);
    await clock.advance(270_000);
    await rules.decide(user, 'GET', '/pods');
    expect(asked.slice(3)).toEqual(['get pods', 'get proxy']);
  });

  it('asks once for many, and again after a failure', async () => {
    let fails = true;
    const { asked, rules } = world(() => (fails ? new Error('down') : true));
    const decisions = await Promise.all([1, 2, 3].map(() => rules.decide(user, 'GET', '/metrics')));
    expect(asked.length).toBe(1);
    expect(decisions[0]).toMatchObject({
      kind: 'failed',
      message: 'Authorization error (user=u, verb=get, resource=nodes, subresource=metrics)',
    });
    fails = false;
    expect(await rules.decide(user, 'GET', '/metrics')).toEqual({ kind: 'allowed' });
  });

  it('does not take one user for another', async () => {
    const { asked, rules } = world(() => true);
    await rules.decide(user, 'GET', '/metrics');
    await rules.decide({ ...user, groups: ['h'] }, 'GET', '/metrics');
    await rules.decide({ ...user, name: 'v' }, 'GET', '/metrics');
    await rules.decide(user, 'POST', '/metrics');
    expect(asked.length).toBe(4);
  });
});
