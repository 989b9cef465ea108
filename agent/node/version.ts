// The version the node reports: that of the Kubernetes it behaves as, with our own behind it.

/** The Kubernetes release whose behaviour this agent follows. */
export const kubernetesVersion = '1.36.2';

/** For example `v1.36.2+stevedore.0.1.0`. */
export const kubeletVersion = (ownVersion: string): string => `v${kubernetesVersion}+stevedore.${ownVersion}`;
