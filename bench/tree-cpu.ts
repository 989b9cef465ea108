// The processor time that this process and all it started have used: on a machine that others use too, a better measure than the clock.
import { readdirSync, readFileSync } from 'node:fs';

const tickMs = 10;

/** In milliseconds, of this process and its descendants, those that ended and were waited for too; to 10 ms. */
export function treeCpuMs(): number {
  const children = new Map<number, number[]>();
  const used = new Map<number, number>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const text = readFileSync(`/proc/${name}/stat`, 'utf8');
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
      const [parent, ...times] = [fields[1], fields[11], fields[12], fields[13], fields[14]].map(Number);
      used.set(
        Number(name),
        times.reduce((sum, ticks) => sum + ticks, 0),
      );
      const siblings = children.get(parent!);
      if (siblings) siblings.push(Number(name));
      else children.set(parent!, [Number(name)]);
    } catch {
      // It has ended meanwhile.
    }
  }
  const sum = (pid: number): number =>
    (children.get(pid) ?? []).reduce((total, child) => total + sum(child), used.get(pid) ?? 0);
  return sum(process.pid) * tickMs;
}
