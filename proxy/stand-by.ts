// While a kube-proxy runs on this host, ours programs nothing.
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import type { DetectKubeProxy } from './kube-proxy-detector.ts';

export interface StandByDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly detect: DetectKubeProxy;
  /** What was found; undefined once it has gone. */
  onFound(found: string | undefined): void;
}

const everyMs = 10_000;

/** Resolves when no kube-proxy runs. */
export async function waitForNoKubeProxy(deps: StandByDeps, signal: AbortSignal): Promise<void> {
  let waited = false;
  for (let found = await deps.detect(); found !== undefined; found = await deps.detect()) {
    if (!waited)
      deps.log.warn('a kube-proxy runs on this host: the proxy stands by and programs nothing until it ends', {
        found,
      });
    waited = true;
    deps.onFound(found);
    await deps.clock.sleep(everyMs, signal);
  }
  if (waited) deps.log.info('the kube-proxy on this host has ended: the proxy goes on');
  deps.onFound(undefined);
}

/** Resolves when a kube-proxy has appeared; `onLook` is called after each look that found none. */
export async function waitForKubeProxy(
  { clock, detect }: Pick<StandByDeps, 'clock' | 'detect'>,
  onLook: () => void,
  signal: AbortSignal,
): Promise<void> {
  while ((await detect()) === undefined) {
    await clock.sleep(everyMs, signal);
    onLook();
  }
}
