// The one authority on what the runtime has of each pod. Runtime events and our own operations are hints to inspect a pod again; a slow
// relist is the safety net. Nobody else lists or inspects.
import type {
  ContainerEvent,
  ContainerId,
  ContainerSummary,
  EndingEvent,
  RuntimeEvent,
  SandboxId,
  SandboxSummary,
} from '../../cri/types.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { nothingObserved, type ObservedContainer, type ObservedPod } from '../pods/observed.ts';
import { has, inOrder, saysMore, signatureOf } from './compare.ts';
import { type ContainerKey, createInspections, type InspectionsDeps } from './inspections.ts';

export interface ObserverDeps extends InspectionsDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** Something of the pod changed, or may have. */
  onChange(uid: string): void;
  /** What is known of the pod is what was seen now. After `onChange`, and also where nothing was heard: after what we did ourselves. */
  onSeen?(uid: string): void;
  /** A relist ended; undefined where it went well. */
  onRelist?(error: unknown, tookMs: number): void;
  /** Events of the runtime were lost; everything is listed. */
  onLost?(): void;
  /** Images may have changed; `told`: each change is told of from now on. */
  onImages?(told: boolean): void;
}

export interface ObserverOptions {
  /** How often everything is listed although nothing was heard. Default 60,000. */
  readonly relistMs?: number;
}

export interface Observer {
  /** What the runtime has of the pod; asks it only where something may have changed. Rejects with a RuntimeError. */
  observe(uid: string): Promise<ObservedPod>;
  /** What was seen last, without asking. */
  last(uid: string): ObservedPod;
  /** What is known of the pod may be wrong; with `touched`, of nothing but that. */
  invalidate(uid: string, touched?: Touched): void;
  /** We stop it: its end is our doing. */
  stopping(id: ContainerId): void;
  /** We have removed it. */
  drop(uid: string, id: ContainerId | SandboxId): void;
  forget(uid: string): void;
  /** Pods of which the runtime has something. */
  uids(): readonly string[];
  /** Lists everything once; the agent's start waits for the first. Rejects with a RuntimeError. */
  relist(): Promise<void>;
  run(signal: AbortSignal): Promise<void>;
}

/** The one thing in the runtime that an operation has made or changed. */
export type Touched =
  | { readonly sandbox: SandboxId }
  | { readonly container: ContainerId; readonly sandboxId: SandboxId };

interface Entry {
  observed: ObservedPod;
  dirty: boolean;
  /** By id, where not all is dirty. */
  readonly touched: Map<string, Touched>;
  signature: string;
}

/** How long a container that was said to have stopped may still be shown running before the hint is dropped. */
const earlyHintMs = 1_000;

/** How long the news that something was removed may wait, and that something was made: that is mostly a start of ours that goes on. */
const othersHintMs = 100;
const madeHintMs = 1_000;

export const podUidLabel = 'io.kubernetes.pod.uid';

