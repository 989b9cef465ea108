// Where each endpoint stands in its service port's row of indexes. A change moves as few as can be. Pure.

/**
 * The row that holds exactly `wanted`, made from `before`: what stays keeps its index, the last ones move into holes, new ones come
 * last. Duplicates are dropped.
 */
export function arrange(before: readonly string[], wanted: readonly string[]): readonly string[] {
  const open = new Set(wanted);
  const row: (string | undefined)[] = before.map((endpoint) => (open.delete(endpoint) ? endpoint : undefined));
  const fresh = open.values();
  for (let at = 0; at < row.length; at++) {
    if (row[at] !== undefined) continue;
    const next = fresh.next();
    if (!next.done) {
      row[at] = next.value;
      continue;
    }
    while (row.length > at && row.at(-1) === undefined) row.pop();
    if (row.length > at) row[at] = row.pop();
  }
  for (const endpoint of fresh) row.push(endpoint);
  return row as string[];
}
