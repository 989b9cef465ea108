// /metrics and its children, and /stats/summary.
import { once } from 'node:events';
import type { Clock } from '../../lib/clock.ts';
import { createExposition, labelText } from '../../lib/exposition.ts';
import type { MetricsRegistry } from '../../lib/metrics.ts';
import type { NodeStats } from '../stats/node-stats.ts';
import type { HealthCheck } from './pages.ts';
import { HttpError, type PageCall, type Route, sendJson, sendText } from './routes.ts';
import { processPage } from './process-page.ts';
import type { PodDirectory } from './directory.ts';

export interface MetricsPagesDeps {
  readonly clock: Clock;
  readonly pods: PodDirectory;
  readonly metrics: MetricsRegistry;
  readonly probeMetrics: MetricsRegistry;
  readonly stats: NodeStats;
  readonly health: readonly HealthCheck[];
}

const textFormat = 'text/plain; version=0.0.4; charset=utf-8';

/** Volumes of claims; read when they are asked for, so that a pod that went is forgotten. */
async function volumePage(deps: MetricsPagesDeps): Promise<string> {
  const page = createExposition();
  const rows = new Map<
    string,
    { labels: string; usage: Awaited<ReturnType<NodeStats['filesystems']['volumes']>>[number] }
  >();
  for (const pod of deps.pods.pods()) {
    if (!pod.spec.volumes?.some((volume) => volume.persistentVolumeClaim ?? volume.ephemeral)) continue;
    for (const usage of await deps.stats.filesystems.volumes(pod)) {
      if (!usage.claim) continue;
      const { namespace, name } = usage.claim;
      rows.set(`${namespace}/${name}`, { labels: labelText({ namespace, persistentvolumeclaim: name }), usage });
    }
  }
  const figures = [
    ['available_bytes', 'Number of available bytes in the volume', 'availableBytes'],
    ['capacity_bytes', 'Capacity in bytes of the volume', 'capacityBytes'],
    ['inodes', 'Maximum number of inodes in the volume', 'inodes'],
    ['inodes_free', 'Number of free inodes in the volume', 'inodesFree'],
    ['inodes_used', 'Number of used inodes in the volume', 'inodesUsed'],
    ['used_bytes', 'Number of used bytes in the volume', 'usedBytes'],
  ] as const;
  for (const [suffix, help, key] of figures) {
    const family = page.family(`kubelet_volume_stats_${suffix}`, 'gauge', help);
    for (const { labels, usage } of rows.values()) family.sample(labels, usage[key]);
  }
  return page.text();
}

/** /metrics/slis: the health checks as figures. Counts are of looks taken here. */
function createSlis(checks: readonly HealthCheck[]): () => string {
  const counts = new Map<string, number>();
  return () => {
    const page = createExposition();
    const results = checks.map(({ name, failing }) => ({ name, ok: failing() === undefined }));
    const now = page.family(
      'kubernetes_healthcheck',
      'gauge',
      'This metric records the result of a single healthcheck.',
    );
    for (const { name, ok } of results) now.sample(labelText({ name, type: 'healthz' }), ok ? 1 : 0);
    const total = page.family(
      'kubernetes_healthchecks_total',
      'counter',
      'This metric records the results of all healthcheck.',
    );
    for (const { name, ok } of results) {
      const labels = labelText({ name, status: ok ? 'success' : 'error', type: 'healthz' });
      counts.set(labels, (counts.get(labels) ?? 0) + 1);
    }
    for (const [labels, count] of counts) total.sample(labels, count);
    return page.text();
  };
}

/** At the pace of who reads it. What fails before the first piece is answered as an error; later, the connection ends. */
async function sendPieces({ request, response, signal }: PageCall, pieces: AsyncIterable<string>): Promise<void> {
  const headers = { 'content-type': textFormat, 'x-content-type-options': 'nosniff' };
  if (request.method === 'HEAD') return void response.writeHead(200, headers).end();
  for await (const piece of pieces) {
    if (piece === '') continue;
    if (!response.headersSent) response.writeHead(200, headers);
    if (!response.write(piece)) await once(response, 'drain', { signal });
  }
  response.end();
}

export function metricsRoutes(deps: MetricsPagesDeps): Route[] {
  const { metrics, probeMetrics, stats } = deps;
  const slis = createSlis(deps.health);

  const page = (pattern: string, text: () => Promise<string> | string): Route => ({
    kind: 'page',
    methods: ['GET', 'HEAD'],
    pattern,
    serve: async ({ response }: PageCall) => sendText(response, 200, await text(), textFormat),
  });

  const summary = async ({ at, response }: PageCall): Promise<void> => {
    const only = at.query.get('only_cpu_and_memory');
    if (only !== null && !['true', 'false', '1', '0', ''].includes(only))
      throw new HttpError(400, `parse only_cpu_and_memory param failed: ${JSON.stringify(only)} is not a boolean`);
    sendJson(response, await stats.summary({ onlyCpuAndMemory: only === 'true' || only === '1' }));
  };

  return [
    page('/metrics', async () => (await Promise.all([metrics.metrics(), processPage(), volumePage(deps)])).join('')),
    page('/metrics/probes', async () => await probeMetrics.metrics()),
    page('/metrics/slis', slis),
    page('/metrics/resource', () => stats.resourcePage()),
    {
      kind: 'page',
      methods: ['GET', 'HEAD'],
      pattern: '/metrics/cadvisor',
      serve: async (call) => await sendPieces(call, stats.cadvisorPage()),
    },
    { kind: 'page', methods: ['GET', 'POST'], pattern: '/stats/summary', serve: summary },
  ];
}
