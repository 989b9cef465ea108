// What a KubeletConfiguration may not say, and what it says that is not honoured here. Pure: positions in files are the reader's business.
import type { KubeletConfiguration } from './config.ts';
import { parseThresholds } from './node/thresholds.ts';

export interface ConfigurationRemark {
  /** The field, from the document's root. */
  readonly path: readonly (string | number)[];
  readonly message: string;
}

type Rule = (config: KubeletConfiguration) => readonly ConfigurationRemark[];

const when = (wrong: boolean, path: string, message: string): ConfigurationRemark[] =>
  wrong ? [{ path: path.split('.'), message }] : [];

const unsupportedManagers: Rule = (c) => [
  ...when(
    c.cpuManagerPolicy !== 'none',
    'cpuManagerPolicy',
    `"${c.cpuManagerPolicy}" is not supported: only "none" is (containers share all CPUs)`,
  ),
  ...when(
    c.memoryManagerPolicy !== 'None',
    'memoryManagerPolicy',
    `"${c.memoryManagerPolicy}" is not supported: only "None" is`,
  ),
  ...when(
    c.topologyManagerPolicy !== 'none',
    'topologyManagerPolicy',
    `"${c.topologyManagerPolicy}" is not supported: only "none" is`,
  ),
  ...when(c.reservedMemory.length > 0, 'reservedMemory', 'needs the Static memory manager, which is not supported'),
  ...when(Object.keys(c.qosReserved).length > 0, 'qosReserved', 'is not supported: remove it'),
  ...when(c.runOnce, 'runOnce', 'was removed from Kubernetes: remove it'),
];

const images: Rule = (c) => [
  ...when(
    c.imageGCLowThresholdPercent >= c.imageGCHighThresholdPercent,
    'imageGCLowThresholdPercent',
    `${c.imageGCLowThresholdPercent} must be less than imageGCHighThresholdPercent ${c.imageGCHighThresholdPercent}`,
  ),
  ...when(
    c.imageMaximumGCAge > 0 && c.imageMaximumGCAge <= c.imageMinimumGCAge,
    'imageMaximumGCAge',
    'must be greater than imageMinimumGCAge',
  ),
  ...when(
    c.serializeImagePulls && (c.maxParallelImagePulls ?? 1) > 1,
    'maxParallelImagePulls',
    'cannot be larger than 1 unless serializeImagePulls is false',
  ),
  ...when(
    c.preloadedImagesVerificationAllowlist.length > 0 &&
      c.imagePullCredentialsVerificationPolicy !== 'NeverVerifyAllowlistedImages',
    'preloadedImagesVerificationAllowlist',
    'needs imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages',
  ),
];

const shutdown: Rule = (c) => [
  ...when(
    c.shutdownGracePeriodCriticalPods > c.shutdownGracePeriod,
    'shutdownGracePeriodCriticalPods',
    'must not be longer than shutdownGracePeriod',
  ),
  ...when(
    c.shutdownGracePeriod > 0 && c.shutdownGracePeriod < 1000,
    'shutdownGracePeriod',
    'must be zero or at least one second',
  ),
  ...when(
    c.shutdownGracePeriodCriticalPods > 0 && c.shutdownGracePeriodCriticalPods < 1000,
    'shutdownGracePeriodCriticalPods',
    'must be zero or at least one second',
  ),
  ...when(
    c.shutdownGracePeriodByPodPriority.length > 0 && c.shutdownGracePeriod > 0,
    'shutdownGracePeriodByPodPriority',
    'cannot be given together with shutdownGracePeriod',
  ),
];

const enforcements = [
  'pods',
  'none',
  'system-reserved',
  'system-reserved-compressible',
  'kube-reserved',
  'kube-reserved-compressible',
];

const reservations: Rule = (c) => {
  const asked = c.enforceNodeAllocatable;
  const has = (prefix: string): boolean => asked.some((name) => name.startsWith(prefix));
  const path = 'enforceNodeAllocatable';
  return [
    ...asked
      .filter((name) => !enforcements.includes(name))
      .flatMap((name) => when(true, path, `"${name}" is not one of ${enforcements.join(', ')}`)),
    ...when(asked.includes('none') && asked.length > 1, path, '"none" stands alone'),
    ...when(new Set(asked).size !== asked.length, path, 'names something twice'),
    ...when(
      has('system-reserved') && c.systemReservedCgroup === '',
      path,
      'system-reserved needs systemReservedCgroup',
    ),
    ...when(has('kube-reserved') && c.kubeReservedCgroup === '', path, 'kube-reserved needs kubeReservedCgroup'),
    ...when(
      !c.cgroupsPerQOS && asked.some((name) => name !== 'none'),
      path,
      'needs cgroupsPerQOS: true; or set it to ["none"]',
    ),
    ...when(
      c.reservedSystemCPUs !== '' && (c.systemReservedCgroup !== '' || c.kubeReservedCgroup !== ''),
      'reservedSystemCPUs',
      'cannot be given together with systemReservedCgroup or kubeReservedCgroup',
    ),
    ...when(c.systemCgroups !== '' && c.cgroupRoot === '', 'systemCgroups', 'needs cgroupRoot'),
  ];
};

