// The door of this room: the volumes of all pods on this node, from a PodSpec to paths on disk and mounts of containers.
//
//   setUp ─▶ every mounted volume side by side ─▶ up ─▶ mountsFor
//     ▲ wake (an object came)    │ fails             │ an object, the pod or a token changes: files are made anew
//     └──────────────────────────┘                   ▼
//   tearDown ◀── containers gone: by what is on disk and in the mount table, not by memory
import { podTarget } from '../../kube/events.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { Volume } from '../../kube/types/volume.ts';
import { abandonOn, CancelledError } from '../../lib/abort.ts';
import { createBackoff } from '../../lib/backoff.ts';
import type { Timer } from '../../lib/clock.ts';
import { containerMounts } from './container-mounts.ts';
import { createCsiDrivers } from './csi/csi-drivers.ts';
import { createCsiNodeRecord } from './csi/csi-node.ts';
import { createCsiVolumes } from './csi/csi-volumes.ts';
import { readSELinux } from './csi/selinux-context.ts';
import type { PodVolumes } from './door.ts';
import { createHeldFolders } from './held-folders.ts';
import { pluginNameOf, setUpVolume } from './drivers.ts';
import { isBlock, mountedVolumes, signatureOf, uidOf } from './pod-view.ts';
import { createMounter } from './mounter.ts';
import { hasObjectFiles, showsPod, usesObject } from './object-files.ts';
import { isSafeName, volumePaths } from './paths.ts';
import { namesIn } from './remove-tree.ts';
import { createPodCertificates } from './pod-certificates.ts';
import { createServiceAccountTokens } from './service-account-tokens.ts';
import { tearDownPod } from './tear-down.ts';
import { type MountedVolume, NotYetError, type VolumeDeps, type VolumeHost } from './volume-driver.ts';
import { setUpFailed, VolumeError } from './volume-error.ts';
import { createVolumeStats } from './volume-stats.ts';

export { VolumeError, type VolumeErrorReason } from './volume-error.ts';

export type { ContainerMounts, PodVolumes, VolumeMountStatus, VolumeStats } from './door.ts';
export type PodVolumesDeps = VolumeDeps;

export interface PodVolumesOptions {
  /** As a rule /var/lib/kubelet. */
  readonly rootDir: string;
  readonly nodeName: string;
  /**
   * What a pod shows may go a moment before the pod does, with their namespace: that a volume could not be refreshed is told only when it
   * has lasted this long, and once. Default 30 s.
   */
  readonly refreshPatienceMs?: number;
}

interface PodState {
  readonly uid: string;
  pod: Pod;
  /** Of the pod that `volumes` show. */
  signature: string;
  readonly volumes: Map<string, MountedVolume>;
  /** The signature of the pod that each volume in `volumes` shows. */
  readonly shown: Map<string, string>;
  /** PersistentVolumes behind volumes, also of those that are not up. */
  readonly pvNames: Map<string, string>;
  readonly refreshTimers: Map<string, Timer>;
  /** Volumes being made anew, and whether they must be once more. */
  readonly refreshing: Map<string, { again: boolean }>;
  /** Why volumes could not be refreshed, by name, and what was told of it. */
  readonly stale: Map<string, { readonly sinceMs: number; readonly told: string | undefined }>;
  /** The last work on each volume: one at a time. */
  readonly busy: Map<string, Promise<void>>;
  /** Volumes being worked on, since when on the monotonic clock. */
  readonly active: Map<string, number>;
  /** Ends all that goes on for the pod when it is taken down. */
  readonly ending: AbortController;
  pollTimer: Timer | undefined;
}

const refreshRetryMs = 10_000;
const patienceMs = 10_000;

