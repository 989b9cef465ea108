// Finds the service ports that a backend refuses, and writes all others.
import { type Changes, isRejected, type NetfilterError } from './backend.ts';
import type { ServicePortKey } from './model.ts';

export interface BisectDeps {
  apply(part: Changes, signal: AbortSignal): Promise<void>;
  /** This service port alone is refused. */
  refuse(key: ServicePortKey, error: NetfilterError): void;
}

/** Halves what was refused until single service ports are left. Rejects where a write fails for another reason, or names none. */
export async function bisectRefused(
  deps: BisectDeps,
  part: Changes,
  error: NetfilterError,
  signal: AbortSignal,
): Promise<void> {
  const keys = [...part.removals, ...part.upserts.map((after) => after.port.key)];
  // No service port is at fault: what all of them need is refused.
  if (keys.length === 0) throw error;
  if (keys.length === 1) {
    deps.refuse(keys[0]!, error);
    return;
  }
  const half = Math.ceil(keys.length / 2);
  for (const chosen of [new Set(keys.slice(0, half)), new Set(keys.slice(half))]) {
    const next: Changes = {
      upserts: part.upserts.filter((after) => chosen.has(after.port.key)),
      removals: part.removals.filter((key) => chosen.has(key)),
    };
    try {
      await deps.apply(next, signal);
    } catch (again) {
      if (!isRejected(again)) throw again;
      await bisectRefused(deps, next, again, signal);
    }
  }
}