const periods: Rule = (c) => [
  ...when(c.cpuCFSQuotaPeriod < 1 || c.cpuCFSQuotaPeriod > 1000, 'cpuCFSQuotaPeriod', 'must be between 1ms and 1s'),
  ...when(
    c.crashLoopBackOff.maxContainerRestartPeriod < 1000 || c.crashLoopBackOff.maxContainerRestartPeriod > 300_000,
    'crashLoopBackOff.maxContainerRestartPeriod',
    'must be between 1s and 300s',
  ),
];

const tracing: Rule = (c) => {
  const endpoint = c.tracing?.endpoint ?? '';
  const scheme = /^([a-z-]+):\/\//.exec(endpoint)?.[1];
  return [
    ...when(
      scheme !== undefined && !['dns', 'unix', 'unix-abstract'].includes(scheme),
      'tracing.endpoint',
      `unsupported scheme ${scheme}: give host:port, or dns://, unix:// or unix-abstract:// (OTLP over gRPC, without TLS)`,
    ),
    ...when(c.tracing?.endpoint === '', 'tracing.endpoint', 'is empty: leave it out for localhost:4317'),
  ];
};

const rules: readonly Rule[] = [
  tracing,
  unsupportedManagers,
  images,
  shutdown,
  reservations,
  periods,
  (config) => parseThresholds(config).problems,
];

/** What keeps the agent from running with this configuration. */
export const refuseKubeletConfiguration = (config: KubeletConfiguration): ConfigurationRemark[] =>
  rules.flatMap((rule) => rule(config));

/** Fields of Kubernetes that change nothing here, and why. Each is named once if it is set to something else than its default. */
export const notHonoured: Readonly<Partial<Record<keyof KubeletConfiguration, string>>> = {
  contentType: 'the API is spoken in JSON',
  configMapAndSecretChangeDetectionStrategy: 'the mounted objects themselves are always watched',
  cpuManagerPolicyOptions: 'there is no CPU manager',
  cpuManagerReconcilePeriod: 'there is no CPU manager',
  topologyManagerScope: 'there is no topology manager',
  topologyManagerPolicyOptions: 'there is no topology manager',
  memoryThrottlingFactor: 'memory QoS is not applied',
  memoryReservationPolicy: 'memory QoS is not applied',
  kernelMemcgNotification: 'memory pressure always wakes the agent',
  enableContentionProfiling: 'there are no locks to profile',
  enableDebugFlagsHandler: 'the log level is set by StevedoreConfiguration',
  showHiddenMetricsForVersion: 'no metric is hidden',
  hairpinMode: "the pod network's plugin decides",
  volumePluginDir: 'FlexVolume is not supported',
  enableControllerAttachDetach: 'attaching is always the controller’s work',
  volumeStatsAggPeriod: 'volume statistics are taken when they are asked for',
  kubeletCgroups: 'the service manager places the agent',
  systemCgroups: 'the service manager places system daemons',
  maxOpenFiles: 'the service manager sets the limit',
  syncFrequency: 'each pod is looked at when something about it changes, or is due',
  eventRecordQPS: 'many alike become one, and what is written waits its turn',
  eventBurst: 'many alike become one, and what is written waits its turn',
  iptablesMasqueradeBit: 'masquerading is the proxy’s work, and set there',
  iptablesDropBit: 'no packet is marked to be dropped',
  kubeAPIQPS: 'requests are made once for each change and need no limit',
  kubeAPIBurst: 'requests are made once for each change and need no limit',
  logging: 'log level and format are set by StevedoreConfiguration',
  tlsCurvePreferences: "Node's own preferences hold",
  imageServiceEndpoint: 'images are asked of the container runtime',
};

// Formats' own options and flushing are noise that kubeadm writes into every cluster.
const said = (config: KubeletConfiguration, field: keyof KubeletConfiguration): unknown =>
  field === 'logging' ? [config.logging.format, config.logging.verbosity, config.logging.vmodule] : config[field];

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** What this agent does whatever is asked: nothing to remark where just that is asked. */
const expectedGates: Readonly<Record<string, boolean>> = { DynamicResourceAllocation: false };

// On for good in the kubelet since 1.35: a configuration that says so is no reason not to run.
const gateRemarks: Readonly<Record<string, string>> = {
  DynamicResourceAllocation:
    'dynamic resource allocation is not supported: pods with resource claims are refused on this node',
};

/** One remark for each field that is set and not honoured, and one for each feature gate that this agent does not know. */
export function remarkKubeletConfiguration(
  config: KubeletConfiguration,
  defaults: KubeletConfiguration,
  honouredGates: readonly string[] = [],
): ConfigurationRemark[] {
  const fields = Object.entries(notHonoured).flatMap(([field, why]) => {
    const name = field as keyof KubeletConfiguration;
    return same(said(config, name), said(defaults, name)) ? [] : when(true, field, `is not honoured: ${why}`);
  });
  const gates = Object.keys(config.featureGates)
    .filter((gate) => !honouredGates.includes(gate) && config.featureGates[gate] !== expectedGates[gate])
    .map((gate) => ({
      path: ['featureGates', gate],
      message: `is not honoured: ${gateRemarks[gate] ?? 'this agent has no such switch'}`,
    }));
  return [...fields, ...gates];
}
