// Writes pods' statuses to the API: one patch in flight for each pod, the newest status next, the answer is the next base.
import { isDeepStrictEqual } from 'node:util';
import type { KubeClient } from '../../kube/client.ts';
import { isConflict, isInvalid, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod, PodStatus } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import { createKeyedQueue } from '../../lib/keyed-queue.ts';
import type { Log } from '../../lib/log.ts';
import { showsEnd, statusPatch } from './status-patch.ts';

export interface StatusWriterDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  /** The pod as the watch shows it now; a mirror pod for a static one. Undefined where the API has none. */
  current(uid: string): Pod | undefined;
  onWritten(uid: string): void;
  /** How long one patch took, in milliseconds; for a metric. */
  patched?(tookMs: number): void;
}

export interface StatusWriter {
  /** Takes the place of what was submitted before and not written yet. */
  submit(uid: string, status: PodStatus): void;
  /** The API is known to show how the pod ended, or not to have the pod at all. */
  isWritten(uid: string, status: PodStatus): boolean;
  forget(uid: string): void;
  stop(): Promise<void>;
}

interface Entry {
  wanted: PodStatus;
  /** The API's last answer, until the watch has it. */
  base: Pod | undefined;
  /** The status that was written last, and the version of the pod that came of it. */
  accepted: { readonly status: PodStatus; readonly version: bigint } | undefined;
  gone: boolean;
}

const versionOf = (pod: Pod | undefined): bigint => {
  const text = pod?.metadata.resourceVersion;
  return text && /^\d+$/.test(text) ? BigInt(text) : 0n;
};

// The uid in the patch is a precondition; which of the two codes says so depends on the server's version.
const isAnotherPod = (error: unknown): boolean =>
  (isConflict(error) || isInvalid(error)) && /metadata\.uid|\buid\b/i.test(error.message);

export function createStatusWriter(deps: StatusWriterDeps): StatusWriter {
  const { client, clock, log } = deps;
  const entries = new Map<string, Entry>();

  const baseOf = (uid: string, entry: Entry): Pod | undefined => {
    const watched = deps.current(uid);
    if (watched && versionOf(watched) >= versionOf(entry.base)) entry.base = undefined;
    return entry.base ?? watched;
  };

  // The API may say a thing in other words than it was told. Telling it again would never end.
  const isAccepted = (entry: Entry, base: Pod, status: PodStatus): boolean =>
    entry.accepted?.version === versionOf(base) && isDeepStrictEqual(entry.accepted.status, status);

  const differs = (uid: string, entry: Entry, base: Pod): object | undefined =>
    isAccepted(entry, base, entry.wanted)
      ? undefined
      : statusPatch(base.metadata.uid ?? uid, base.status ?? {}, entry.wanted);

  const write = async (uid: string, signal: AbortSignal): Promise<void> => {
    const entry = entries.get(uid);
    if (!entry || entry.gone) return;
    const base = baseOf(uid, entry);
    if (!base) return;
    const { wanted } = entry;
    const patch = differs(uid, entry, base);
    if (!patch) {
      deps.onWritten(uid);
      return;
    }
    const { name, namespace = 'default' } = base.metadata;
    const begunMs = clock.monotonicMs();
    try {
      entry.base = await client.patch(resources.pods, { namespace, name }, patch, {
        type: 'strategic',
        subresource: 'status',
        signal,
      });
      entry.accepted = { status: wanted, version: versionOf(entry.base) };
      deps.patched?.(clock.monotonicMs() - begunMs);
    } catch (error) {
      if (isNotFound(error) || isAnotherPod(error)) entry.gone = true;
      else if (isInvalid(error)) {
        // Trying the same again would only fail again; the next change makes another patch.
        log.error('the API server refuses a pod status; it is written again when it changes', {
          pod: `${namespace}/${name}`,
          error,
        });
        return;
      } else throw error;
    }
    deps.onWritten(uid);
  };

  const queue = createKeyedQueue<string>(
    {
      clock,
      reconcile: write,
      onError: (uid, error, retryInMs) => log.debug('writing a pod status failed', { uid, error, retryInMs }),
    },
    { backoff: { initialMs: 50, maxMs: 5_000 } },
  );

  return {
    submit(uid, status) {
      const entry = entries.get(uid);
      if (entry) entry.wanted = status;
      else entries.set(uid, { wanted: status, base: undefined, accepted: undefined, gone: false });
      const now = entries.get(uid)!;
      const base = baseOf(uid, now);
      if (base && differs(uid, now, base)) queue.wake(uid);
    },
    isWritten(uid, status) {
      const entry = entries.get(uid);
      if (!entry) return false;
      if (entry.gone) return true;
      const base = baseOf(uid, entry);
      return base !== undefined && (isAccepted(entry, base, status) || showsEnd(base.status ?? {}, status));
    },
    forget(uid) {
      entries.delete(uid);
      queue.forget(uid);
    },
    stop: () => queue.stop(),
  };
}
