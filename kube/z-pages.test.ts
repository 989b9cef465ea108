// The two pages as text and as objects, and who gets which.
import { parse } from 'yaml';
import { describe, expect, it } from 'vitest';
import { createFakeClock } from '../lib/fake-clock.ts';
import { createZPages } from './z-pages.ts';

const startedMs = Date.UTC(2026, 10, 2, 3, 4, 5);
function setUp() {
  const clock = createFakeClock(startedMs + 3_725_400);
  return createZPages(
    { clock, flags: () => ({ v: 'info', config: '/etc/c.yaml' }) },
    {
      component: 'kube-proxy',
      version: 'v1.36.2',
      startedMs,
      paths: ['/metrics', '/metrics/slis', '/healthz', '/healthz/ping', '/'],
    },
  );
}

const kindOf = (as: string, version = 'v1beta1'): string => `v=${version};g=config.k8s.io;as=${as}`;

describe('as text', () => {
  it('the state', () => {
    const { status, headers, body } = setUp().statusz(undefined);
    expect([status, headers]).toEqual([200, { 'content-type': 'text/plain; charset=utf-8' }]);
    expect(body.split('\n')).toEqual([
      '',
      'kube-proxy statusz',
      expect.stringMatching(/^Warning: .* debugging purposes only\.$/),
      '',
      'Started: Mon Nov  2 03:04:05 UTC 2026',
      'Up: 1 hr 02 min 05 sec',
      `Node version: ${process.version}`,
      'Binary version: v1.36.2',
      '',
      'Paths: /healthz /metrics',
      '',
    ]);
  });

  it('the flags, sorted', () => {
    expect(setUp().flagz('')).toMatchObject({
      status: 200,
      body: expect.stringMatching(/\nconfig=\/etc\/c\.yaml\nv=info\n$/),
    });
  });
});

describe('as objects', () => {
  it('the state in JSON', () => {
    const { headers, body } = setUp().statusz(`application/json;${kindOf('Statusz')}`);
    expect(headers).toEqual({ 'content-type': 'application/json' });
    expect(JSON.parse(body)).toEqual({
      kind: 'Statusz',
      apiVersion: 'config.k8s.io/v1beta1',
      metadata: { name: 'kube-proxy' },
      startTime: '2026-11-02T03:04:05Z',
      uptimeSeconds: 3725,
      goVersion: '',
      binaryVersion: 'v1.36.2',
      paths: ['/healthz', '/metrics'],
    });
  });

  it('the flags in YAML, of the old version with a warning', () => {
    const { headers, body } = setUp().flagz(`application/yaml;${kindOf('Flagz', 'v1alpha1')}`);
    expect(headers).toEqual({
      'content-type': 'application/yaml',
      warning: '299 - "This version of the flagz endpoint is deprecated. Please use a newer version."',
    });
    expect(parse(body)).toEqual({
      kind: 'Flagz',
      apiVersion: 'config.k8s.io/v1alpha1',
      metadata: { name: 'kube-proxy' },
      flags: { v: 'info', config: '/etc/c.yaml' },
    });
  });
});

it.each([
  ['*/*', 'text/plain; charset=utf-8'],
  ['text/*', 'text/plain; charset=utf-8'],
  ['text/html, text/plain;q=0.5', 'text/plain; charset=utf-8'],
  [`text/plain;q=0.5, application/json;${kindOf('Statusz')}`, 'application/json'],
  [`application/json;q=0.4;${kindOf('Statusz')}, text/plain`, 'text/plain; charset=utf-8'],
  [`application/json;${kindOf('Statusz')};q=0.4, application/yaml;${kindOf('Statusz')}`, 'application/yaml'],
  [`application/*;${kindOf('Statusz')}`, 'application/json'],
  [`application/json;${kindOf('Flagz')}, */*`, 'text/plain; charset=utf-8'],
])('who accepts %s gets %s', (accept, type) => {
  expect(setUp().statusz(accept)).toMatchObject({ status: 200, headers: { 'content-type': type } });
});

it.each([
  'application/json',
  'application/*',
  `application/json;${kindOf('Flagz')}`,
  `application/json;${kindOf('Statusz', 'v2')}`,
  `text/plain;${kindOf('Statusz')}`,
  'image/png',
])('who accepts %s gets neither', (accept) => {
  const { status, body } = setUp().statusz(accept);
  expect(status).toBe(406);
  expect(JSON.parse(body)).toMatchObject({
    kind: 'Status',
    code: 406,
    reason: 'NotAcceptable',
    message: 'only the following media types are accepted: application/json, application/yaml, text/plain',
  });
});
