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
  /** Whether that process hears of changes yet: it reads all there is first. Undefined where this host does not say. */
  listens(pid: number): Promise<boolean | undefined>;
}

export interface NftMonitor {
  /** A process of ours: its transactions are not foreign. */
  noteOwn(pid: number): void;
  /** Between these calls so many transactions of ours are made; needed where process ids are those of another namespace. */
  ownBegins(transactions: number): void;
  ownEnds(): void;
  /**
   * Foreign changes that `interest` says something about: it is given each event's line, for example `delete rule ip nat KUBE-SERVICES
   * handle 3`, and returns what to say of it, or undefined. Where events may have been missed, that is said as a change too. Returns
   * what ends the watch.
   */
  watch(interest: (line: string) => string | undefined, onChange: (change: ForeignChange) => void): () => void;
  /** False while no monitor listens: then nothing is told. */
  readonly running: boolean;
  /** Resolves when a monitor listens, `ms` milliseconds later at the latest: what is read from the kernel afterwards cannot change unseen. */
  listening(ms: number, signal: AbortSignal): Promise<void>;
  /** Runs until the signal aborts; returns early where this host has no `nft`. */
  run(signal: AbortSignal): Promise<void>;
}

const generation = /^# new generation \d+ by process (\d+) /;
// How long after the end of a call its events may still come in, in milliseconds.
const lateMs = 300;
const rememberedPids = 256;
/** How often it is looked whether a monitor listens, and for how long where the host does not say, in milliseconds. */
const lookEveryMs = 10;
const unknownMs = 1_000;

interface Watcher {
  readonly interest: (line: string) => string | undefined;
  readonly onChange: (change: ForeignChange) => void;
  said: string | undefined;
  /** What was taken for our own by nothing but its time. */
  doubted: string | undefined;
}

export function createNftMonitor(deps: NftMonitorDeps): NftMonitor {
  const { clock, log } = deps;
  const [command, ...args] = deps.command ?? ['nft', 'monitor'];
  const own = new Set<number>();
  const watchers = new Set<Watcher>();
  const backoff: Backoff<string> = createBackoff({ initialMs: 100, maxMs: 30_000, resetAfterMs: 60_000 });
  let underWay = 0;
  let expected = 0;
  let lastEndMs = Number.NEGATIVE_INFINITY;
  let pidsMatch = false;
  let running = false;
  let gaveUp = false;
  const waiting: (() => void)[] = [];

  const isOurTime = (): boolean => underWay > 0 || clock.monotonicMs() - lastEndMs < lateMs;

  // In another PID namespace the kernel's numbers are not ours: go by time then, and take no more for ours than we made.
  const whoseIs = (pid: number): 'ours' | 'perhaps ours' | 'foreign' => {
    if (own.has(pid)) {
      pidsMatch = true;
      return 'ours';
    }
    if (pidsMatch || expected === 0 || !isOurTime()) return 'foreign';
    expected--;
    return 'perhaps ours';
  };

  const onLine = (line: string): void => {
    const by = generation.exec(line);
    if (!by) {
      for (const watcher of watchers) watcher.said ??= watcher.interest(line);
      return;
    }
    const whose = whoseIs(Number(by[1]));
    for (const watcher of watchers) {
      // One transaction too many: the foreign one may have been among those before.
      const foreign = watcher.said ?? (isOurTime() ? watcher.doubted : undefined);
      if (whose === 'foreign' && foreign !== undefined) watcher.onChange({ what: `${foreign} (${line.slice(2)})` });
      watcher.doubted = whose === 'perhaps ours' ? (watcher.said ?? watcher.doubted) : undefined;
      watcher.said = undefined;
    }
  };

  const awaitListening = async (pid: number, signal: AbortSignal): Promise<void> => {
    const startMs = clock.monotonicMs();
    while (!signal.aborted) {
      const listens = await deps.listens(pid);
      if (listens || (listens === undefined && clock.monotonicMs() - startMs >= unknownMs)) break;
      await clock.sleep(lookEveryMs, signal).catch(() => undefined);
    }
    if (signal.aborted) return;
    running = true;
    for (const go of waiting.splice(0)) go();
    for (const watcher of watchers)
      watcher.onChange({ what: 'nft monitor has only now begun to listen', routine: true });
  };

  return {
    noteOwn(pid) {
      own.add(pid);
      if (own.size > rememberedPids) own.delete(own.values().next().value!);
    },
    ownBegins(transactions) {
      if (!isOurTime()) expected = 0;
      underWay++;
      expected += transactions;
    },
    ownEnds() {
      underWay--;
      lastEndMs = clock.monotonicMs();
    },
    watch(interest, onChange) {
      const watcher: Watcher = { interest, onChange, said: undefined, doubted: undefined };
      watchers.add(watcher);
      return () => void watchers.delete(watcher);
    },
    get running() {
      return running;
    },
    async listening(ms, signal) {
      if (running || gaveUp) return;
      const waited = Promise.withResolvers<void>();
      waiting.push(waited.resolve);
      await Promise.race([waited.promise, clock.sleep(ms, signal)]);
    },
    async run(signal) {
      while (!signal.aborted) {
        const ended = new AbortController();
        const onSpawn = (pid: number): void => void awaitListening(pid, AbortSignal.any([signal, ended.signal]));
        try {
          for await (const line of deps.follow(command, args, { signal, onSpawn })) onLine(line);
        } catch (error) {
          running = false;
          ended.abort();
          for (const go of waiting.splice(0)) go();
          if (signal.aborted) return;
          if (error instanceof ExecError && error.code === 'not-found') {
            gaveUp = true;
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
        }
      }
      running = false;
    },
  };
}
