// One long-lived `nft monitor` tells of every transaction of nf_tables (that of iptables-nft too) and who made it. From it others learn of
// changes to their rules that did not come from this process.
import type { Backoff } from '../lib/backoff.ts';
import { createBackoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import { ExecError } from '../lib/exec.ts';
import type { followLines } from '../lib/follow.ts';
import type { Log } from '../lib/log.ts';
import type { ForeignChange } from './backend.ts';

export interface NftMonitorDeps {
  readonly clock: Clock;
  readonly log: Log;
  readonly follow: typeof followLines;
  /** Default: `nft`, `monitor`; tests enter a network namespace first. */
  readonly command?: readonly [string, ...string[]];
}

export interface NftMonitor {
  /** A process of ours: its transactions are not foreign. */
  noteOwn(pid: number): void;
  /** Between these calls a transaction of ours may be under way; needed where process ids are those of another namespace. */
  ownBegins(): void;
  ownEnds(): void;
  /**
   * Foreign changes that `interest` says something about: it is given each event's line, for example `delete rule ip nat KUBE-SERVICES
   * handle 3`, and returns what to say of it, or undefined. Where events may have been missed, that is said as a change too. Returns
   * what ends the watch.
   */
  watch(interest: (line: string) => string | undefined, onChange: (change: ForeignChange) => void): () => void;
  /** False while no monitor runs: then nothing is told. */
  readonly running: boolean;
  /** Runs until the signal aborts; returns early where this host has no `nft`. */
  run(signal: AbortSignal): Promise<void>;
}

const generation = /^# new generation \d+ by process (\d+) /;
// How long after the end of a call its events may still come in, in milliseconds.
const lateMs = 300;
const rememberedPids = 256;

interface Watcher {
  readonly interest: (line: string) => string | undefined;
  readonly onChange: (change: ForeignChange) => void;
  said: string | undefined;
}

export function createNftMonitor(deps: NftMonitorDeps): NftMonitor {
  const { clock, log } = deps;
  const [command, ...args] = deps.command ?? ['nft', 'monitor'];
  const own = new Set<number>();
  const watchers = new Set<Watcher>();
  const backoff: Backoff<string> = createBackoff({ initialMs: 100, maxMs: 30_000, resetAfterMs: 60_000 });
  let underWay = 0;
  let lastEndMs = Number.NEGATIVE_INFINITY;
  let pidsMatch = false;
  let running = false;

  const isOwn = (pid: number): boolean => {
    if (own.has(pid)) {
      pidsMatch = true;
      return true;
    }
    // In another PID namespace the kernel's numbers are not ours: go by time then.
    return !pidsMatch && (underWay > 0 || clock.monotonicMs() - lastEndMs < lateMs);
  };

  const onLine = (line: string): void => {
    const by = generation.exec(line);
    if (!by) {
      for (const watcher of watchers) watcher.said ??= watcher.interest(line);
      return;
    }
    const mine = isOwn(Number(by[1]));
    for (const watcher of watchers) {
      if (watcher.said !== undefined && !mine) watcher.onChange({ what: `${watcher.said} (${line.slice(2)})` });
      watcher.said = undefined;
    }
  };

  return {
    noteOwn(pid) {
      own.add(pid);
      if (own.size > rememberedPids) own.delete(own.values().next().value!);
    },
    ownBegins: () => void underWay++,
    ownEnds() {
      underWay--;
      lastEndMs = clock.monotonicMs();
    },
    watch(interest, onChange) {
      const watcher: Watcher = { interest, onChange, said: undefined };
      watchers.add(watcher);
      return () => void watchers.delete(watcher);
    },
    get running() {
      return running;
    },
    async run(signal) {
      while (!signal.aborted) {
        try {
          running = true;
          for await (const line of deps.follow(command, args, { signal })) onLine(line);
        } catch (error) {
          running = false;
          if (signal.aborted) return;
          if (error instanceof ExecError && error.code === 'not-found') {
            log.warn(
              'there is no nft on this host: changes that others make to our rules are looked for every few seconds',
              {
                error,
              },
            );
            return;
          }
          const delayMs = backoff.next('monitor', clock.monotonicMs());
          log.debug('nft monitor ended; it is started again', { error, inMs: delayMs });
          await clock.sleep(delayMs, signal).catch(() => undefined);
          for (const watcher of watchers) watcher.onChange({ what: 'nft monitor ended; events may have been missed' });
        }
      }
      running = false;
    },
  };
}
