// Records Events about objects, aggregated as Kubernetes' own recorder does: the same Event counts up, many alike become one.
import type { KubeObject } from './types/meta.ts';

export interface EventTarget {
  readonly apiVersion: string;
  readonly kind: string;
  readonly namespace?: string;
  readonly name: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  /** For example `spec.containers{web}`. */
  readonly fieldPath?: string;
}

export interface EventRecorder {
  /** Never throws and never waits: what cannot be written after some tries is dropped and counted. */
  record(
    about: EventTarget,
    type: 'Normal' | 'Warning',
    reason: string,
    message: string,
    /** Of the Event itself, when it is made; one that counts up keeps those of its first. */
    annotations?: Readonly<Record<string, string>>,
  ): void;
}

export const podTarget = (pod: KubeObject, fieldPath?: string): EventTarget => ({
  apiVersion: 'v1',
  kind: 'Pod',
  namespace: pod.metadata.namespace ?? 'default',
  name: pod.metadata.name,
  ...(pod.metadata.uid === undefined ? {} : { uid: pod.metadata.uid }),
  ...(pod.metadata.resourceVersion === undefined ? {} : { resourceVersion: pod.metadata.resourceVersion }),
  ...(fieldPath === undefined ? {} : { fieldPath }),
});
