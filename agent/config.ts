// KubeletConfiguration (kubelet.config.k8s.io/v1beta1) as Kubernetes 1.36 knows it: every field, its type and the kubelet's own default.
// Field names are the API's; a duration is written as Go writes it and held in milliseconds. Reading files is cli/config's business.
import * as v from 'valibot';
import { parseGoDuration } from '../lib/go-duration.ts';

export const kubeletApiVersion = 'kubelet.config.k8s.io/v1beta1';

/** Which fields are durations, for who writes them again. */
export const durations = new WeakSet<object>();

/**
 * A duration field, in milliseconds. Go cannot tell an absent duration from a zero one, so `0s` means the default; kubeadm's own
 * ConfigMap is full of them.
 */
const duration = (fallback: string) => {
  const schema = v.pipe(
    v.optional(v.string('must be a duration such as "10s"'), ''),
    v.check(
      (text) => text === '' || (parseGoDuration(text) ?? -1) >= 0,
      (issue) => `must be a duration such as "10s", is ${issue.received}`,
    ),
    v.transform((text): number => parseGoDuration(text) || (parseGoDuration(fallback) ?? 0)),
  );
  durations.add(schema);
  return schema;
};
const integer = (min: number, max: number) =>
  v.pipe(
    v.number('must be a number'),
    v.integer('must be a whole number'),
    v.minValue(min, `must be at least ${min}`),
    v.maxValue(max, `must be at most ${max}`),
  );
const maxInt32 = 2 ** 31 - 1;
/** A whole number whose zero counts as absent, as in Go. */
const count = (fallback: number, min = 0, max = maxInt32) =>
  v.pipe(
    v.optional(integer(min, max), 0),
    v.transform((value): number => value || fallback),
  );
/** A whole number whose zero means zero. */
const number = (fallback: number, min = 0, max = maxInt32) => v.optional(integer(min, max), fallback);
const flag = (fallback: boolean) => v.optional(v.boolean('must be true or false'), fallback);
/** A text whose empty value counts as absent. */
const text = (fallback = '') =>
  v.pipe(
    v.optional(v.string('must be text'), ''),
    v.transform((value): string => value || fallback),
  );
const list = () => v.optional(v.array(v.string('must be text')), []);
const map = () => v.optional(v.record(v.string(), v.string('must be text in quotes')), {});
const oneOf = <const Options extends readonly string[]>(options: Options, fallback: Options[number]) =>
  v.pipe(
    v.optional(v.picklist([...options, ''], `must be one of ${options.join(', ')}`), ''),
    v.transform((value): Options[number] => (value === '' ? fallback : value)),
  );
const port = (fallback: number) => number(fallback, 0, 65_535);

/** A quantity in a reservation or limit: the API lets numbers stand without quotes. */
const quantities = () =>
  v.optional(
    v.record(
      v.string(),
      v.pipe(
        v.union([v.string(), v.number()], 'must be a quantity such as 500Mi'),
        v.transform((value) => String(value)),
      ),
    ),
    {},
  );

const taint = v.strictObject({
  key: v.pipe(v.string('must be text'), v.nonEmpty('must not be empty')),
  value: v.exactOptional(v.string()),
  effect: v.picklist(
    ['NoSchedule', 'PreferNoSchedule', 'NoExecute'],
    'must be one of NoSchedule, PreferNoSchedule, NoExecute',
  ),
});

const fieldsOfServer = {
  enableServer: flag(true),
  address: text('0.0.0.0'),
  port: count(10_250, 0, 65_535),
  readOnlyPort: port(0),
  tlsCertFile: text(),
  tlsPrivateKeyFile: text(),
  tlsCipherSuites: list(),
  tlsCurvePreferences: v.optional(v.array(v.number()), []),
  tlsMinVersion: text('VersionTLS12'),
  rotateCertificates: flag(false),
  serverTLSBootstrap: flag(false),
  authentication: v.optional(
    v.strictObject({
      x509: v.optional(v.strictObject({ clientCAFile: text() }), {}),
      webhook: v.optional(v.strictObject({ enabled: flag(true), cacheTTL: duration('2m') }), {}),
      anonymous: v.optional(v.strictObject({ enabled: flag(false) }), {}),
    }),
    {},
  ),
  authorization: v.optional(
    v.strictObject({
      mode: oneOf(['AlwaysAllow', 'Webhook'], 'Webhook'),
      webhook: v.optional(
        v.strictObject({ cacheAuthorizedTTL: duration('5m'), cacheUnauthorizedTTL: duration('30s') }),
        {},
      ),
    }),
    {},
  ),
  enableDebuggingHandlers: flag(true),
  enableContentionProfiling: flag(false),
  healthzPort: port(10_248),
  healthzBindAddress: text('127.0.0.1'),
  streamingConnectionIdleTimeout: duration('4h'),
  enableSystemLogHandler: flag(true),
  enableSystemLogQuery: flag(false),
  enableProfilingHandler: flag(true),
  enableDebugFlagsHandler: flag(true),
  showHiddenMetricsForVersion: text(),
  tracing: v.exactOptional(
    v.strictObject({
      endpoint: v.exactOptional(v.string()),
      samplingRatePerMillion: v.exactOptional(integer(0, 1_000_000)),
    }),
  ),
} as const;

