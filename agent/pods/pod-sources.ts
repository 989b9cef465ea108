// Where pods come from, as one: the API server, manifests of the host, and the mirrors by which the API shows the latter.
import type { KubeClient } from '../../kube/client.ts';
import type { Node } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { KubeletConfiguration } from '../config.ts';
import { isStaticPod } from '../resources/critical.ts';
import { createApiSource } from './api-source.ts';
import { combineSources, type DesiredPods, isMirrorPod } from './desired.ts';
import { createManifestSources } from './manifest-source.ts';
import { createMirrorPods, mirrors } from './mirror-pods.ts';

export interface PodSourcesDeps {
  readonly client: KubeClient;
  readonly clock: Clock;
  readonly log: Log;
  /** The node's object once it is registered: the owner of mirrors. */
  node(): Node | undefined;
  /** A pod that runs, whether any source still has it or not. */
  running(uid: string): Pod | undefined;
  allRunning(): readonly Pod[];
  onChange(uid: string): void;
  onSync(): void;
}

export interface PodSourcesOptions {
  readonly config: KubeletConfiguration;
  readonly nodeName: string;
  /** There is no API server. */
  readonly standalone: boolean;
}

export interface PodSources {
  readonly pods: DesiredPods;
  /** Of all sources. */
  list(): readonly Pod[];
  /** What the API server has under this name, a mirror too. */
  byName(namespace: string, name: string): Pod | undefined;
  /** The object of the API that shows this running pod: its own, or its mirror. */
  shownAs(uid: string): Pod | undefined;
  /** When the pod was first seen, in ms since 1970. */
  seenAtMs(uid: string): number | undefined;
  /** The pod is no more. */
  forget(uid: string): void;
  readonly tasks: readonly { readonly name: string; run(signal: AbortSignal): Promise<void> }[];
  stop(): Promise<void>;
}

const isNamed = ({ metadata }: Pod, namespace: string, name: string): boolean =>
  metadata.name === name && (metadata.namespace ?? 'default') === namespace;

/** Where no manifest has the name any more, whatever still runs under it. */
const endsStatic = (pod: Pod, wanted: string | undefined): boolean =>
  wanted === undefined || (pod.metadata.uid !== wanted && isStaticPod(pod));

export function createPodSources(deps: PodSourcesDeps, options: PodSourcesOptions): PodSources {
  const { client, clock, log } = deps;
  const { config, nodeName, standalone } = options;
  const seenAt = new Map<string, number>();
  const see = (uid: string): void => {
    if (!seenAt.has(uid)) seenAt.set(uid, clock.now());
    deps.onChange(uid);
  };

  const api = createApiSource(
    {
      client,
      clock,
      log,
      onChange: (uid, pod) => (isMirrorPod(pod) ? wakeStatic(pod) : see(uid)),
      onSync: deps.onSync,
    },
    { nodeName },
  );
  const manifests = createManifestSources(
    {
      clock,
      log,
      onChange(uid) {
        see(uid);
        const pod = pods.get(uid)?.pod ?? deps.running(uid);
        if (pod) wakeStatic(pod);
      },
      onSync: deps.onSync,
    },
    { config, nodeName },
  );
  const pods: DesiredPods = combineSources([...manifests, ...(standalone ? [] : [api])]);
  const staticPod = (namespace: string, name: string): Pod | undefined =>
    manifests.flatMap((source) => source.list()).find((pod) => isNamed(pod, namespace, name));
  const mirrorPods = standalone
    ? undefined
    : createMirrorPods({
        client,
        clock,
        log,
        node: deps.node,
        wanted: staticPod,
        shown: (namespace, name) => api.byName(namespace, name),
        synced: () => pods.synced,
        endsStill: (namespace, name, uid) =>
          deps.allRunning().some((pod) => isNamed(pod, namespace, name) && endsStatic(pod, uid)),
      });
  // A static pod and its mirror know each other by name only.
  const wakeStatic = ({ metadata }: Pod): void => {
    const { name, namespace = 'default' } = metadata;
    mirrorPods?.wake(namespace, name);
    const uid = staticPod(namespace, name)?.metadata.uid;
    if (uid !== undefined) deps.onChange(uid);
  };

  return {
    pods,
    list: () => [...manifests, api].flatMap((source) => [...source.list()]),
    byName: (namespace, name) => api.byName(namespace, name),
    shownAs(uid) {
      const own = api.get(uid);
      const pod = own ? undefined : deps.running(uid);
      if (!pod) return own;
      const mirror = api.byName(pod.metadata.namespace ?? 'default', pod.metadata.name);
      return mirrors(mirror, pod) ? mirror : undefined;
    },
    seenAtMs: (uid) => seenAt.get(uid),
    forget(uid) {
      seenAt.delete(uid);
      if (!mirrorPods) return;
      for (const pod of api.list()) if (isMirrorPod(pod)) wakeStatic(pod);
      for (const source of manifests) for (const pod of source.list()) wakeStatic(pod);
    },
    tasks: [
      ...manifests.map((source) => ({
        name: `pods by ${source.name}`,
        run: (signal: AbortSignal) => source.run(signal),
      })),
      ...(standalone ? [] : [{ name: 'pods', run: (signal: AbortSignal) => api.run(signal) }]),
    ],
    stop: async () => mirrorPods?.stop(),
  };
}
