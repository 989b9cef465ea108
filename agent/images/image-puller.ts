// Brings a container's image to the node as its pull policy says, with the kubelet's reasons, messages and Events.
//
//   name ─▶ policy ─▶ there, and may this pod use it? ──yes──▶ ready
//                         │ no                ▲
//                         ▼                   │ pulled
//                     in back-off? ──no──▶ pull (shared by pods with equal credentials) ──failed──▶ back-off
import type { Runtime } from '../../cri/runtime.ts';
import type { Image, SandboxConfig } from '../../cri/types.ts';
import { RuntimeError } from '../../cri/errors.ts';
import type { EventRecorder, EventTarget } from '../../kube/events.ts';
import type { Pod, PullPolicy } from '../../kube/types/pod.ts';
import { createBackoff } from '../../lib/backoff.ts';
import type { Clock } from '../../lib/clock.ts';
import { formatGoDuration } from '../../lib/go-duration.ts';
import { describeError, type Log } from '../../lib/log.ts';
import { createTokenBucket } from '../../lib/token-bucket.ts';
import { ImageError, pullFailure } from './image-error.ts';
import { effectivePullPolicy, planImageName } from './image-name.ts';
import type { Credential } from './keyring.ts';
import type { PullRecords } from './pull-records.ts';
import { createSharedPulls } from './shared-pulls.ts';

export interface ImagePullerDeps {
  readonly runtime: Pick<Runtime, 'pullImage' | 'imageStatus'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly events?: EventRecorder;
  /** Credentials that the pod may pull a repository with, the best first. */
  credentials(pod: Pod, repository: string, signal: AbortSignal): Promise<readonly Credential[]>;
  /** Absent: whoever names an image that is there may use it. */
  readonly records?: PullRecords;
  /** An image was pulled; its size is 0 where the runtime does not tell it. For a metric. */
  onPulled?(sizeBytes: number, tookMs: number): void;
  /** An image was asked for; undefined is what was not looked at, or not found out. For a metric. */
  onAsked?(policy: PullPolicy, present: boolean | undefined, mustPull: boolean | undefined): void;
}

export interface ImagePullerOptions {
  /** One pull at a time. */
  readonly serializeImagePulls: boolean;
  /** Where pulls are not serialized; undefined: no limit. */
  readonly maxParallelImagePulls?: number | undefined;
  /** Pulls started each second, and at once. 0: no limit. */
  readonly registryPullQPS: number;
  readonly registryBurst: number;
}

export interface ImageRequest {
  readonly pod: Pod;
  /** As the pod's spec has it. */
  readonly image: string;
  readonly pullPolicy: PullPolicy | undefined;
  /** What the Events are about. */
  readonly target: EventTarget;
  readonly runtimeHandler?: string;
  readonly sandboxConfig?: SandboxConfig;
}

export interface PulledImage {
  /** The image's id. */
  readonly imageRef: string;
  /** The image's user where it is a number. */
  readonly uid: number | undefined;
  /** The image's user where it is a name. */
  readonly username: string;
}

export interface ImagePuller {
  /** Rejects with an ImageError, or with the signal's reason: a pull is given up when nobody wants it any more. */
  ensure(request: ImageRequest, signal: AbortSignal): Promise<PulledImage>;
  /** Forgets the back-off of a pod that is gone. */
  forget(podUid: string): void;
}

const initialBackoffMs = 10_000;
const maxBackoffMs = 300_000;
/** A failed pull is looked at again soon, to say that it is backing off. */
const showBackoffAfterMs = 1_000;
const lookAgainMs = 10_000;