export function createObserver(deps: ObserverDeps, options: ObserverOptions = {}): Observer {
  const { runtime, clock, log } = deps;
  const inspections = createInspections(deps);
  const entries = new Map<string, Entry>();
  const owners = new Map<string, string>();
  const hinted = new Map<string, { untilMs: number; delayMs: number }>();

  const unknow = (id: string): void => {
    owners.delete(id);
    hinted.delete(id);
    inspections.forget(id);
  };

  const entryOf = (uid: string): Entry => {
    const known = entries.get(uid);
    if (known) return known;
    const fresh: Entry = { observed: nothingObserved, dirty: false, touched: new Map(), signature: '' };
    entries.set(uid, fresh);
    return fresh;
  };

  const inspectContainer = async (
    uid: string,
    which: ContainerKey,
    before: ObservedPod,
  ): Promise<ObservedContainer | undefined> => {
    const seen = await inspections.container(uid, which, before);
    if (!seen) unknow(which.id);
    return seen;
  };

  // An event may come before the runtime's own state follows: look again soon, for a while.
  const chaseHints = (uid: string, observed: ObservedPod): void => {
    for (const container of observed.containers) {
      const hint = hinted.get(container.id);
      if (!hint) continue;
      if (container.state === 'exited' || clock.monotonicMs() >= hint.untilMs) {
        hinted.delete(container.id);
        continue;
      }
      hint.delayMs = Math.min(200, hint.delayMs * 2);
      touch(uid, { container: container.id, sandboxId: container.sandboxId });
      clock.setTimer(hint.delayMs, () => deps.onChange(uid));
    }
  };

  const touch = (uid: string, touched: Touched): void => {
    entryOf(uid).touched.set('sandbox' in touched ? touched.sandbox : touched.container, touched);
  };

  /** What was asked for is what is known now; the signature is that of a listing. */
  const take = (uid: string, entry: Entry, observed: ObservedPod, signature: string): ObservedPod => {
    for (const each of [...observed.sandboxes, ...observed.containers]) owners.set(each.id, uid);
    entry.observed = observed;
    entry.signature = signature;
    deps.onSeen?.(uid);
    chaseHints(uid, observed);
    return observed;
  };

  /** Asks for what was touched alone. What the runtime does not know any more is gone. */
  const inspectTouched = async (uid: string, entry: Entry, touched: readonly Touched[]): Promise<ObservedPod> => {
    const before = entry.observed;
    const sandboxIds = touched.flatMap((each) => ('sandbox' in each ? [each.sandbox] : []));
    const containerIds = touched.flatMap((each) =>
      'sandbox' in each ? [] : [{ id: each.container, sandboxId: each.sandboxId }],
    );
    const [sandboxes, containers] = await Promise.all([
      Promise.all(sandboxIds.map(inspections.sandbox)),
      Promise.all(containerIds.map((each) => inspectContainer(uid, each, before))),
      beginKills(uid, entry),
    ]);
    // What was dropped meanwhile stays so.
    const dropped = (id: string): boolean => has(before, id) && !has(entry.observed, id);
    const asked = new Set<string>([...sandboxIds, ...containerIds.map(({ id }) => id)]);
    const fresh = <T extends { readonly id: string }>(items: readonly (T | undefined)[]): T[] =>
      items.filter((each) => each !== undefined).filter((each) => !dropped(each.id));
    const observed = inOrder(
      [...entry.observed.sandboxes.filter(({ id }) => !asked.has(id)), ...fresh(sandboxes)],
      [...entry.observed.containers.filter(({ id }) => !asked.has(id)), ...fresh(containers)],
    );
    return take(uid, entry, observed, signatureOf(observed.sandboxes, observed.containers));
  };

  const inspectAll = async (uid: string, entry: Entry): Promise<ObservedPod> => {
    const [sandboxes, containers] = await Promise.all([
      runtime.listSandboxes({ podUid: uid }),
      runtime.listContainers({ podUid: uid }),
      beginKills(uid, entry),
    ]);
    const before = entry.observed;
    // What was told may be older than the list, and its state would never be asked for again.
    for (const { id } of containers) inspections.told(id, undefined);
    const [sandboxStatuses, inspected] = await Promise.all([
      Promise.all(sandboxes.map((each) => inspections.listedSandbox(each, before))),
      Promise.all(containers.map((each) => inspectContainer(uid, each, before))),
    ]);
    const observed = inOrder(
      sandboxStatuses.filter((each) => each !== undefined),
      inspected.filter((each) => each !== undefined),
    );
    return take(uid, entry, observed, signatureOf(sandboxes, containers));
  };

  const beginKills = (uid: string, { signature }: Entry): Promise<void> | undefined =>
    signature === '' ? deps.oomKills?.begin(uid) : undefined;

  const look = async (uid: string, entry: Entry): Promise<ObservedPod> => {
    const { dirty } = entry;
    const touched = [...entry.touched.values()];
    entry.dirty = false;
    entry.touched.clear();
    try {
      return await (dirty ? inspectAll(uid, entry) : inspectTouched(uid, entry, touched));
    } catch (error) {
      entry.dirty = true;
      throw error;
    }
  };

  const relist = async (): Promise<void> => {
    const begun = clock.monotonicMs();
    try {
      const [sandboxes, containers] = await Promise.all([runtime.listSandboxes(), runtime.listContainers()]);
      const groups = new Map<string, { sandboxes: SandboxSummary[]; containers: ContainerSummary[] }>();
      const groupOf = (uid: string) => {
        const group = groups.get(uid) ?? { sandboxes: [], containers: [] };
        groups.set(uid, group);
        return group;
      };
      for (const each of sandboxes)
        if (each.labels[podUidLabel]) groupOf(each.labels[podUidLabel]).sandboxes.push(each);
      for (const each of containers)
        if (each.labels[podUidLabel]) groupOf(each.labels[podUidLabel]).containers.push(each);
      for (const uid of new Set([...groups.keys(), ...entries.keys()])) {
        const group = groups.get(uid) ?? { sandboxes: [], containers: [] };
        const entry = entryOf(uid);
        if (entry.signature === signatureOf(group.sandboxes, group.containers)) continue;
        entry.dirty = true;
        deps.onChange(uid);
      }
      deps.onRelist?.(undefined, clock.monotonicMs() - begun);
    } catch (error) {
      deps.onRelist?.(error, clock.monotonicMs() - begun);
      throw error;
    }
  };

  /** What is known does not say already what the event says. */
  const isNews = (uid: string, event: ContainerEvent): boolean => {
    const entry = entries.get(uid);
    // The end of what a forgotten pod had: to look would only make it known again, for good.
    if (!entry) return event.kind !== 'stopped' && event.kind !== 'deleted';
    return entry.dirty || saysMore(entry.observed, event);
  };

  // What begins or goes is mostly our own doing, whose end is told in another way. Others' is seen a moment later.
  const lookSoon = (uid: string, event: ContainerEvent): void => {
    clock.setTimer(event.kind === 'deleted' ? othersHintMs : madeHintMs, () => {
      if (!isNews(uid, event)) return;
      entryOf(uid).dirty = true;
      deps.onChange(uid);
    });
  };

  /** Known to run: its process is gone, whatever the runtime still shows. */
  const hearEnding = ({ containerId, exitCode, finishedAtMs }: EndingEvent): void => {
    const uid = owners.get(containerId);
    const entry = uid === undefined ? undefined : entries.get(uid);
    if (uid === undefined || !entry) return;
    const ending = { exitCode, finishedAtMs };
    const { sandboxes, containers } = entry.observed;
    if (!containers.some(({ id, state }) => id === containerId && state === 'running')) return;
    inspections.ending(containerId, ending);
    entry.observed = {
      sandboxes,
      containers: containers.map((each) => (each.id === containerId ? { ...each, ending } : each)),
    };
    deps.onChange(uid);
  };

  const hear = async (event: RuntimeEvent): Promise<void> => {
    if (event.kind === 'lost') {
      deps.onLost?.();
      deps.onImages?.(false);
      await relist();
      return;
    }
    if (event.kind === 'images') {
      deps.onImages?.(event.told);
      return;
    }
    if (event.kind === 'ending') {
      hearEnding(event);
      return;
    }
    const uid = owners.get(event.containerId) ?? event.podUid ?? (event.sandboxId && owners.get(event.sandboxId));
    if (!uid || !isNews(uid, event)) return;
    if (event.kind !== 'stopped' && event.kind !== 'oom') {
      // Whoever has it started asks for it when that is done, a moment later.
      if (event.kind === 'started' && event.inspection?.state === 'running' && entries.has(uid))
        inspections.told(event.containerId, event.inspection);
      lookSoon(uid, event);
      return;
    }
    if (event.kind === 'oom') inspections.starved(event.containerId);
    if (event.kind === 'stopped')
      hinted.set(event.containerId, { untilMs: clock.monotonicMs() + earlyHintMs, delayMs: 5 });
    const entry = entryOf(uid);
    const known = entry.observed.containers.find(({ id }) => id === event.containerId);
    inspections.told(event.containerId, known && event.inspection?.state === 'exited' ? event.inspection : undefined);
    if (known) {
      touch(uid, { container: known.id, sandboxId: known.sandboxId });
    } else entry.dirty = true;
    deps.onChange(uid);
  };

  const listen = async (signal: AbortSignal): Promise<void> => {
    while (!signal.aborted) {
      try {
        for await (const event of runtime.events(signal)) await hear(event);
      } catch (error) {
        if (signal.aborted) return;
        log.warn('listening to the runtime failed; listening again in 1 s', { error });
        await clock.sleep(1_000, signal).catch(() => undefined);
      }
    }
  };

  const relistSlowly = async (signal: AbortSignal): Promise<void> => {
    while (!signal.aborted) {
      await clock.sleep(options.relistMs ?? 60_000, signal).catch(() => undefined);
      if (signal.aborted) return;
      await relist().catch((error: unknown) =>
        log.warn('listing the runtime’s sandboxes and containers failed', { error }),
      );
    }
  };

  return {
    observe: async (uid) => {
      const entry = entryOf(uid);
      return entry.dirty || entry.touched.size > 0 ? await look(uid, entry) : entry.observed;
    },
    last: (uid) => entries.get(uid)?.observed ?? nothingObserved,
    invalidate: (uid, touched) => {
      if (touched) touch(uid, touched);
      else entryOf(uid).dirty = true;
    },
    stopping: inspections.stopping,
    drop(uid, id) {
      unknow(id);
      const entry = entries.get(uid);
      if (!entry) return;
      entry.touched.delete(id);
      const { sandboxes, containers } = entry.observed;
      entry.observed = {
        sandboxes: sandboxes.filter((each) => each.id !== id),
        containers: containers.filter((each) => each.id !== id),
      };
      entry.signature = signatureOf(entry.observed.sandboxes, entry.observed.containers);
      deps.onSeen?.(uid);
    },
    forget: (uid) => {
      const entry = entries.get(uid);
      if (!entry) return;
      for (const each of [...entry.observed.sandboxes, ...entry.observed.containers]) unknow(each.id);
      entries.delete(uid);
      deps.onSeen?.(uid);
      deps.oomKills?.forget(uid);
    },
    uids: () =>
      [...entries]
        .filter(([, { dirty, touched, signature }]) => dirty || touched.size > 0 || signature !== '')
        .map(([uid]) => uid),
    relist,
    async run(signal) {
      await Promise.all([listen(signal), relistSlowly(signal)]);
    },
  };
}
