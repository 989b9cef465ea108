// Certificates for pods (projected source podCertificate): asked of their signer, kept in memory alone, and made anew when the signer said.
//
//   (none) ──get──▶ waiting ──issued──▶ fresh ──beginRefreshAt──▶ refreshing ──issued──▶ fresh
//                     ▲  └──denied, failed──▶ refused (for good) ◀──denied, failed──┘
//                     └──deleted, not to be had: tried again, later and later
//
// Nothing of it outlives the agent: after a restart each volume gets a new key, as with the kubelet.
import { isForbidden, isNotFound } from '../../kube/errors.ts';
import { type EventRecorder, podTarget } from '../../kube/events.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { PodCertificateProjection } from '../../kube/types/volume.ts';
import { CancelledError } from '../../lib/abort.ts';
import { createBackoff } from '../../lib/backoff.ts';
import { describeError } from '../../lib/log.ts';
import {
  type CertificateRequestDeps,
  RequestGoneError,
  requestPodCertificate,
  type Verdict,
} from './pod-certificate-request.ts';
import { NotYetError } from './volume-driver.ts';

export interface PodCertificateWish {
  readonly pod: Pod;
  readonly uid: string;
  readonly volume: string;
  /** Which of the volume's sources it is. */
  readonly index: number;
  readonly source: PodCertificateProjection;
}

export interface PodCertificate {
  /** PEM, PKCS #8. */
  readonly key: string;
  /** PEM, the leaf first. */
  readonly chain: string;
  /** When to ask for it again, in milliseconds since the epoch. */
  readonly refreshAtMs: number;
}

export interface PodCertificates {
  /** Rejects with a NotYetError while the signer has not decided, and with an Error where it refused. */
  get(wish: PodCertificateWish, signal: AbortSignal): Promise<PodCertificate>;
  forget(uid: string): void;
}

export interface PodCertificatesDeps extends CertificateRequestDeps {
  readonly events?: EventRecorder;
  /** The own Node; undefined before it is known. */
  node(): { readonly name: string; readonly uid: string } | undefined;
  /** What `get` says of this volume is another thing now. */
  changed(uid: string, volume: string): void;
}

type Issued = Extract<Verdict, { kind: 'issued' }>;

interface Entry {
  issued: (Issued & { readonly refreshAtMs: number }) | undefined;
  refused: string | undefined;
  /** Why the last try came to nothing. */
  problem: string | undefined;
  /** Ends with the try under way, whatever comes of it. */
  running: Promise<void> | undefined;
  toldOverdue: boolean;
  toldExpired: boolean;
}

// A signer that is quick spares the pod a second look.
const patienceMs = 1_000;
const maxJitterMs = 5 * 60_000;
const overdueMs = 10 * 60_000;
const lookAgainMs = 60_000;

