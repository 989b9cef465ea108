// Which devices a container gets: those that init containers of its pod had, then those the plugin would rather give, then any. Pure.

export interface Choice {
  readonly count: number;
  /** Devices that init containers of the same pod have and no other container has. */
  readonly reusable: readonly string[];
  /** Healthy and free, in a stable order. */
  readonly available: readonly string[];
}

/** What is surely taken, and how many are still to be chosen among the available. */
export function firstChoice({ count, reusable }: Choice): {
  readonly taken: readonly string[];
  readonly missing: number;
} {
  const taken = reusable.slice(0, count);
  return { taken, missing: count - taken.length };
}

/** The whole choice, with the plugin's preference (which may name what is not free, or too few). */
export function choose(choice: Choice, preferred: readonly string[]): readonly string[] {
  const { taken, missing } = firstChoice(choice);
  const wanted = preferred.filter((device) => choice.available.includes(device) && !taken.includes(device));
  const others = choice.available.filter((device) => !taken.includes(device) && !wanted.includes(device));
  return [...taken, ...[...new Set(wanted), ...others].slice(0, missing)];
}
