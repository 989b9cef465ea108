// How busy this process is: what waited for the event loop cannot be blamed on whom it waited for.
import { performance } from 'node:perf_hooks';

let readAt = Number.NEGATIVE_INFINITY;
let known = 0;
/** In milliseconds. Many ask in the same moment, and each reading makes an object. */
const staleMs = 5;

/** Milliseconds for which the event loop has been at work, and not waiting, since the process began; up to 5 ms old. Only differences mean anything. */
export function eventLoopBusyMs(): number {
  const now = performance.now();
  if (now - readAt > staleMs) {
    known = performance.eventLoopUtilization().active;
    readAt = now;
  }
  return known;
}
