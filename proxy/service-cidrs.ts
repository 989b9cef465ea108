// Follows ServiceCIDRs: the networks cluster IPs are taken from. An API server that has no such objects, or shows them to nobody like us,
// costs what they are good for and nothing else: it is said once, and the proxy does not wait.
import { abandonOn } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';
import { type Log, silentLog } from '../lib/log.ts';
import type { KubeClient } from '../kube/client.ts';
import { isForbidden, isNotFound } from '../kube/errors.ts';
import { createReflector } from '../kube/reflector.ts';
import { resources } from '../kube/resources.ts';

export interface ServiceCidrsDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  /** They may have changed. */
  onChange(): void;
}

export interface ServiceCidrs {
  /** Of all ServiceCIDRs, as they are written there; none while nothing is known. */
  networks(): readonly string[];
  /** Resolves once they were read, once it is clear that they cannot be, or after `longestMs`, whichever is first. */
  settled(longestMs: number, signal: AbortSignal): Promise<void>;
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

function whyNot(error: unknown): string {
  if (isNotFound(error)) return 'this API server has none';
  if (isForbidden(error))
    return 'this identity may not list them; the role system:node-proxier of a recent API server may';
  return 'the API server does not answer';
}

export function createServiceCidrs({ client, clock, log, onChange }: ServiceCidrsDeps): ServiceCidrs {
  const answered = Promise.withResolvers<void>();
  let said = false;
  const reflector = createReflector(
    // What it would say of outages the other watches say too.
    { client, clock, log: silentLog },
    {
      resource: resources.serviceCidrs,
      onChange,
      onSync: answered.resolve,
      onFailure(error) {
        answered.resolve();
        if (said || reflector.synced) return;
        said = true;
        log[isNotFound(error) ? 'info' : 'warn'](
          'ServiceCIDRs cannot be read: packets to cluster IPs that no Service has are not dropped until they can; Services are served as ever',
          { why: whyNot(error), error },
        );
      },
    },
  );
  return {
    networks: () => reflector.store.list().flatMap(({ spec }) => spec.cidrs ?? []),
    async settled(longestMs, signal) {
      const timeUp = Promise.withResolvers<void>();
      const timer = clock.setTimer(longestMs, timeUp.resolve);
      try {
        await abandonOn(Promise.race([answered.promise, timeUp.promise]), signal);
      } finally {
        timer.cancel();
      }
    },
    run: (signal) => reflector.run(signal),
  };
}
