// How long the event loop was held up at a stretch: by the clock, and by our own computing. On a machine that others use too only the second
// says something of the program.
import { monitorEventLoopDelay } from 'node:perf_hooks';

export interface LoopWatch {
  /** The longest stretches since the last call, in milliseconds. */
  take(): { readonly wallMs: number; readonly cpuMs: number };
  stop(): void;
}

const cpuMs = (): number => {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1000;
};

export function watchLoop(): LoopWatch {
  const delay = monitorEventLoopDelay({ resolution: 5 });
  delay.enable();
  let last = cpuMs();
  let longest = 0;
  let timer: NodeJS.Timeout;
  const tick = (): void => {
    const now = cpuMs();
    longest = Math.max(longest, now - last);
    last = now;
    timer = setTimeout(tick, 1);
  };
  tick();
  return {
    take() {
      const found = { wallMs: delay.max / 1e6, cpuMs: longest };
      delay.reset();
      longest = 0;
      last = cpuMs();
      return found;
    },
    stop() {
      delay.disable();
      clearTimeout(timer);
    },
  };
}
