import { describe, expect, it } from 'vitest';
import { authorize, refusalOf } from './authorize.ts';

const admin = { name: 'kubernetes-admin', groups: ['system:masters', 'system:authenticated'] };
const node = { name: 'system:node:n1', groups: ['system:nodes', 'system:authenticated'] };
const robot = { name: 'system:serviceaccount:n:robot', groups: ['system:serviceaccounts', 'system:authenticated'] };
const nobody = { name: 'system:anonymous', groups: ['system:unauthenticated'] };

describe('authorize', () => {
  it.each([
    [admin, { verb: 'delete', group: 'apps', resource: 'deployments', namespace: 'n' }, true],
    [admin, { verb: 'get', path: '/anything' }, true],
    [node, { verb: 'patch', resource: 'pods', subresource: 'status', namespace: 'n' }, true],
    [node, { verb: 'patch', resource: 'pods', namespace: 'n' }, false],
    [node, { verb: 'create', group: 'authorization.k8s.io', resource: 'subjectaccessreviews' }, true],
    [node, { verb: 'create', resource: 'subjectaccessreviews' }, false],
    [node, { verb: 'watch', group: 'discovery.k8s.io', resource: 'endpointslices' }, true],
    [node, { verb: 'delete', resource: 'nodes', name: 'n1' }, false],
    [robot, { verb: 'list', resource: 'secrets', namespace: 'n' }, false],
    [robot, { verb: 'get', path: '/openapi/v3' }, true],
    [nobody, { verb: 'get', path: '/healthz' }, true],
    [nobody, { verb: 'get', path: '/healthz/more' }, false],
    [nobody, { verb: 'get', path: '/api' }, false],
  ])('%o: %o: %s', (user, asked, allowed) => {
    expect(authorize(user, asked)).toBe(allowed);
  });

  it('refuses in the API server’s words', () => {
    expect(refusalOf(robot, { verb: 'get', resource: 'pods', subresource: 'log', namespace: 'n', name: 'p' })).toBe(
      'pods "p" is forbidden: User "system:serviceaccount:n:robot" cannot get resource "pods/log" in API group "" in the namespace "n"',
    );
  });
});
