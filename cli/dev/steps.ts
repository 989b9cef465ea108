// Progress for people at a terminal: one line for each step, with how long it took.
import type { Clock } from '../../lib/clock.ts';

export interface Steps {
  /** Does the work of a step; what it returns in `said` is shown behind the title. */
  run<T extends { readonly said?: string } | undefined>(
    title: string,
    work: (progress: (text: string) => void) => Promise<T>,
  ): Promise<T>;
  line(text: string): void;
}

export interface StepsDeps {
  readonly clock: Clock;
  readonly total: number;
  write(text: string): void;
  /** Whether a line may be written over. */
  readonly terminal: boolean;
}

export function createSteps({ clock, total, write, terminal }: StepsDeps): Steps {
  let count = 0;
  return {
    line: (text) => write(`${text}\n`),
    async run(title, work) {
      count += 1;
      const label = `[${count}/${total}] ${title}`;
      const startedMs = clock.monotonicMs();
      const over = terminal ? '\r\u001b[K' : '';
      if (terminal) write(`${label} …`);
      let shown = '';
      try {
        const result = await work((text) => {
          if (text === shown) return;
          shown = text;
          write(terminal ? `${over}${label}: ${text} …` : `${label}: ${text}\n`);
        });
        const seconds = ((clock.monotonicMs() - startedMs) / 1000).toFixed(1);
        write(`${over}${label}${result?.said ? `: ${result.said}` : ''} (${seconds} s)\n`);
        return result;
      } catch (error) {
        write(`${over}${label}: failed\n`);
        throw error;
      }
    },
  };
}
