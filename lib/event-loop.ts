// How busy this process is: what waited for the event loop cannot be blamed on whom it waited for.
import { performance } from 'node:perf_hooks';

/** Milliseconds for which the event loop has been at work, and not waiting, since the process began. Only differences mean anything. */
export const eventLoopBusyMs = (): number => performance.eventLoopUtilization().active;
