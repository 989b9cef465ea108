// The resources this project reads and writes: where each lives in the API.
import type * as core from './types/core.ts';
import type { KubeObject } from './types/meta.ts';
import type { Pod } from './types/pod.ts';
import type * as storage from './types/volume.ts';

/** A resource of the API; `T` is what its objects look like. */
export interface Resource<T extends KubeObject = KubeObject> {
  readonly group: string;
  readonly version: string;
  readonly plural: string;
  readonly kind: string;
  readonly namespaced: boolean;
  /** Never set; it carries the type. */
  readonly object?: T;
}

/** From `group/version`, or `v1`. */
export const define = <T extends KubeObject>(
  apiVersion: string,
  plural: string,
  kind: string,
  scope: 'Namespaced' | 'Cluster',
): Resource<T> => {
  const [version = '', group = ''] = apiVersion.split('/').reverse();
  return { group, version, plural, kind, namespaced: scope === 'Namespaced' };
};

export const resources = {
  pods: define<Pod>('v1', 'pods', 'Pod', 'Namespaced'),
  nodes: define<core.Node>('v1', 'nodes', 'Node', 'Cluster'),
  namespaces: define<core.Namespace>('v1', 'namespaces', 'Namespace', 'Cluster'),
  services: define<core.Service>('v1', 'services', 'Service', 'Namespaced'),
  configMaps: define<core.ConfigMap>('v1', 'configmaps', 'ConfigMap', 'Namespaced'),
  secrets: define<core.Secret>('v1', 'secrets', 'Secret', 'Namespaced'),
  serviceAccounts: define<core.ServiceAccount>('v1', 'serviceaccounts', 'ServiceAccount', 'Namespaced'),
  events: define<core.CoreEvent>('v1', 'events', 'Event', 'Namespaced'),
  persistentVolumeClaims: define<storage.PersistentVolumeClaim>(
    'v1',
    'persistentvolumeclaims',
    'PersistentVolumeClaim',
    'Namespaced',
  ),
  persistentVolumes: define<storage.PersistentVolume>('v1', 'persistentvolumes', 'PersistentVolume', 'Cluster'),
  endpointSlices: define<core.EndpointSlice>('discovery.k8s.io/v1', 'endpointslices', 'EndpointSlice', 'Namespaced'),
  leases: define<core.Lease>('coordination.k8s.io/v1', 'leases', 'Lease', 'Namespaced'),
  runtimeClasses: define<core.RuntimeClass>('node.k8s.io/v1', 'runtimeclasses', 'RuntimeClass', 'Cluster'),
  csiDrivers: define<storage.CsiDriver>('storage.k8s.io/v1', 'csidrivers', 'CSIDriver', 'Cluster'),
  csiNodes: define<storage.CsiNode>('storage.k8s.io/v1', 'csinodes', 'CSINode', 'Cluster'),
  volumeAttachments: define<storage.VolumeAttachment>(
    'storage.k8s.io/v1',
    'volumeattachments',
    'VolumeAttachment',
    'Cluster',
  ),
  tokenReviews: define<core.TokenReview>('authentication.k8s.io/v1', 'tokenreviews', 'TokenReview', 'Cluster'),
  subjectAccessReviews: define<core.SubjectAccessReview>(
    'authorization.k8s.io/v1',
    'subjectaccessreviews',
    'SubjectAccessReview',
    'Cluster',
  ),
  certificateSigningRequests: define<core.CertificateSigningRequest>(
    'certificates.k8s.io/v1',
    'certificatesigningrequests',
    'CertificateSigningRequest',
    'Cluster',
  ),
  clusterTrustBundles: define<core.ClusterTrustBundle>(
    'certificates.k8s.io/v1beta1',
    'clustertrustbundles',
    'ClusterTrustBundle',
    'Cluster',
  ),
  podCertificateRequests: define<core.PodCertificateRequest>(
    'certificates.k8s.io/v1beta1',
    'podcertificaterequests',
    'PodCertificateRequest',
    'Namespaced',
  ),
  serviceCidrs: define<core.ServiceCidr>('networking.k8s.io/v1', 'servicecidrs', 'ServiceCIDR', 'Cluster'),
} as const;