const fieldsOfSources = {
  staticPodPath: text(),
  staticPodURL: text(),
  staticPodURLHeader: v.optional(v.record(v.string(), v.array(v.string())), {}),
  syncFrequency: duration('1m'),
  fileCheckFrequency: duration('20s'),
  httpCheckFrequency: duration('20s'),
  podLogsDir: text('/var/log/pods'),
  contentType: text('application/vnd.kubernetes.protobuf'),
  kubeAPIQPS: number(50),
  kubeAPIBurst: count(100),
  eventRecordQPS: number(50),
  eventBurst: count(100),
  configMapAndSecretChangeDetectionStrategy: oneOf(['Get', 'Cache', 'Watch'], 'Watch'),
  runOnce: flag(false),
} as const;

const fieldsOfImages = {
  registryPullQPS: number(5),
  registryBurst: count(10),
  serializeImagePulls: v.exactOptional(v.boolean('must be true or false')),
  maxParallelImagePulls: v.exactOptional(integer(1, maxInt32)),
  imagePullCredentialsVerificationPolicy: oneOf(
    ['NeverVerify', 'NeverVerifyPreloadedImages', 'NeverVerifyAllowlistedImages', 'AlwaysVerify'],
    'NeverVerifyPreloadedImages',
  ),
  preloadedImagesVerificationAllowlist: list(),
  imageMinimumGCAge: duration('2m'),
  imageMaximumGCAge: duration('0s'),
  imageGCHighThresholdPercent: number(85, 0, 100),
  imageGCLowThresholdPercent: number(80, 0, 100),
  containerRuntimeEndpoint: text('unix:///run/containerd/containerd.sock'),
  imageServiceEndpoint: text(),
  runtimeRequestTimeout: duration('2m'),
} as const;

const fieldsOfNode = {
  nodeStatusUpdateFrequency: duration('0s'),
  nodeStatusReportFrequency: duration('0s'),
  nodeLeaseDurationSeconds: count(40, 0),
  nodeStatusMaxImages: number(50, -1),
  maxPods: count(110),
  podsPerCore: number(0),
  podCIDR: text(),
  providerID: text(),
  registerNode: flag(true),
  registerWithTaints: v.optional(v.array(taint), []),
  shutdownGracePeriod: duration('0s'),
  shutdownGracePeriodCriticalPods: duration('0s'),
  shutdownGracePeriodByPodPriority: v.optional(
    v.array(
      v.strictObject({
        priority: integer(-(2 ** 31), maxInt32),
        shutdownGracePeriodSeconds: integer(0, Number.MAX_SAFE_INTEGER),
      }),
    ),
    [],
  ),
  enableControllerAttachDetach: flag(true),
  volumePluginDir: text('/usr/libexec/kubernetes/kubelet-plugins/volume/exec/'),
  volumeStatsAggPeriod: duration('1m'),
  localStorageCapacityIsolation: flag(true),
} as const;

const fieldsOfResources = {
  kubeletCgroups: text(),
  systemCgroups: text(),
  cgroupRoot: text(),
  cgroupsPerQOS: flag(true),
  cgroupDriver: oneOf(['cgroupfs', 'systemd'], 'cgroupfs'),
  cpuManagerPolicy: text('none'),
  cpuManagerPolicyOptions: map(),
  cpuManagerReconcilePeriod: duration('10s'),
  memoryManagerPolicy: text('None'),
  reservedMemory: v.optional(v.array(v.strictObject({ numaNode: integer(0, maxInt32), limits: quantities() })), []),
  topologyManagerPolicy: text('none'),
  topologyManagerScope: oneOf(['container', 'pod'], 'container'),
  topologyManagerPolicyOptions: map(),
  qosReserved: map(),
  singleProcessOOMKill: v.exactOptional(v.boolean('must be true or false')),
  cpuCFSQuota: flag(true),
  cpuCFSQuotaPeriod: duration('100ms'),
  podPidsLimit: v.pipe(
    v.optional(integer(-(2 ** 31), Number.MAX_SAFE_INTEGER), -1),
    v.transform((value): number => (value < 0 ? -1 : value)),
  ),
  oomScoreAdj: number(-999, -1000, 1000),
  maxOpenFiles: count(1_000_000, 0, Number.MAX_SAFE_INTEGER),
  evictionHard: v.exactOptional(v.record(v.string(), v.string('must be text in quotes'))),
  evictionSoft: map(),
  evictionSoftGracePeriod: map(),
  evictionPressureTransitionPeriod: duration('5m'),
  evictionMaxPodGracePeriod: number(0, -1),
  evictionMinimumReclaim: map(),
  mergeDefaultEvictionSettings: flag(false),
  kernelMemcgNotification: flag(false),
  failSwapOn: flag(true),
  memorySwap: v.optional(v.strictObject({ swapBehavior: oneOf(['NoSwap', 'LimitedSwap'], 'NoSwap') }), {}),
  memoryThrottlingFactor: v.optional(v.number('must be a number'), 0.9),
  memoryReservationPolicy: oneOf(['None', 'TieredReservation'], 'None'),
  systemReserved: quantities(),
  kubeReserved: quantities(),
  reservedSystemCPUs: text(),
  systemReservedCgroup: text(),
  kubeReservedCgroup: text(),
  enforceNodeAllocatable: v.optional(v.array(v.string('must be text')), ['pods']),
  protectKernelDefaults: flag(false),
  failCgroupV1: flag(false),
  userNamespaces: v.optional(v.strictObject({ idsPerPod: number(65_536, 65_536, 2 ** 32) }), {}),
} as const;

