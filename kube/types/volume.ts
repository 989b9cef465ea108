// core/v1 Volume and its sources, PersistentVolume, PersistentVolumeClaim, and storage.k8s.io objects a node reads.
import type { Condition, KubeObject, LabelSelector, QuantityString, ResourceList } from './meta.ts';
import type {
  NodeSelectorTerm,
  ObjectFieldSelector,
  PullPolicy,
  ResourceFieldSelector,
  ResourceRequirements,
} from './pod.ts';

export interface KeyToPath {
  key: string;
  path: string;
  mode?: number;
}

export interface DownwardApiFile {
  path: string;
  fieldRef?: ObjectFieldSelector;
  resourceFieldRef?: ResourceFieldSelector;
  mode?: number;
}

export interface ProjectedSource {
  secret?: { name?: string; items?: KeyToPath[]; optional?: boolean };
  configMap?: { name?: string; items?: KeyToPath[]; optional?: boolean };
  downwardAPI?: { items?: DownwardApiFile[] };
  serviceAccountToken?: { audience?: string; expirationSeconds?: number; path: string };
  clusterTrustBundle?: {
    name?: string;
    signerName?: string;
    labelSelector?: LabelSelector;
    optional?: boolean;
    path: string;
  };
  podCertificate?: PodCertificateProjection;
}

export interface PodCertificateProjection {
  signerName?: string;
  keyType?: string;
  maxExpirationSeconds?: number;
  credentialBundlePath?: string;
  keyPath?: string;
  certificateChainPath?: string;
  userAnnotations?: Record<string, string>;
}

export interface CsiVolumeSource {
  driver: string;
  readOnly?: boolean;
  fsType?: string;
  volumeAttributes?: Record<string, string>;
  nodePublishSecretRef?: { name?: string };
}

export type HostPathType =
  | ''
  | 'DirectoryOrCreate'
  | 'Directory'
  | 'FileOrCreate'
  | 'File'
  | 'Socket'
  | 'CharDevice'
  | 'BlockDevice';

export interface NfsVolumeSource {
  server: string;
  path: string;
  readOnly?: boolean;
}

export interface Volume {
  name: string;
  emptyDir?: { medium?: string; sizeLimit?: QuantityString };
  hostPath?: { path: string; type?: HostPathType };
  configMap?: { name?: string; items?: KeyToPath[]; defaultMode?: number; optional?: boolean };
  secret?: { secretName?: string; items?: KeyToPath[]; defaultMode?: number; optional?: boolean };
  downwardAPI?: { items?: DownwardApiFile[]; defaultMode?: number };
  projected?: { sources?: ProjectedSource[]; defaultMode?: number };
  persistentVolumeClaim?: { claimName: string; readOnly?: boolean };
  ephemeral?: { volumeClaimTemplate?: { metadata?: Record<string, unknown>; spec: PersistentVolumeClaimSpec } };
  csi?: CsiVolumeSource;
  nfs?: NfsVolumeSource;
  image?: { reference?: string; pullPolicy?: PullPolicy };
  /** Every other source: named so that a pod which asks for one can be refused with its name. */
  [source: string]: unknown;
}

export interface PersistentVolumeClaimSpec {
  accessModes?: string[];
  volumeMode?: 'Filesystem' | 'Block';
  volumeName?: string;
  storageClassName?: string;
  resources?: ResourceRequirements;
}

export interface PersistentVolumeClaim extends KubeObject {
  spec: PersistentVolumeClaimSpec;
  status?: {
    phase?: string;
    capacity?: ResourceList;
    accessModes?: string[];
    conditions?: Condition[];
    allocatedResources?: ResourceList;
    /** By resource: how far its growth is. */
    allocatedResourceStatuses?: Record<string, string>;
  };
}

export interface PersistentVolume extends KubeObject {
  spec: {
    capacity?: ResourceList;
    accessModes?: string[];
    volumeMode?: 'Filesystem' | 'Block';
    mountOptions?: string[];
    storageClassName?: string;
    claimRef?: { namespace?: string; name?: string; uid?: string };
    nodeAffinity?: { required?: { nodeSelectorTerms: NodeSelectorTerm[] } };
    hostPath?: { path: string; type?: HostPathType };
    local?: { path: string; fsType?: string };
    nfs?: NfsVolumeSource;
    csi?: {
      driver: string;
      volumeHandle: string;
      readOnly?: boolean;
      fsType?: string;
      volumeAttributes?: Record<string, string>;
      controllerPublishSecretRef?: { name: string; namespace: string };
      nodeStageSecretRef?: { name: string; namespace: string };
      nodePublishSecretRef?: { name: string; namespace: string };
      nodeExpandSecretRef?: { name: string; namespace: string };
    };
    [source: string]: unknown;
  };
  status?: { phase?: string };
}

export interface VolumeAttachment extends KubeObject {
  spec: { attacher: string; nodeName: string; source: { persistentVolumeName?: string } };
  status?: {
    attached: boolean;
    attachmentMetadata?: Record<string, string>;
    /** `errorCode` is gRPC's. */
    attachError?: { message?: string; errorCode?: number };
  };
}

export interface CsiDriver extends KubeObject {
  spec: {
    attachRequired?: boolean;
    podInfoOnMount?: boolean;
    fsGroupPolicy?: 'ReadWriteOnceWithFSType' | 'File' | 'None';
    volumeLifecycleModes?: string[];
    tokenRequests?: { audience: string; expirationSeconds?: number }[];
    requiresRepublish?: boolean;
    seLinuxMount?: boolean;
    nodeAllocatableUpdatePeriodSeconds?: number;
  };
}

export interface CsiNode extends KubeObject {
  spec: {
    drivers: { name: string; nodeID: string; topologyKeys?: string[] | null; allocatable?: { count?: number } }[];
  };
}
