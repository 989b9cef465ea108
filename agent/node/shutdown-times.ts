// When the node's pods were last ended for a shutdown of the host: shown as metrics, and kept on disk, since whoever wants to know asks after the
// host is up again. The file is the kubelet's.
import { join } from 'node:path';
import { readFileIfThere, writeFileAtomic } from '../../lib/files.ts';
import { describeError, type Log } from '../../lib/log.ts';
import type { KubeletMetrics } from '../server/kubelet-metrics.ts';
import type { ShutdownTimes } from './shutdown.ts';

export interface ShutdownTimesDeps {
  readonly log: Log;
  readonly metrics: Pick<KubeletMetrics, 'shutdownStart' | 'shutdownEnd'>;
}

const timeOf = (text: unknown): number => {
  const ms = typeof text === 'string' ? Date.parse(text) : Number.NaN;
  // Go writes the year 1 for no time.
  return Number.isNaN(ms) || ms < 0 ? 0 : ms;
};

/** Shows what an agent before this one kept below `rootDir`. */
export async function openShutdownTimes(deps: ShutdownTimesDeps, rootDir: string): Promise<ShutdownTimes> {
  const { log, metrics } = deps;
  const path = join(rootDir, 'graceful_node_shutdown_state');
  try {
    const kept = JSON.parse((await readFileIfThere(path)) ?? '{}') as { startTime?: unknown; endTime?: unknown };
    const [startedMs, endedMs] = [timeOf(kept.startTime), timeOf(kept.endTime)];
    if (startedMs > 0) metrics.shutdownStart.set(startedMs / 1000);
    if (endedMs > 0) metrics.shutdownEnd.set(endedMs / 1000);
  } catch (error) {
    log.warn('when the host was last shut down cannot be read; metrics do not show it', {
      path,
      error: describeError(error),
    });
  }
  return {
    async note(startedMs, endedMs) {
      metrics.shutdownStart.set(startedMs / 1000);
      metrics.shutdownEnd.set((endedMs ?? 0) / 1000);
      const kept = {
        startTime: new Date(startedMs).toISOString(),
        ...(endedMs === undefined ? {} : { endTime: new Date(endedMs).toISOString() }),
      };
      await writeFileAtomic(path, JSON.stringify(kept), 0o600).catch((error: unknown) =>
        log.warn('when the host was shut down is not kept', { path, error }),
      );
    },
  };
}