const fieldsOfPods = {
  clusterDomain: text(),
  clusterDNS: list(),
  resolvConf: v.optional(v.string('must be text'), '/etc/resolv.conf'),
  hairpinMode: oneOf(['hairpin-veth', 'promiscuous-bridge', 'none'], 'promiscuous-bridge'),
  makeIPTablesUtilChains: flag(true),
  iptablesMasqueradeBit: number(14, 0, 31),
  iptablesDropBit: number(15, 0, 31),
  containerLogMaxSize: text('10Mi'),
  containerLogMaxFiles: number(5, 2),
  containerLogMaxWorkers: number(1, 1),
  containerLogMonitorInterval: duration('10s'),
  allowedUnsafeSysctls: list(),
  seccompDefault: flag(false),
  crashLoopBackOff: v.optional(v.strictObject({ maxContainerRestartPeriod: duration('5m') }), {}),
  featureGates: v.optional(v.record(v.string(), v.boolean('must be true or false')), {}),
  logging: v.optional(
    v.strictObject({
      format: oneOf(['text', 'json'], 'text'),
      flushFrequency: v.optional(v.union([v.string(), v.number()]), '5s'),
      verbosity: number(0),
      vmodule: v.optional(v.array(v.strictObject({ filePattern: v.string(), verbosity: v.number() })), []),
      options: v.optional(v.record(v.string(), v.unknown()), {}),
    }),
    {},
  ),
} as const;

/** Fields as the file may hold them; absent ones take the kubelet's default. */
export const kubeletConfigurationFields = v.strictObject({
  apiVersion: v.optional(v.literal(kubeletApiVersion), kubeletApiVersion),
  kind: v.optional(v.literal('KubeletConfiguration'), 'KubeletConfiguration'),
  ...fieldsOfServer,
  ...fieldsOfSources,
  ...fieldsOfImages,
  ...fieldsOfNode,
  ...fieldsOfResources,
  ...fieldsOfPods,
});

export const defaultEvictionHard: Readonly<Record<string, string>> = {
  'memory.available': '100Mi',
  'nodefs.available': '10%',
  'nodefs.inodesFree': '5%',
  'imagefs.available': '15%',
  'imagefs.inodesFree': '5%',
};

type Fields = v.InferOutput<typeof kubeletConfigurationFields>;

/** A KubeletConfiguration with nothing left open. Durations are milliseconds. */
export interface KubeletConfiguration extends Omit<Fields, 'evictionHard' | 'serializeImagePulls'> {
  readonly evictionHard: Readonly<Record<string, string>>;
  readonly serializeImagePulls: boolean;
}

/** Defaults that depend on other fields. */
export function completeKubeletConfiguration(fields: Fields): KubeletConfiguration {
  const { evictionHard, serializeImagePulls, nodeStatusReportFrequency, nodeStatusUpdateFrequency, ...rest } = fields;
  return {
    ...rest,
    nodeStatusUpdateFrequency: nodeStatusUpdateFrequency || 10_000,
    // Upstream's rule: who sets only how often the status is computed gets it written as often.
    nodeStatusReportFrequency: nodeStatusReportFrequency || nodeStatusUpdateFrequency || 300_000,
    serializeImagePulls: serializeImagePulls ?? (fields.maxParallelImagePulls ?? 1) < 2,
    evictionHard:
      evictionHard === undefined
        ? defaultEvictionHard
        : fields.mergeDefaultEvictionSettings
          ? { ...defaultEvictionHard, ...evictionHard }
          : evictionHard,
  };
}

/** The configuration of an agent that was given none. */
export const defaultKubeletConfiguration = (): KubeletConfiguration =>
  completeKubeletConfiguration(v.parse(kubeletConfigurationFields, {}));
