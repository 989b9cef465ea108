// Pulls as they go to the runtime: so many at once, and one for all who want the same image with equal credentials. A pull that nobody
// waits for any more is given up.
import { RuntimeError } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { Image, ImageSpec, SandboxConfig } from '../../cri/types.ts';
import { abandonOn, CancelledError } from '../../lib/abort.ts';
import type { Clock } from '../../lib/clock.ts';
import { describeError } from '../../lib/log.ts';
import type { TokenBucket } from '../../lib/token-bucket.ts';
import type { Credential } from './keyring.ts';

export interface SharedPullsDeps {
  readonly runtime: Pick<Runtime, 'pullImage' | 'imageStatus'>;
  readonly clock: Clock;
  /** Holds starts of pulls back. */
  readonly bucket?: TokenBucket;
}

export interface FinishedPull {
  readonly imageRef: string;
  /** Undefined where the runtime does not tell of it any more. */
  readonly image: Image | undefined;
  /** The one that the registry took; undefined: none was given. */
  readonly credential: Credential | undefined;
  /** Of the pull itself, without waiting for its turn. */
  readonly durationMs: number;
}

export interface SharedPulls {
  pull(
    spec: ImageSpec,
    credentials: readonly Credential[],
    sandboxConfig: SandboxConfig | undefined,
    signal: AbortSignal,
  ): Promise<FinishedPull>;
}

interface Running {
  readonly controller: AbortController;
  readonly done: Promise<FinishedPull>;
  waiters: number;
}

/** `parallel` undefined: no limit. */
export function createSharedPulls(
  deps: SharedPullsDeps,
  options: { readonly parallel?: number | undefined },
): SharedPulls {
  const { clock, runtime } = deps;
  const running = new Map<string, Running>();
  const queue: (() => void)[] = [];
  let active = 0;

  async function turn<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T> {
    if (options.parallel !== undefined && active >= options.parallel) {
      let start: () => void = () => undefined;
      const started = new Promise<void>((resolve) => {
        start = resolve;
        queue.push(resolve);
      });
      try {
        await abandonOn(started, signal);
      } catch (error) {
        const index = queue.indexOf(start);
        // The turn may have come in the moment of giving up: pass it on.
        if (index >= 0) queue.splice(index, 1);
        else release();
        throw error;
      }
    } else active++;
    try {
      return await work();
    } finally {
      release();
    }
  }
  const release = (): void => {
    const next = queue.shift();
    if (next) next();
    else active--;
  };

  async function pullWith(
    spec: ImageSpec,
    credentials: readonly Credential[],
    sandboxConfig: SandboxConfig | undefined,
    signal: AbortSignal,
  ): Promise<FinishedPull> {
    const startedMs = clock.monotonicMs();
    const failed: unknown[] = [];
    const candidates: readonly (Credential | undefined)[] = credentials.length > 0 ? credentials : [undefined];
    for (const credential of candidates) {
      await deps.bucket?.take(signal);
      try {
        const imageRef = await runtime.pullImage(spec, credential?.auth, sandboxConfig, { signal });
        const image = await runtime.imageStatus({ ...spec, image: imageRef }, { signal }).catch(() => undefined);
        return { imageRef, image, credential, durationMs: clock.monotonicMs() - startedMs };
      } catch (error) {
        signal.throwIfAborted();
        failed.push(error);
      }
    }
    if (failed.length === 1) throw failed[0];
    const details = failed.map((error) => (error instanceof RuntimeError ? error.detail : describeError(error)));
    const unique = [...new Set(details)];
    const detail = unique.length === 1 ? unique[0]! : `[${unique.join(', ')}]`;
    const last = failed.at(-1);
    throw new RuntimeError(last instanceof RuntimeError ? last.code : 'unknown', 'PullImage', detail, last);
  }

  return {
    async pull(spec, credentials, sandboxConfig, signal) {
      signal.throwIfAborted();
      const key = [spec.image, spec.runtimeHandler ?? '', ...credentials.map(({ hash }) => hash)].join('\0');
      let entry = running.get(key);
      if (!entry) {
        const controller = new AbortController();
        const done = turn(controller.signal, () =>
          pullWith(spec, credentials, sandboxConfig, controller.signal),
        ).finally(() => {
          if (running.get(key)?.controller === controller) running.delete(key);
        });
        done.catch(() => undefined);
        entry = { controller, done, waiters: 0 };
        running.set(key, entry);
      }
      const mine = entry;
      mine.waiters++;
      try {
        return await abandonOn(mine.done, signal);
      } finally {
        mine.waiters--;
        if (mine.waiters === 0 && signal.aborted) {
          if (running.get(key) === mine) running.delete(key);
          mine.controller.abort(new CancelledError('nobody waits for this pull any more'));
        }
      }
    },
  };
}
