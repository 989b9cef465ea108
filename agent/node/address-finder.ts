// The node's own addresses, found again with each status; its name is looked up more rarely.
import type { NodeAddress } from '../../kube/types/core.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { computeAddresses, readAddressFacts } from './addresses.ts';

export interface AddressFinderDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Default: by flag, name and default route. */
  readonly addresses?: ((present: readonly NodeAddress[]) => Promise<readonly NodeAddress[]>) | undefined;
}

export interface AddressFinderOptions {
  readonly hostname: string;
  /** From the flag `--node-ip`. */
  readonly nodeIps: readonly string[];
  readonly externalCloudProvider: boolean;
}

export interface AddressFinder {
  /** `present` are those that the Node shows. Never rejects: what is wrong is in `error`, and told once. */
  find(present: readonly NodeAddress[]): Promise<void>;
  /** Those found last; undefined before the first. */
  found(): readonly NodeAddress[] | undefined;
  /** Why none is known: the last try found none, and none was known before. What was known stays, as with the kubelet. */
  error(): string | undefined;
}

const resolveEveryMs = 300_000;

export function createAddressFinder(deps: AddressFinderDeps, options: AddressFinderOptions): AddressFinder {
  const { clock, log } = deps;
  const { hostname, nodeIps } = options;
  let found: readonly NodeAddress[] | undefined;
  let failure: string | undefined;
  let resolvedAtMs: number | undefined;
  let shown = false;

  return {
    async find(present) {
      shown ||= present.length > 0;
      try {
        if (deps.addresses) found = await deps.addresses(present);
        else {
          const resolve =
            nodeIps.length === 0 && (resolvedAtMs === undefined || clock.monotonicMs() - resolvedAtMs > resolveEveryMs);
          if (resolve) resolvedAtMs = clock.monotonicMs();
          // Between look-ups the name's addresses are those that were found.
          const facts = await readAddressFacts(hostname, resolve, nodeIps);
          const resolved = resolve ? facts.resolved : (found ?? []).map(({ address }) => address);
          found = computeAddresses(options, { ...facts, resolved }, present);
        }
        failure = undefined;
      } catch (error) {
        const text = error instanceof Error ? error.message : String(error);
        if (text !== failure)
          log.warn(
            found !== undefined || shown
              ? 'the addresses of the node cannot be found out; those it shows stay, and they are looked for again with each status'
              : 'the node has no address and is not Ready; one is looked for again with each status',
            { error: text },
          );
        failure = text;
        resolvedAtMs = undefined;
      }
    },
    found: () => found,
    error: () => (found === undefined && !shown ? failure : undefined),
  };
}
