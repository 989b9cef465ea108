// Whether the proxy keeps up: an update that waits for more than a minute makes it unhealthy, in either IP family.
import type { Clock } from '../lib/clock.ts';
import type { Node } from '../kube/types/core.ts';
import type { IpFamily } from './addresses.ts';

/** Cluster Autoscaler's mark on a node that is about to go: load balancers shall leave it. */
const toBeDeletedTaint = 'ToBeDeletedByClusterAutoscaler';

/** Go's zero time. */
const never = '0001-01-01T00:00:00Z';

export interface FamilyHealth {
  readonly lastUpdated: string;
  readonly healthy: boolean;
}

/** As kube-proxy answers on /healthz and /livez. */
export interface HealthReport {
  readonly lastUpdated: string;
  readonly currentTime: string;
  readonly nodeEligible?: boolean;
  readonly healthy: boolean;
  /** Absent before anything was written. */
  readonly status?: Readonly<Partial<Record<IpFamily, FamilyHealth>>>;
}

export interface ProxyHealth {
  /** A change waits to be written. */
  queued(family: IpFamily): void;
  /** What waited is written; `pendingSinceMs` (monotonic): what came meanwhile, since then, is not. */
  updated(family: IpFamily, pendingSinceMs?: number): void;
  readonly healthy: boolean;
  /** /healthz says whether load balancers should send traffic here, /livez only whether the proxy works. */
  report(path: 'healthz' | 'livez'): HealthReport;
}

export interface ProxyHealthDeps {
  readonly clock: Clock;
  /** Undefined where there is no Node object. */
  node(): Node | undefined;
  /** An update may wait so long, in milliseconds. */
  timeoutMs(): number;
}

export function createProxyHealth(deps: ProxyHealthDeps): ProxyHealth {
  const { clock } = deps;
  const updatedAt = new Map<IpFamily, number>();
  const waitingSince = new Map<IpFamily, number>();
  const isLate = (family: IpFamily): boolean => {
    const since = waitingSince.get(family);
    return since !== undefined && clock.monotonicMs() - since >= deps.timeoutMs();
  };
  const isEligible = (): boolean => {
    const node = deps.node();
    if (!node || node.metadata.deletionTimestamp !== undefined) return false;
    return !(node.spec.taints ?? []).some(({ key }) => key === toBeDeletedTaint);
  };
  const healthy = (): boolean => ![...updatedAt.keys()].some(isLate);
  const text = (ms: number): string => new Date(ms).toISOString();
  return {
    queued(family) {
      if (!waitingSince.has(family)) waitingSince.set(family, clock.monotonicMs());
    },
    updated(family, pendingSinceMs) {
      if (pendingSinceMs === undefined) waitingSince.delete(family);
      else waitingSince.set(family, pendingSinceMs);
      updatedAt.set(family, clock.now());
    },
    get healthy() {
      return healthy();
    },
    report(path) {
      const nodeEligible = path === 'healthz' ? isEligible() : undefined;
      const isHealthy = healthy() && nodeEligible !== false;
      // kube-proxy once wrote the time of its last loop here; a healthy one says now, for those who compare.
      const last = isHealthy ? clock.now() : Math.max(...updatedAt.values());
      return {
        lastUpdated: last === Number.NEGATIVE_INFINITY ? never : text(last),
        currentTime: text(clock.now()),
        ...(nodeEligible === undefined ? {} : { nodeEligible }),
        healthy: healthy(),
        ...(updatedAt.size === 0
          ? {}
          : {
              status: Object.fromEntries(
                [...updatedAt].map(([family, at]) => [family, { lastUpdated: text(at), healthy: !isLate(family) }]),
              ),
            }),
      };
    },
  };
}
