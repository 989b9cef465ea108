// /checkpoint and /debug/pprof: what they answer, and in which words.
import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { RuntimeError } from '../../cri/errors.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { pageRoutes } from './pages.ts';
import { profileRoutes } from './profiles.ts';
import { findRoute, HttpError, type PageCall, parseTarget, type Route } from './routes.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pages-'));
});
afterEach(async () => await rm(folder, { recursive: true, force: true }));

/** The status and the text that a request is answered with. */
async function ask(routes: readonly Route[], method: string, target: string): Promise<[number, string]> {
  const at = parseTarget(target)!;
  const found = findRoute(routes, method, at);
  if (found.kind !== 'found' || found.route.kind !== 'page') return [found.kind === 'not-found' ? 404 : 405, ''];
  const response = Object.assign(new PassThrough(), {
    status: 0,
    setHeader: () => undefined,
    writeHead(status: number) {
      response.status = status;
    },
  });
  const { params, route } = found;
  const call = { at, params, response, signal: new AbortController().signal } as unknown as PageCall;
  try {
    const [, body] = await Promise.all([route.serve(call), text(response)]);
    return [response.status, body];
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    return [error.status, error.message];
  }
}

describe('/checkpoint', () => {
  const pod = {
    metadata: { name: 'p', namespace: 'd', uid: 'u' },
    spec: { containers: [{ name: 'c', image: 'i' }] },
  } satisfies Pod;
  const asked: unknown[] = [];
  const routes = (checkpoint: () => Promise<void>): Route[] =>
    pageRoutes(
      {
        clock: createFakeClock(),
        pods: {
          pods: () => [pod],
          byName: (namespace, name) => (namespace === 'd' && name === 'p' ? pod : undefined),
          container: () => ({ id: 'c1' as never, state: 'running', logPath: '', restartCount: 0 }),
          sandbox: () => undefined,
          ended: async () => undefined,
        },
        runtime: {
          checkpointContainer: async (...args: unknown[]) => {
            asked.push(args);
            await checkpoint();
          },
        } as never,
        configz: () => ({}),
      },
      { checkpointFolder: join(folder, 'checkpoints') },
    );
  const works = (): Route[] => routes(async () => undefined);

  it('has the runtime write an archive, readable by nobody else', async () => {
    const [status, body] = await ask(works(), 'POST', '/checkpoint/d/p/c?timeout=1&timeout=7');
    const { items } = JSON.parse(body) as { items: string[] };
    expect([status, items.length]).toEqual([200, 1]);
    expect(items[0]).toMatch(/\/checkpoints\/checkpoint-p_d-c-\d{4}-\d\d-\d\dT[\d:]+Z\.tar$/);
    expect(asked.at(-1)).toEqual(['c1', items[0], { timeoutMs: 7_000 }]);
    expect((await stat(join(folder, 'checkpoints'))).mode & 0o777).toBe(0o700);
  });

  it.each([
    ['GET', '/checkpoint/d/p/c', 405, ''],
    ['POST', '/checkpoint/d/none/c', 404, 'pod does not exist'],
    ['POST', '/checkpoint/d/p/none', 404, 'container none does not exist'],
    ['POST', '/checkpoint/d/p/c?timeout=soon', 404, 'cannot parse value of timeout parameter'],
  ])('%s %s is %i', async (method, target, status, message) => {
    expect(await ask(works(), method, target)).toEqual([status, message]);
  });

  it('says what the runtime cannot', async () => {
    const cannot = routes(() =>
      Promise.reject(
        new RuntimeError('unimplemented', 'CheckpointContainer', 'method CheckpointContainer not implemented'),
      ),
    );
    const [status, message] = await ask(cannot, 'POST', '/checkpoint/d/p/c');
    expect(status).toBe(500);
    expect(message).toMatch(/^checkpointing of d\/p\/c failed \(.*not implemented.*\)$/);
  });
});

describe('/debug/pprof', () => {
  it('takes a CPU profile and one of the heap, one at a time', async () => {
    const clock = createFakeClock();
    const routes = profileRoutes(clock, { enabled: true });
    const profile = ask(routes, 'GET', '/debug/pprof/profile?seconds=2');
    expect(await ask(routes, 'GET', '/debug/pprof/heap?seconds=1')).toEqual([429, 'another profile is being taken\n']);
    let done = false;
    void profile.then(() => (done = true));
    while (!done) await clock.advance(2_000);
    const [status, body] = await profile;
    expect([status, Object.keys(JSON.parse(body) as object)]).toEqual([
      200,
      expect.arrayContaining(['nodes', 'samples', 'timeDeltas']),
    ]);
    done = false;
    const heap = ask(routes, 'GET', '/debug/pprof/heap?seconds=1');
    void heap.then(() => (done = true));
    while (!done) await clock.advance(1_000);
    expect(JSON.parse((await heap)[1])).toHaveProperty('head');
  });

  it.each([
    [true, '/debug/pprof/profile?seconds=0', 400],
    [true, '/debug/pprof/profile?seconds=1000', 400],
    [true, '/debug/pprof/none', 404],
    [true, '/debug/pprof', 200],
    [true, '/debug/pprof/goroutine', 200],
    [true, '/debug/pprof/cmdline', 200],
    [false, '/debug/pprof/heap', 405],
  ])('enabled %s: %s is %i', async (enabled, target, status) => {
    expect((await ask(profileRoutes(createFakeClock(), { enabled }), 'GET', target))[0]).toBe(status);
  });
});
