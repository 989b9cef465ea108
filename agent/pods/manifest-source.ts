// Pods that this node is told to run by a folder (or one file) of manifests, or by a URL: looked at every so often, a folder also at once
// when something in it changes.
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import { createNap } from '../../lib/nap.ts';
import { type FolderWatch, watchFolder } from '../../lib/watch-folder.ts';
import type { KubeletConfiguration } from '../config.ts';
import type { PodSource, SourceName } from './desired.ts';
import { ManifestError, parseManifest } from './static-pod.ts';

export interface ManifestSourceDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** A pod came or went. */
  onChange(uid: string): void;
  /** All pods are known, for the first time. */
  onSync(): void;
}

export interface ManifestSource extends PodSource {
  run(signal: AbortSignal): Promise<void>;
}

/** What was read: the text of each manifest by its place. Undefined: it could not be read, and what was known holds. */
type Manifests = ReadonlyMap<string, string>;

interface Reading {
  readonly name: SourceName & ('file' | 'http');
  readonly nodeName: string;
  readonly everyMs: number;
  /** Lists of pods are understood. */
  readonly lists: boolean;
  read(signal: AbortSignal): Promise<Manifests>;
  watch?(): FolderWatch;
  /** The manifests that were removed and made again since this was asked last. */
  remade?(): ReadonlySet<string>;
}

/** How long a manifest that was removed and made again counts as gone: its pod's worker has seen it by then. */
const goneMs = 1_000;

const same = (one: Pod, other: Pod): boolean =>
  one.metadata.uid === other.metadata.uid &&
  JSON.stringify([one.metadata.labels, one.spec]) === JSON.stringify([other.metadata.labels, other.spec]);

function createManifestSource(deps: ManifestSourceDeps, reading: Reading): ManifestSource {
  const { clock, log } = deps;
  const known = new Map<string, { readonly text: string; readonly pods: readonly Pod[] }>();
  const byUid = new Map<string, Pod>();
  const complained = new Map<string, string>();
  const nap = createNap(clock);
  let synced = false;

  const complain = (from: string, error: unknown): void => {
    const text = error instanceof Error ? error.message : String(error);
    if (complained.get(from) === text) return;
    complained.set(from, text);
    log.error('a manifest cannot be used; what ran by it before goes on, and it is read again', { from, error: text });
  };

  const parse = (from: string, text: string): void => {
    const before = known.get(from);
    if (before?.text === text) return;
    try {
      const origin = { kind: reading.name, from, nodeName: reading.nodeName, seenAtMs: clock.now() };
      const pods = parseManifest(text, origin, reading.lists);
      // The same pod, written down in another way, stays the same pod.
      const kept = pods.map((pod) => before?.pods.find((each) => same(each, pod)) ?? pod);
      known.set(from, { text, pods: kept });
      complained.delete(from);
    } catch (error) {
      if (!(error instanceof ManifestError)) throw error;
      complain(from, error);
      known.set(from, { text, pods: before?.pods ?? [] });
    }
  };

  const look = async (signal: AbortSignal): Promise<void> => {
    let manifests: Manifests;
    const remade = [...(reading.remade?.() ?? [])].filter((from) => known.has(from));
    try {
      manifests = await reading.read(signal);
      complained.delete('');
    } catch (error) {
      if (!signal.aborted) complain('', error);
      return;
    }
    for (const from of known.keys()) if (!manifests.has(from)) known.delete(from);
    for (const [from, text] of manifests) {
      // It was gone in between: its pod ends, and begins anew.
      if (remade.includes(from) && known.get(from)?.text === text) known.delete(from);
      else parse(from, text);
    }
    const now = new Map([...known.values()].flatMap(({ pods }) => pods.map((pod) => [pod.metadata.uid ?? '', pod])));
    const changed = new Set([...byUid.keys(), ...now.keys()].filter((uid) => byUid.get(uid) !== now.get(uid)));
    byUid.clear();
    for (const [uid, pod] of now) byUid.set(uid, pod);
    const first = !synced;
    synced = true;
    for (const uid of changed) deps.onChange(uid);
    if (first) deps.onSync();
    if (remade.length > 0) {
      await clock.sleep(goneMs, signal).catch(() => undefined);
      nap.wake();
    }
  };

  const follow = async (signal: AbortSignal): Promise<void> => {
    while (!signal.aborted && reading.watch) {
      let folder: FolderWatch | undefined;
      try {
        folder = reading.watch();
        nap.wake();
        while (!signal.aborted) {
          await folder.next(signal);
          // An editor writes in several steps.
          await clock.sleep(20, signal);
          nap.wake();
        }
      } catch (error) {
        // The folder is not there, or the host has no watches left: until it can be watched it is looked at every so often.
        if (!signal.aborted) log.debug('manifests are not watched; tried again in 1 s', { error });
        await clock.sleep(1_000, signal).catch(() => undefined);
      } finally {
        folder?.close();
      }
    }
  };

  return {
    name: reading.name,
    get synced() {
      return synced;
    },
    get: (uid) => byUid.get(uid),
    list: () => [...byUid.values()],
    async run(signal) {
      const following = follow(signal);
      while (!signal.aborted) {
        await look(signal);
        await nap.take(reading.everyMs, signal);
      }
      await following;
    },
  };
}

