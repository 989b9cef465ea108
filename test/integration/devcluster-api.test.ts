// The control plane's protocol, as clients in code use it: watches, pages, identity, reviews. With
// KUBEBUILDER_ASSETS the same is asked of a real API server.
import { request } from 'node:https';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { WatchEvent } from '../../kube/client.ts';
import { isGone } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { ConfigMap, TokenRequest } from '../../kube/types/core.ts';
import type { KubeObject } from '../../kube/types/meta.ts';
import { type Cluster, startCluster } from '../lab/cluster.ts';

let cluster: Cluster;
const namespace = 'default';

beforeAll(async () => {
  cluster = await startCluster();
});

afterAll(async () => {
  await cluster?.stop();
});

const map = (name: string, labels: Record<string, string> = {}): ConfigMap => ({
  metadata: { name, namespace, labels },
});

async function take<T extends KubeObject>(events: AsyncIterable<WatchEvent<T>>, count: number): Promise<string[]> {
  const seen: string[] = [];
  for await (const event of events) {
    if (event.type === 'BOOKMARK') {
      if (event.initialEventsEnd) seen.push('SYNCED');
    } else seen.push(`${event.type} ${event.object.metadata.name}`);
    if (seen.length >= count) break;
  }
  return seen;
}

interface Answer {
  readonly status: number;
  readonly body: { kind?: string; reason?: string; message?: string; status?: unknown; data?: Record<string, string> };
}

function ask(path: string, headers: Record<string, string> = {}, body?: unknown): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const options = {
      method: body === undefined ? 'GET' : 'POST',
      ca: cluster.caPem,
      agent: false as const,
      headers: { 'content-type': 'application/json', ...headers },
    };
    const outgoing = request(new URL(path, cluster.server), options, (answer) => {
      const chunks: Buffer[] = [];
      answer.on('data', (chunk: Buffer) => chunks.push(chunk));
      answer.on('end', () =>
        resolve({ status: answer.statusCode ?? 0, body: JSON.parse(Buffer.concat(chunks).toString('utf8')) }),
      );
    });
    outgoing.on('error', reject);
    outgoing.end(body === undefined ? undefined : JSON.stringify(body));
  });
}

describe('watches and lists', () => {
  it('streams what is there and what happens, with the mark between', async () => {
    await cluster.admin.create(resources.configMaps, map('w1', { set: 'w' }));
    const events = cluster.admin.watch(resources.configMaps, {
      namespace,
      labelSelector: 'set=w',
      sendInitialEvents: true,
      resourceVersionMatch: 'NotOlderThan',
      allowWatchBookmarks: true,
      signal: AbortSignal.timeout(10_000),
    });
    const seen = take(events, 5);
    await new Promise((resolve) => setTimeout(resolve, 300));
    await cluster.admin.create(resources.configMaps, map('w2', { set: 'w' }));
    // Leaving the selection is a deletion for those who watch it.
    await cluster.admin.patch(
      resources.configMaps,
      { namespace, name: 'w2' },
      { metadata: { labels: { set: 'other' } } },
      { type: 'merge' },
    );
    await cluster.admin.delete(resources.configMaps, { namespace, name: 'w1' });
    expect(await seen).toEqual(['ADDED w1', 'SYNCED', 'ADDED w2', 'DELETED w2', 'DELETED w1']);
  });

  it('goes on from a version, and says when it is too old', async () => {
    const { metadata } = await cluster.admin.list(resources.configMaps, { namespace });
    await cluster.admin.create(resources.configMaps, map('later', { set: 'l' }));
    const events = cluster.admin.watch(resources.configMaps, {
      namespace,
      labelSelector: 'set=l',
      resourceVersion: metadata.resourceVersion!,
      signal: AbortSignal.timeout(10_000),
    });
    expect(await take(events, 1)).toEqual(['ADDED later']);
    if (cluster.kind !== 'devcluster') return;
    const old = cluster.admin.watch(resources.configMaps, {
      namespace,
      resourceVersion: '1',
      signal: AbortSignal.timeout(10_000),
    });
    await expect(take(old, 1)).rejects.toSatisfy(isGone);
  });

  it('lists all there is, or its pages', async () => {
    for (const name of ['p1', 'p2', 'p3']) await cluster.admin.create(resources.configMaps, map(name, { set: 'p' }));
    const names: string[] = [];
    let from: string | undefined;
    do {
      const page = { namespace, labelSelector: 'set=p', limit: 2, ...(from ? { continue: from } : {}) };
      const { items, metadata } = await cluster.admin.list(resources.configMaps, page);
      names.push(...items.map((item) => item.metadata.name));
      from = metadata.continue;
    } while (from);
    expect(names).toEqual(['p1', 'p2', 'p3']);
  });
});

describe('identity', () => {
  it('refuses wrong tokens with 401 and nobody with 403, and tells everybody its health', async () => {
    expect(await ask('/api/v1/nodes', { authorization: 'Bearer wrong' })).toMatchObject({
      status: 401,
      body: { reason: 'Unauthorized' },
    });
    expect(await ask('/api/v1/nodes')).toMatchObject({
      status: 403,
      body: { message: expect.stringContaining('User "system:anonymous" cannot list resource "nodes"') },
    });
    expect((await ask('/version')).status).toBe(200);
  });

  it('knows the token of a service account, in a review too, until the account is gone', async () => {
    const account = { metadata: { name: 'robot', namespace } };
    await cluster.admin.create(resources.serviceAccounts, account);
    const request: TokenRequest = {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      metadata: { name: 'robot', namespace },
      spec: { expirationSeconds: 600 },
    };
    const made = await cluster.admin.create(resources.serviceAccounts, request as never, { subresource: 'token' });
    const { token } = (made as unknown as Required<TokenRequest>).status;
    expect(await ask('/api/v1/nodes', { authorization: `Bearer ${token}` })).toMatchObject({
      status: 403,
      body: { message: expect.stringContaining('system:serviceaccount:default:robot') },
    });
    const review = () => cluster.admin.create(resources.tokenReviews, { metadata: { name: '' }, spec: { token } });
    expect((await review()).status).toMatchObject({
      authenticated: true,
      user: { username: 'system:serviceaccount:default:robot' },
    });
    await cluster.admin.delete(resources.serviceAccounts, { namespace, name: 'robot' });
    if (cluster.kind === 'devcluster') expect((await review()).status?.authenticated ?? false).toBe(false);
  });

  it('answers whether somebody may', async () => {
    const may = async (user: string, groups: string[], verb: string, resource: string): Promise<boolean> => {
      const resourceAttributes = { verb, resource, namespace };
      const answer = await cluster.admin.create(resources.subjectAccessReviews, {
        metadata: { name: '' },
        spec: { user, groups, resourceAttributes },
      });
      return answer.status?.allowed ?? false;
    };
    expect(await may('anybody', ['system:masters'], 'delete', 'pods')).toBe(true);
    expect(await may('nobody', ['system:authenticated'], 'list', 'pods')).toBe(false);
  });
});
