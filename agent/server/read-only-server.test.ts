// The read-only port on loopback.
import { afterEach, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { counter, createRegistry } from '../../lib/metrics.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { NodeStats } from '../stats/node-stats.ts';
import type { PodDirectory } from './directory.ts';
import { createReadOnlyServer, type ReadOnlyServer } from './read-only-server.ts';

let server: ReadOnlyServer | undefined;
afterEach(async () => await server?.close());

const pod: Pod = { metadata: { name: 'web', namespace: 'default', uid: 'u' }, spec: { containers: [] } };

async function listen(): Promise<string> {
  const metrics = createRegistry();
  counter(metrics, { name: 'kubelet_tried_total', help: 'x' }).inc();
  server = createReadOnlyServer(
    {
      clock: systemClock,
      log: silentLog,
      pods: { pods: () => [pod] } as unknown as PodDirectory,
      metrics,
      probeMetrics: createRegistry(),
      stats: {
        summary: () => Promise.resolve({ node: { nodeName: 'n' }, pods: [] }),
        resourcePage: () => Promise.reject(new Error('no cgroups')),
      } as unknown as NodeStats,
      health: [{ name: 'ping', failing: () => undefined }],
    },
    { address: '127.0.0.1', port: 0 },
  );
  return `http://127.0.0.1:${(await server.listen()).port}`;
}

it('shows health, pods and figures to whoever asks', async () => {
  const base = await listen();
  const text = async (path: string): Promise<string> => await (await fetch(base + path)).text();
  expect(await text('/healthz')).toBe('ok');
  expect(JSON.parse(await text('/pods'))).toMatchObject({ kind: 'PodList', items: [{ metadata: { name: 'web' } }] });
  expect(JSON.parse(await text('/stats/summary'))).toMatchObject({ node: { nodeName: 'n' } });
  expect(await text('/metrics')).toContain('kubelet_tried_total 1');
});

it.each([
  ['GET', '/exec/default/web/c', 404],
  ['POST', '/run/default/web/c', 404],
  ['GET', '/containerLogs/default/web/c', 404],
  ['GET', '/configz', 404],
  ['DELETE', '/pods', 405],
  ['GET', '/metrics/resource', 500],
])('answers %s %s with %i', async (method, path, status) => {
  const base = await listen();
  expect((await fetch(base + path, { method })).status).toBe(status);
});