async function readManifests(path: string): Promise<Manifests> {
  const info = await stat(path).catch((error: NodeJS.ErrnoException) => {
    // As the kubelet has it: what is not there holds no pods.
    if (error.code === 'ENOENT') return undefined;
    throw error;
  });
  if (!info) return new Map();
  if (!info.isDirectory()) return new Map([[path, await readFile(path, 'utf8')]]);
  const manifests = new Map<string, string>();
  for (const name of (await readdir(path)).sort()) {
    if (name.startsWith('.')) continue;
    const file = join(path, name);
    try {
      const { size, ...entry } = await stat(file).then((each) => ({ size: each.size, isFile: each.isFile() }));
      if (entry.isFile && size > 0 && size < 10 * 2 ** 20) manifests.set(file, await readFile(file, 'utf8'));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
  return manifests;
}

export function createFileSource(
  deps: ManifestSourceDeps,
  options: {
    /** A folder of manifests, or one manifest. */
    readonly path: string;
    readonly nodeName: string;
    readonly everyMs: number;
  },
): ManifestSource {
  const { path, nodeName, everyMs } = options;
  const turns = new Map<string, readonly number[]>();
  const recent = (times: readonly number[] = []): number[] => times.filter((time) => deps.clock.now() - time < goneMs);
  return createManifestSource(deps, {
    name: 'file',
    nodeName,
    everyMs,
    lists: false,
    read: () => readManifests(path),
    watch: () =>
      watchFolder(path, undefined, (name) => turns.set(name, [...recent(turns.get(name)), deps.clock.now()])),
    remade() {
      const remade: string[] = [];
      for (const [name, times] of turns) {
        const count = recent(times).length;
        if (count > 1) remade.push(join(path, name));
        if (count !== 1) turns.delete(name);
      }
      return new Set(remade);
    },
  });
}

export function createUrlSource(
  deps: ManifestSourceDeps,
  options: {
    readonly url: string;
    readonly headers: Readonly<Record<string, readonly string[]>>;
    readonly nodeName: string;
    readonly everyMs: number;
  },
): ManifestSource {
  const { url, nodeName, everyMs } = options;
  return createManifestSource(deps, {
    name: 'http',
    nodeName,
    everyMs,
    lists: true,
    async read(signal) {
      const headers = Object.entries(options.headers).flatMap(([name, values]) =>
        values.map((value): [string, string] => [name, value]),
      );
      const response = await fetch(url, { headers, signal: AbortSignal.any([signal, AbortSignal.timeout(10_000)]) });
      const text = await response.text();
      if (response.status !== 200) throw new Error(`${url}: ${response.status} ${response.statusText}`);
      if (text === '') throw new Error(`zero-length data received from ${url}`);
      return new Map([[url, text]]);
    },
  });
}

/** As the KubeletConfiguration asks: staticPodPath and staticPodURL, either or both. */
export function createManifestSources(
  deps: ManifestSourceDeps,
  options: { readonly config: KubeletConfiguration; readonly nodeName: string },
): ManifestSource[] {
  const { config, nodeName } = options;
  const { staticPodPath: path, staticPodURL: url, staticPodURLHeader: headers } = config;
  return [
    ...(path ? [createFileSource(deps, { path, nodeName, everyMs: config.fileCheckFrequency })] : []),
    ...(url ? [createUrlSource(deps, { url, headers, nodeName, everyMs: config.httpCheckFrequency })] : []),
  ];
}