export function createPodCertificates(deps: PodCertificatesDeps, random: () => number = Math.random): PodCertificates {
  const { clock, log, events } = deps;
  const pods = new Map<string, { readonly entries: Map<string, Entry>; readonly ending: AbortController }>();
  const backoff = createBackoff({ initialMs: 1_000, maxMs: 5 * 60_000 });

  const decided = (entry: Entry, wish: PodCertificateWish, verdict: Verdict): void => {
    entry.problem = undefined;
    if (verdict.kind === 'issued') {
      const refreshAtMs = verdict.beginRefreshAtMs + maxJitterMs * random();
      entry.issued = { ...verdict, refreshAtMs: Number.isNaN(refreshAtMs) ? Infinity : refreshAtMs };
      entry.toldOverdue = entry.toldExpired = false;
      return;
    }
    const { kind, request, reason, message } = verdict;
    entry.refused = `PodCertificateRequest was permanently ${kind}: reason=${JSON.stringify(reason)} message=${JSON.stringify(message)}`;
    const what = kind === 'denied' ? 'was denied' : 'failed';
    const why = `reason=${JSON.stringify(reason)}, message=${JSON.stringify(message)}`;
    const title = kind === 'denied' ? 'Denied' : 'Failed';
    events?.record(podTarget(wish.pod), 'Warning', title, `PodCertificateRequest ${request} ${what}, ${why}`);
  };

  const problemOf = (error: unknown): string => {
    if (error instanceof RequestGoneError) return error.message;
    const hint = isNotFound(error) || isForbidden(error) ? ' (PodCertificateRequest may be switched off there)' : '';
    return `while creating PodCertificateRequest: ${describeError(error)}${hint}`;
  };

  const start = (entry: Entry, key: string, wish: PodCertificateWish, ending: AbortSignal): void => {
    const { pod, uid, volume, source } = wish;
    const { namespace = 'default', name } = pod.metadata;
    const work = async (): Promise<void> => {
      const node = deps.node();
      if (!node) throw new Error('the Node is not known yet');
      const serviceAccount = pod.spec.serviceAccountName || 'default';
      const request = { namespace, pod: { name, uid }, serviceAccount, node, source };
      decided(entry, wish, await requestPodCertificate(deps, request, ending));
      backoff.reset(key);
    };
    const failed = async (error: unknown): Promise<void> => {
      if (ending.aborted) return;
      entry.problem = problemOf(error);
      log.debug('no certificate for a pod yet; it is asked for again', { pod: `${namespace}/${name}`, volume, error });
      await clock.sleep(backoff.next(key, clock.now()), ending).catch(() => undefined);
    };
    const running = work()
      .catch(failed)
      .finally(() => {
        entry.running = undefined;
        if (!ending.aborted) deps.changed(uid, volume);
      });
    entry.running = running;
  };

  const tellLate = (entry: Entry, wish: PodCertificateWish): void => {
    const { issued } = entry;
    if (!issued) return;
    const tell = (reason: string, message: string): void =>
      events?.record(podTarget(wish.pod), 'Warning', reason, message);
    if (clock.now() > issued.refreshAtMs + overdueMs && !entry.toldOverdue) {
      entry.toldOverdue = true;
      tell('CertificateOverdueForRefresh', 'PodCertificate refresh overdue');
    }
    if (clock.now() > issued.notAfterMs && !entry.toldExpired) {
      entry.toldExpired = true;
      tell('CertificateExpired', 'PodCertificate expired');
    }
  };

  return {
    async get(wish, signal) {
      const of = pods.get(wish.uid) ?? { entries: new Map<string, Entry>(), ending: new AbortController() };
      pods.set(wish.uid, of);
      const key = `${wish.uid}/${wish.volume}/${wish.index}`;
      const fresh = { issued: undefined, refused: undefined, problem: undefined, running: undefined };
      const entry: Entry = of.entries.get(key) ?? { ...fresh, toldOverdue: false, toldExpired: false };
      of.entries.set(key, entry);
      const due = entry.issued === undefined || clock.now() >= entry.issued.refreshAtMs;
      if (due && entry.refused === undefined) {
        if (!entry.running) start(entry, key, wish, of.ending.signal);
        const enough = new AbortController();
        const patience = clock.sleep(patienceMs, AbortSignal.any([signal, enough.signal])).catch(() => undefined);
        await Promise.race([entry.running, patience]);
        enough.abort();
        signal.throwIfAborted();
      }
      if (entry.refused !== undefined) throw new Error(entry.refused);
      if (!entry.issued) throw new NotYetError(entry.problem ?? 'credential bundle is not issued yet');
      tellLate(entry, wish);
      const { key: privateKey, chain, refreshAtMs } = entry.issued;
      // One that is overdue is looked at now and then: its holder is to hear of it.
      return {
        key: privateKey,
        chain,
        refreshAtMs: refreshAtMs > clock.now() ? refreshAtMs : clock.now() + lookAgainMs,
      };
    },
    forget(uid) {
      const of = pods.get(uid);
      if (!of) return;
      for (const key of of.entries.keys()) backoff.reset(key);
      of.ending.abort(new CancelledError('the pod is taken down'));
      pods.delete(uid);
    },
  };
}
