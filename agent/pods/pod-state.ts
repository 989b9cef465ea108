// What must outlive the agent and stands nowhere else: what is allocated to a pod, back-offs, an end that the node has decided on, and the
// status of pods that no API server keeps. One small file for each pod that needs one; containers are adopted from the runtime itself.
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { PodStatus, ResourceRequirements } from '../../kube/types/pod.ts';
import type { Log } from '../../lib/log.ts';
import type { RestartBackoff, Termination } from './memory.ts';

export interface PodState {
  /** By container's name; where it is not what the spec asks for. */
  readonly allocation?: Readonly<Record<string, ResourceRequirements>>;
  /** Of the pod as a whole, beside `allocation`. */
  readonly podAllocation?: ResourceRequirements;
  readonly backoffs?: Readonly<Record<string, RestartBackoff>>;
  readonly termination?: Termination;
  /** Of static pods. */
  readonly status?: PodStatus;
}

export interface PodStates {
  /** Reads what is there. Call once, before the first pod. Never rejects: what cannot be read is logged and forgotten. */
  load(): Promise<void>;
  get(uid: string): PodState | undefined;
  /** Writes it if it differs from what was last put; an empty state removes the file. Never waits. */
  put(uid: string, state: PodState): void;
  remove(uid: string): void;
  uids(): readonly string[];
  /** Resolves when everything put so far is on disk, or has failed and is logged. */
  flush(): Promise<void>;
}

export function createPodStates(deps: { readonly log: Log }, options: { readonly rootDir: string }): PodStates {
  const folder = join(options.rootDir, 'pod-state');
  const texts = new Map<string, string>();
  const loaded = new Map<string, PodState>();
  const writing = new Map<string, Promise<void>>();

  // The machine's own crash ends all pods, so nothing need be forced to disk; a crash of the agent leaves the old file or the new.
  const write = async (uid: string): Promise<void> => {
    const path = join(folder, `${uid}.json`);
    const text = texts.get(uid);
    try {
      if (text === undefined) {
        await rm(path, { force: true });
        return;
      }
      const temporary = join(folder, `.${uid}`);
      await writeFile(temporary, text, { mode: 0o600 });
      await rename(temporary, path);
    } catch (error) {
      deps.log.warn('the state of a pod cannot be kept; a restart of the agent would forget it', { path, error });
    }
  };

  const schedule = (uid: string): void => {
    const before = writing.get(uid) ?? Promise.resolve();
    const next = before
      .then(() => write(uid))
      .finally(() => {
        if (writing.get(uid) === next) writing.delete(uid);
      });
    writing.set(uid, next);
  };

  return {
    async load() {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      for (const name of await readdir(folder)) {
        const match = /^([^.].*)\.json$/.exec(name);
        if (!match?.[1]) continue;
        try {
          const text = await readFile(join(folder, name), 'utf8');
          loaded.set(match[1], JSON.parse(text) as PodState);
          texts.set(match[1], text);
        } catch (error) {
          deps.log.warn('the kept state of a pod cannot be read; it is done without', {
            path: join(folder, name),
            error,
          });
        }
      }
    },
    get: (uid) => loaded.get(uid),
    put(uid, state) {
      const text = Object.keys(state).length === 0 ? undefined : JSON.stringify(state);
      if (uid === '' || texts.get(uid) === text) return;
      if (text === undefined) texts.delete(uid);
      else texts.set(uid, text);
      schedule(uid);
    },
    remove(uid) {
      loaded.delete(uid);
      if (texts.delete(uid)) schedule(uid);
    },
    uids: () => [...texts.keys()],
    async flush() {
      await Promise.allSettled(writing.values());
    },
  };
}
