// Deployments and ReplicaSets: their types as far as this room reads them.
import type { Condition, IntOrString, KubeObject, LabelSelector, ObjectMeta } from '../kube/types/meta.ts';
import type { PodSpec } from '../kube/types/pod.ts';

export interface PodTemplate {
  metadata?: Partial<ObjectMeta>;
  spec: PodSpec;
}

interface Counts {
  observedGeneration?: number;
  replicas?: number;
  readyReplicas?: number;
  availableReplicas?: number;
  terminatingReplicas?: number;
}

export interface ReplicaSet extends KubeObject {
  spec: { replicas?: number; selector: LabelSelector; template: PodTemplate };
  status?: Counts & { fullyLabeledReplicas?: number };
}

export interface Deployment extends KubeObject {
  spec: ReplicaSet['spec'] & {
    strategy?: {
      type?: 'RollingUpdate' | 'Recreate';
      rollingUpdate?: { maxUnavailable?: IntOrString; maxSurge?: IntOrString };
    };
  };
  status?: Counts & { updatedReplicas?: number; unavailableReplicas?: number; conditions?: Condition[] };
}
