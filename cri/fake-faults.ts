// Faults that tests inject into the fake runtime's calls, and the record of the calls. Pure but for the clock it is handed.
import type { Clock } from '../lib/clock.ts';
import { RuntimeError, type RuntimeErrorCode } from './errors.ts';
import type { CallOptions, Runtime } from './runtime.ts';

export type RuntimeCall = Exclude<keyof Runtime, 'events' | 'close'>;

export interface Fault {
  /**
   * `fail` rejects; `hang` never answers, so that the call ends by its timeout or its signal; `late` answers after `ms`.
   */
  readonly mode: 'fail' | 'hang' | 'late';
  /** Whether the call has its effect nonetheless: what a connection lost before the answer looks like. Default: only for `late`. */
  readonly applied?: boolean;
  /** Of `late`. Default 1,000. */
  readonly ms?: number;
  /** Of `fail`. Default `unavailable`. */
  readonly code?: RuntimeErrorCode;
  readonly detail?: string;
  /** How many calls it meets. Default 1; Infinity until cleared. */
  readonly times?: number;
  /** Only calls on this subject: an id, an image, or a container's or sandbox's name. */
  readonly on?: string;
}

export interface RecordedCall {
  readonly call: RuntimeCall;
  /** Id, image or name that the call is about; empty where there is none. */
  readonly subject: string;
  readonly atMs: number;
  outcome: 'running' | 'done' | RuntimeErrorCode;
}

export interface Faults {
  inject(call: RuntimeCall | '*', fault: Fault): void;
  clear(): void;
  readonly calls: RecordedCall[];
  /** Runs `apply` as one call, with the faults that meet it. */
  run<T>(
    call: RuntimeCall,
    subject: string,
    options: CallOptions | undefined,
    timeoutMs: number,
    apply: Apply<T>,
  ): Promise<T>;
}

type Apply<T> = (signal: AbortSignal) => T | Promise<T>;

export function createFaults(clock: Clock): Faults {
  let waiting: { call: RuntimeCall | '*'; fault: Fault; left: number }[] = [];
  const calls: RecordedCall[] = [];

  const take = (call: RuntimeCall, subject: string): Fault | undefined => {
    const entry = waiting.find(
      (candidate) =>
        (candidate.call === call || candidate.call === '*') &&
        (candidate.fault.on === undefined || candidate.fault.on === subject),
    );
    if (!entry) return undefined;
    entry.left--;
    if (entry.left <= 0) waiting = waiting.filter((candidate) => candidate !== entry);
    return entry.fault;
  };

  async function faulty<T>(call: RuntimeCall, fault: Fault, signal: AbortSignal, apply: Apply<T>): Promise<T> {
    const applied = fault.applied ?? fault.mode === 'late';
    if (fault.mode === 'late') {
      if (applied) {
        const value = await apply(signal);
        await clock.sleep(fault.ms ?? 1_000, signal);
        return value;
      }
      await clock.sleep(fault.ms ?? 1_000, signal);
      return apply(signal);
    }
    if (applied) await apply(signal);
    if (fault.mode === 'fail')
      throw new RuntimeError(
        fault.code ?? 'unavailable',
        call,
        fault.detail ?? 'the connection to the runtime is gone',
      );
    return new Promise<T>((_, reject) => signal.addEventListener('abort', () => reject(signal.reason), { once: true }));
  }

  return {
    inject(call, fault) {
      waiting.push({ call, fault, left: fault.times ?? 1 });
    },
    clear() {
      waiting = [];
    },
    calls,
    async run<T>(
      call: RuntimeCall,
      subject: string,
      options: CallOptions | undefined,
      timeoutMs: number,
      apply: Apply<T>,
    ) {
      const record: RecordedCall = { call, subject, atMs: clock.now(), outcome: 'running' };
      calls.push(record);
      const controller = new AbortController();
      const limitMs = options?.timeoutMs ?? timeoutMs;
      const timer =
        limitMs > 0
          ? clock.setTimer(limitMs, () =>
              controller.abort(new RuntimeError('deadline', call, `no answer within ${limitMs} ms`)),
            )
          : undefined;
      const parent = options?.signal;
      const onAbort = (): void => controller.abort(new RuntimeError('aborted', call, 'cancelled', parent?.reason));
      parent?.addEventListener('abort', onAbort, { once: true });
      try {
        // A call is never answered in the turn that made it.
        await Promise.resolve();
        if (parent?.aborted) throw new RuntimeError('aborted', call, 'not called: cancelled', parent.reason);
        const fault = take(call, subject);
        const work = fault ? faulty(call, fault, controller.signal, apply) : Promise.resolve(apply(controller.signal));
        const value = await new Promise<T>((resolve, reject) => {
          controller.signal.addEventListener('abort', () => reject(controller.signal.reason), { once: true });
          work.then(resolve, reject);
        });
        record.outcome = 'done';
        return value;
      } catch (error) {
        const classed = error instanceof RuntimeError ? error : new RuntimeError('unknown', call, String(error), error);
        record.outcome = classed.code;
        throw classed;
      } finally {
        timer?.cancel();
        parent?.removeEventListener('abort', onAbort);
      }
    },
  };
}
