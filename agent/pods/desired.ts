// The pods that this node is asked to run, whoever asks: the API server, a folder of manifests, a URL.
import type { Pod } from '../../kube/types/pod.ts';

export type PodUid = string & { readonly __brand?: 'PodUid' };
export type SourceName = 'api' | 'file' | 'http';

export interface DesiredPod {
  readonly pod: Pod;
  readonly source: SourceName;
}

export interface PodSource {
  readonly name: SourceName;
  /** True once the source has told of all its pods. */
  readonly synced: boolean;
  get(uid: PodUid): Pod | undefined;
  list(): readonly Pod[];
}

/** All sources as one. */
export interface DesiredPods {
  get(uid: PodUid): DesiredPod | undefined;
  list(): readonly DesiredPod[];
  /** True once every source has told of all its pods: before that nothing unknown may be killed. */
  readonly synced: boolean;
}

export const uidOf = (pod: Pod): PodUid => pod.metadata.uid ?? '';

export const mirrorAnnotation = 'kubernetes.io/config.mirror';
export const isMirrorPod = (pod: Pod): boolean => pod.metadata.annotations?.[mirrorAnnotation] !== undefined;

export function combineSources(sources: readonly PodSource[]): DesiredPods {
  return {
    get(uid) {
      for (const source of sources) {
        const pod = source.get(uid);
        if (pod && !(source.name === 'api' && isMirrorPod(pod))) return { pod, source: source.name };
      }
      return undefined;
    },
    list: () =>
      sources.flatMap((source) =>
        source
          .list()
          .filter((pod) => !(source.name === 'api' && isMirrorPod(pod)))
          .map((pod) => ({ pod, source: source.name })),
      ),
    get synced() {
      return sources.every((source) => source.synced);
    },
  };
}

/** Whether nobody wants this pod to run any more: it is being deleted, or was forced out of its source while its containers still end here. */
export const isEnding = (pods: DesiredPods, uid: PodUid): boolean => {
  const wanted = pods.get(uid);
  return wanted === undefined || wanted.pod.metadata.deletionTimestamp !== undefined;
};