export function createPodVolumes(deps: PodVolumesDeps, options: PodVolumesOptions): PodVolumes {
  const { refreshPatienceMs = 30_000 } = options;
  const { clock, log } = deps;
  const states = new Map<string, PodState>();
  let selinux: ReturnType<typeof readSELinux> | undefined;
  const csiNode = createCsiNodeRecord(deps.client, options.nodeName);
  const host: VolumeHost = {
    ...deps,
    nodeName: options.nodeName,
    paths: volumePaths(options.rootDir),
    mounter: deps.mounter ?? createMounter(),
    selinux: deps.selinux ?? (() => (selinux ??= readSELinux())),
    tokens: createServiceAccountTokens(deps),
    certificates: createPodCertificates({
      ...deps,
      node() {
        const uid = deps.node()?.metadata.uid;
        return uid === undefined ? undefined : { name: options.nodeName, uid };
      },
      changed(uid, name) {
        const state = states.get(uid);
        const volume = state?.pod.spec.volumes?.find((each) => each.name === name);
        if (state && volume && state.volumes.has(name)) refresh(state, volume);
        else deps.wake(uid);
      },
    }),
    csi: createCsiVolumes({
      host: () => host,
      record: csiNode,
      drivers: createCsiDrivers({ ...deps, record: csiNode }),
      pluginHandlers: deps.pluginHandlers ?? {},
      inUseChanged: () => deps.volumesInUseChanged?.(),
    }),
    mountedElsewhere: (pvName, uid) =>
      [...states.values()].some(
        (state) => state.uid !== uid && [...state.volumes.values()].some((volume) => volume.pvName === pvName),
      ),
    faultPoint: async (name) => deps.faultPoint?.(name),
  };
  const turns = new Map<string, Promise<unknown>>();
  const polls = createBackoff({ initialMs: 300, maxMs: 5_000 });
  const stats = createVolumeStats(host);
  const heldFolders = createHeldFolders(host);
  let stopped = false;

  // One set-up or tear-down at a time for each pod.
  const inTurn = <T>(uid: string, work: () => Promise<T>): Promise<T> => {
    const before = turns.get(uid) ?? Promise.resolve();
    const mine = before.then(work, work);
    const settled = mine.catch(() => undefined);
    turns.set(uid, settled);
    void settled.then(() => turns.get(uid) === settled && turns.delete(uid));
    return mine;
  };

  const stateOf = (uid: string, pod: Pod): PodState => {
    const known = states.get(uid);
    if (known) return known;
    const state: PodState = {
      uid,
      pod,
      signature: '',
      volumes: new Map(),
      shown: new Map(),
      pvNames: new Map(),
      refreshTimers: new Map(),
      refreshing: new Map(),
      stale: new Map(),
      busy: new Map(),
      active: new Map(),
      ending: new AbortController(),
      pollTimer: undefined,
    };
    states.set(uid, state);
    return state;
  };

  const schedule = (state: PodState, volume: Volume, atMs: number | undefined): void => {
    state.refreshTimers.get(volume.name)?.cancel();
    state.refreshTimers.delete(volume.name);
    if (atMs === undefined || stopped) return;
    // A little late rather than early: a timer that fires too soon would find nothing due.
    const waitMs = Math.max(100, atMs - clock.now() + 20);
    const fire = (): void => refresh(state, volume);
    state.refreshTimers.set(volume.name, clock.setTimer(waitMs, fire));
  };

  const setUpOne = (state: PodState, volume: Volume, signal: AbortSignal): Promise<void> => {
    const before = state.busy.get(volume.name) ?? Promise.resolve();
    const mine = before.then(async () => {
      signal.throwIfAborted();
      const begunMs = clock.monotonicMs();
      const signature = signatureOf(state.pod);
      state.active.set(volume.name, begunMs);
      const told = (up: MountedVolume | undefined, error: unknown): void =>
        deps.operated?.(
          isBlock(state.pod, volume.name) ? 'map_volume' : 'volume_mount',
          pluginNameOf(volume, up),
          clock.monotonicMs() - begunMs,
          error,
        );
      const mounted = await setUpVolume(host, {
        pod: state.pod,
        uid: state.uid,
        volume,
        mounted: state.volumes.get(volume.name),
        named: (pvName) => void state.pvNames.set(volume.name, pvName),
        signal,
      })
        .catch((error: unknown) => {
          // What is only waited for was not tried.
          if (!signal.aborted && !(error instanceof NotYetError))
            told(state.volumes.get(volume.name), error ?? new Error('failed'));
          throw error;
        })
        .finally(() => state.active.delete(volume.name));
      told(mounted, undefined);
      state.volumes.set(volume.name, mounted);
      state.shown.set(volume.name, signature);
      state.stale.delete(volume.name);
      schedule(state, volume, mounted.refreshAtMs);
    });
    const settled = mine.catch(() => undefined);
    state.busy.set(volume.name, settled);
    return mine;
  };

  // The content of a volume that is up changed: written anew at once, one run at a time. A failure leaves the old content.
  const refresh = (state: PodState, volume: Volume): void => {
    const running = state.refreshing.get(volume.name);
    if (running) {
      running.again = true;
      return;
    }
    const run = { again: false };
    state.refreshing.set(volume.name, run);
    const { signal } = state.ending;
    const work = async (): Promise<void> => {
      do {
        run.again = false;
        await setUpOne(state, volume, signal);
      } while (run.again && !signal.aborted);
    };
    void work()
      .catch((error: unknown) => {
        if (signal.aborted) return;
        const failure = failureOf(state, volume, error);
        const known = state.stale.get(volume.name) ?? { sinceMs: clock.monotonicMs(), told: undefined };
        const lasts = clock.monotonicMs() - known.sinceMs >= refreshPatienceMs && !deps.ending?.(state.uid);
        const telling = lasts && known.told !== failure.message;
        log[telling ? 'warn' : 'debug']('a volume could not be refreshed; its files stay as they are', {
          pod: `${state.pod.metadata.namespace}/${state.pod.metadata.name}`,
          volume: volume.name,
          error,
        });
        if (telling) deps.events?.record(podTarget(state.pod), 'Warning', failure.reason, failure.message);
        state.stale.set(volume.name, telling ? { ...known, told: failure.message } : known);
        schedule(state, volume, clock.now() + Math.min(refreshRetryMs, refreshPatienceMs));
      })
      .finally(() => state.refreshing.delete(volume.name));
  };

  const unsubscribe = deps.objects.subscribe((holder, resource, name) => {
    const state = states.get(holder);
    if (!state) return;
    const users = mountedVolumes(state.pod).filter((volume) => usesObject(volume, resource, name.name));
    if (users.length === 0) return;
    for (const volume of users) if (state.volumes.has(volume.name)) refresh(state, volume);
    if (users.some((volume) => !state.volumes.has(volume.name))) deps.wake(holder);
  });

  const wakeLater = (state: PodState): void => {
    if (state.pollTimer || stopped) return;
    state.pollTimer = clock.setTimer(polls.next(state.uid, clock.now()), () => {
      state.pollTimer = undefined;
      deps.wake(state.uid);
    });
  };

  const failureOf = (state: PodState, volume: Volume, error: unknown): VolumeError => {
    const waiting = error instanceof NotYetError;
    if (waiting && error.polled) wakeLater(state);
    if (waiting && error.reason !== 'FailedMount')
      return new VolumeError(error.reason, volume.name, error.message, true, error);
    const shown = state.pvNames.get(volume.name) ?? volume.name;
    return setUpFailed(volume.name, error, { waiting, shown, block: isBlock(state.pod, volume.name) });
  };

  const setUp = async (pod: Pod, signal: AbortSignal): Promise<void> => {
    const uid = uidOf(pod);
    const state = stateOf(uid, pod);
    const both = AbortSignal.any([signal, state.ending.signal]);
    const signature = signatureOf(pod);
    state.pod = pod;
    const wanted = mountedVolumes(pod);
    const todo = wanted.filter((volume) => {
      if (!state.volumes.has(volume.name)) return true;
      // What of an object changed was written when it did: only what shows the pod is to follow it.
      return state.shown.get(volume.name) !== signature && hasObjectFiles(volume) && showsPod(volume);
    });
    // A call that hangs in the kernel heeds no signal: the pod is let go all the same, and the call is left to end by itself.
    const results = await abandonOn(Promise.allSettled(todo.map((volume) => setUpOne(state, volume, both))), both);
    const failures: VolumeError[] = [];
    for (const [index, result] of results.entries())
      if (result.status === 'rejected') failures.push(failureOf(state, todo[index]!, result.reason));
    if (failures.length === 0) {
      state.signature = signature;
      polls.reset(uid);
      return;
    }
    // What was tried and failed tells more than what is waited for.
    const worst = failures.find((failure) => !failure.waiting) ?? failures[0]!;
    for (const other of failures)
      if (other !== worst) deps.events?.record(podTarget(pod), 'Warning', other.reason, other.message);
    throw worst;
  };

  // Work that was cancelled ends in a moment; what hangs in the kernel is not waited for.
  const settled = async (uid: string, signal: AbortSignal): Promise<void> => {
    const work = [...(states.get(uid)?.busy.values() ?? [])];
    if (work.length === 0) return;
    const enough = new AbortController();
    const patience = clock.sleep(patienceMs, AbortSignal.any([signal, enough.signal])).catch(() => undefined);
    await Promise.race([Promise.all(work), patience]);
    enough.abort();
    signal.throwIfAborted();
  };

  const forget = (uid: string): void => {
    const state = states.get(uid);
    if (!state) return;
    state.ending.abort(new CancelledError('the pod is taken down'));
    for (const timer of state.refreshTimers.values()) timer.cancel();
    state.pollTimer?.cancel();
    polls.reset(uid);
    host.certificates.forget(uid);
  };

  return {
    setUp: (pod, signal) => inTurn(uidOf(pod), () => setUp(pod, signal)),
    isUp(pod) {
      const state = states.get(uidOf(pod));
      return state !== undefined && !state.ending.signal.aborted && state.signature === signatureOf(pod);
    },
    waitingFor: (pod) =>
      [...(states.get(uidOf(pod))?.active ?? [])].map(([volume, sinceMs]) => {
        const seconds = Math.round((clock.monotonicMs() - sinceMs) / 1000);
        return `volume "${volume}" is being set up for ${seconds} s`;
      }),
    async mountsFor(pod, container, env, signal) {
      const uid = uidOf(pod);
      const volumes = states.get(uid)?.volumes ?? new Map<string, MountedVolume>();
      return await containerMounts(host, { pod, uid, container, env, volumes, signal });
    },
    supplementalGroups: (pod) => [
      ...new Set(
        [...(states.get(uidOf(pod))?.volumes.values() ?? [])].flatMap(({ gid }) => (gid === undefined ? [] : [gid])),
      ),
    ],
    async tearDown(uid, signal) {
      if (!isSafeName(uid)) throw new VolumeError('FailedUnmount', '', `"${uid}" is not the uid of a pod`);
      forget(uid);
      await inTurn(uid, async () => {
        await settled(uid, signal);
        const held = await abandonOn(tearDownPod(host, uid, signal), signal);
        await heldFolders.note(uid, held);
        states.delete(uid);
        stats.forget(uid);
        host.csi.forgetPod(uid);
        host.tokens.forget(uid);
        deps.objects.release(uid);
      });
    },
    known: async () => heldFolders.without((await namesIn(host.paths.pods)).filter(isSafeName)),
    held: (uid) => heldFolders.of(uid),
    volumesInUse: () => host.csi.inUse().sort(),
    counts() {
      const alive = [...states.values()].filter(({ ending }) => !ending.signal.aborted);
      return {
        desired: alive.flatMap(({ pod, volumes }) =>
          mountedVolumes(pod).map((volume) => pluginNameOf(volume, volumes.get(volume.name))),
        ),
        actual: [...states.values()].flatMap(({ pod, volumes }) =>
          [...volumes].map(([name, up]) =>
            pluginNameOf(pod.spec.volumes?.find((volume) => volume.name === name) ?? { name }, up),
          ),
        ),
      };
    },
    stats: (pod) => stats.of(uidOf(pod), states.get(uidOf(pod))?.volumes ?? new Map()),
    async run(signal) {
      await host.csi.run(signal);
      stopped = true;
      unsubscribe();
      for (const uid of states.keys()) forget(uid);
    },
  };
}