export function createImagePuller(deps: ImagePullerDeps, options: ImagePullerOptions): ImagePuller {
  const { clock, runtime } = deps;
  const backoff = createBackoff({ initialMs: initialBackoffMs, maxMs: maxBackoffMs, resetAfterMs: 2 * maxBackoffMs });
  const failures = new Map<string, Map<string, string>>();
  const bucket =
    options.registryPullQPS > 0
      ? createTokenBucket(clock, { burst: Math.max(1, options.registryBurst), perSecond: options.registryPullQPS })
      : undefined;
  const pulls = createSharedPulls(
    { runtime, clock, ...(bucket ? { bucket } : {}) },
    { parallel: options.serializeImagePulls ? 1 : options.maxParallelImagePulls },
  );

  const tell = (request: ImageRequest, type: 'Normal' | 'Warning', reason: string, message: string): void =>
    deps.events?.record(request.target, type, reason, message);
  const ready = (imageRef: string, image: Image | undefined): PulledImage => ({
    imageRef,
    uid: image?.uid,
    username: image?.username ?? '',
  });
  const specOf = (request: ImageRequest, image: string) => ({
    image,
    userSpecifiedImage: request.image,
    ...(request.runtimeHandler === undefined ? {} : { runtimeHandler: request.runtimeHandler }),
    ...(request.pod.metadata.annotations ? { annotations: request.pod.metadata.annotations } : {}),
  });

  async function lookUp(request: ImageRequest, image: string, signal: AbortSignal): Promise<Image | undefined> {
    try {
      return await runtime.imageStatus(specOf(request, image), { signal });
    } catch (error) {
      signal.throwIfAborted();
      const detail = error instanceof RuntimeError ? error.detail : describeError(error);
      const message = `Failed to inspect image "${image}": ${detail}`;
      tell(request, 'Warning', 'InspectFailed', message);
      throw new ImageError('ImageInspectError', message, lookAgainMs, error);
    }
  }

  function neverPull(request: ImageRequest): ImageError {
    const message = `Container image "${request.image}" is not present with pull policy of Never`;
    tell(request, 'Warning', 'ErrImageNeverPull', message);
    return new ImageError('ErrImageNeverPull', message, lookAgainMs);
  }

  function checkBackoff(request: ImageRequest, key: string): void {
    const remainingMs = backoff.remainingMs(key, clock.now());
    if (remainingMs <= 0) return;
    const message = `Back-off pulling image "${request.image}"`;
    tell(request, 'Normal', 'BackOff', message);
    const last = failures.get(request.pod.metadata.uid ?? '')?.get(key);
    throw new ImageError('ImagePullBackOff', last === undefined ? message : `${message}: ${last}`, remainingMs);
  }

  function noteFailure(request: ImageRequest, key: string, error: unknown): ImageError {
    const detail = error instanceof RuntimeError ? error.detail : describeError(error);
    tell(request, 'Warning', 'Failed', `Failed to pull image "${request.image}": ${detail}`);
    backoff.next(key, clock.now());
    const { reason, message } = pullFailure(request.image, detail);
    const uid = request.pod.metadata.uid ?? '';
    const known = failures.get(uid) ?? new Map<string, string>();
    known.set(key, `${reason}: ${message}`);
    failures.set(uid, known);
    return new ImageError(reason, message, showBackoffAfterMs, error);
  }

  async function pull(
    request: ImageRequest,
    image: string,
    credentials: readonly Credential[],
    signal: AbortSignal,
  ): Promise<PulledImage> {
    const key = `${request.pod.metadata.uid ?? ''}_${request.image}`;
    checkBackoff(request, key);
    tell(request, 'Normal', 'Pulling', `Pulling image "${request.image}"`);
    const startedMs = clock.monotonicMs();
    await deps.records?.intend(request.image);
    try {
      const pulled = await pulls.pull(specOf(request, image), credentials, request.sandboxConfig, signal);
      await deps.records?.pulled(request.image, pulled.imageRef, pulled.credential);
      const waitedMs = Math.trunc(clock.monotonicMs() - startedMs);
      const took = `${formatGoDuration(Math.trunc(pulled.durationMs))} (${formatGoDuration(waitedMs)} including waiting)`;
      const size = pulled.image?.sizeBytes ?? 0;
      deps.onPulled?.(size, pulled.durationMs);
      tell(
        request,
        'Normal',
        'Pulled',
        `Successfully pulled image "${request.image}" in ${took}. Image size: ${size} bytes.`,
      );
      failures.get(request.pod.metadata.uid ?? '')?.delete(key);
      return ready(pulled.imageRef, pulled.image);
    } catch (error) {
      await deps.records?.failed(request.image);
      signal.throwIfAborted();
      throw noteFailure(request, key, error);
    }
  }

  return {
    async ensure(request, signal) {
      signal.throwIfAborted();
      const name = planImageName(request.image);
      if (typeof name === 'string') {
        tell(request, 'Warning', 'InspectFailed', name);
        throw new ImageError('InvalidImageName', name, 5 * 60_000);
      }
      const policy = effectivePullPolicy(request.image, request.pullPolicy);
      let isPresent: boolean | undefined;
      const asked = (mustPull: boolean | undefined): void => deps.onAsked?.(policy, isPresent, mustPull);
      let known: Promise<readonly Credential[]> | undefined;
      const credentials = (): Promise<readonly Credential[]> => {
        known ??= deps.credentials(request.pod, name.repository, signal);
        return known;
      };
      if (policy !== 'Always') {
        const present = await lookUp(request, name.image, signal).catch((error: unknown) => {
          asked(undefined);
          throw error;
        });
        isPresent = present !== undefined;
        if (present) {
          const mustPull = await deps.records?.mustPull(request.image, present.id, credentials);
          if (!mustPull) {
            asked(false);
            const message = `Container image "${request.image}" already present on machine and can be accessed by the pod`;
            tell(request, 'Normal', 'Pulled', message);
            return ready(present.id, present);
          }
        }
        if (policy === 'Never') {
          asked(present ? true : undefined);
          throw neverPull(request);
        }
      }
      asked(true);
      let found: readonly Credential[];
      try {
        found = await credentials();
      } catch (error) {
        signal.throwIfAborted();
        throw new ImageError('ErrImagePull', describeError(error), lookAgainMs, error);
      }
      return pull(request, name.image, found, signal);
    },
    forget(podUid) {
      for (const key of failures.get(podUid)?.keys() ?? []) backoff.reset(key);
      failures.delete(podUid);
    },
  };
}
