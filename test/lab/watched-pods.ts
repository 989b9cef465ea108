// What the API says of pods while something happens to their node: every state, not only those a test happens to look at.
import type { KubeClient } from '../../kube/client.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';

export interface SeenPod {
  readonly name: string;
  readonly atMs: number;
  readonly phase: string | undefined;
  readonly ready: boolean;
  readonly restarts: number;
  readonly containerIds: readonly string[];
}

export interface WatchedPods {
  readonly seen: readonly SeenPod[];
  stop(): Promise<void>;
}

export const isReady = (pod: Pod): boolean =>
  pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;

export const restartsOf = (pod: Pod): number =>
  (pod.status?.containerStatuses ?? []).reduce((sum, { restartCount }) => sum + restartCount, 0);

const seenOf = (pod: Pod): SeenPod => ({
  name: pod.metadata.name,
  atMs: Date.now(),
  phase: pod.status?.phase,
  ready: isReady(pod),
  restarts: restartsOf(pod),
  containerIds: (pod.status?.containerStatuses ?? []).map(({ containerID = '' }) => containerID),
});

/** Watches the pods of namespace `default` until stopped, over connections that break too. */
export function watchPods(client: KubeClient): WatchedPods {
  const seen: SeenPod[] = [];
  const ending = new AbortController();
  const { signal } = ending;
  const running = (async () => {
    while (!signal.aborted)
      try {
        const list = await client.list(resources.pods, { namespace: 'default' });
        for (const pod of list.items) seen.push(seenOf(pod));
        const from = list.metadata?.resourceVersion ?? '';
        for await (const event of client.watch(resources.pods, { namespace: 'default', resourceVersion: from, signal }))
          if (event.type === 'ADDED' || event.type === 'MODIFIED') seen.push(seenOf(event.object));
      } catch {
        if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, 200));
      }
  })();
  return {
    seen,
    async stop() {
      ending.abort();
      await running;
    },
  };
}
