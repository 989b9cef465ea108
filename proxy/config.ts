// KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1) as Kubernetes 1.36 knows it: every field, its type and kube-proxy's own default.
// Field names are the API's; a duration is written as Go writes it and held in milliseconds. Reading files is cli/config's business.
import * as v from 'valibot';
import { parseGoDuration } from '../lib/go-duration.ts';
import { onWire, type WireSchema } from '../lib/on-wire.ts';

export const kubeProxyApiVersion = 'kubeproxy.config.k8s.io/v1alpha1';

const isDuration = (text: string): boolean => text === '' || (parseGoDuration(text) ?? -1) >= 0;
const durationText = v.pipe(
  v.string('must be a duration such as "10s"'),
  v.check(isDuration, (issue) => `must be a duration such as "10s", is ${issue.received}`),
);
/** The schemas whose values are durations. */
const durations = new WeakSet<object>();
const asDuration = <Schema extends object>(schema: Schema): Schema => {
  durations.add(schema);
  return schema;
};
/** In milliseconds. Go cannot tell an absent duration from `0s`, so both mean the default. */
const duration = (fallback: string) =>
  asDuration(
    v.pipe(
      v.optional(v.nullable(durationText), ''),
      v.transform((text): number => parseGoDuration(text ?? '') || (parseGoDuration(fallback) ?? 0)),
    ),
  );
/** In milliseconds; `0s` means zero and null the default. */
const exactDuration = (fallback: string) =>
  asDuration(
    v.pipe(
      v.optional(v.nullable(durationText), null),
      v.transform((text): number => parseGoDuration(text || fallback) ?? 0),
    ),
  );

const integer = (min: number, max: number) =>
  v.pipe(
    v.number('must be a number'),
    v.integer('must be a whole number'),
    v.minValue(min, `must be at least ${min}`),
    v.maxValue(max, `must be at most ${max}`),
  );
/** null, as kubeadm's ConfigMap has it, means the default. */
const number = (fallback: number, min = 0, max = 2 ** 31 - 1) =>
  v.pipe(
    v.optional(v.nullable(integer(min, max)), null),
    v.transform((value): number => value ?? fallback),
  );
const flag = (fallback: boolean) =>
  v.pipe(
    v.optional(v.nullable(v.boolean('must be true or false')), null),
    v.transform((value): boolean => value ?? fallback),
  );
const text = (fallback = '') =>
  v.pipe(
    v.optional(v.string('must be text'), ''),
    v.transform((value): string => value || fallback),
  );
const list = () =>
  v.pipe(
    v.optional(v.nullable(v.array(v.string('must be text'))), null),
    v.transform((value): string[] => value ?? []),
  );

const ruleFields = {
  masqueradeBit: number(14, 0, 31),
  masqueradeAll: flag(false),
  syncPeriod: duration('30s'),
  // kube-proxy's default of 1 s is there to bear its full rewrites; here it is honoured where it is set.
  minSyncPeriod: duration('0s'),
};

export const kubeProxyConfigurationFields = v.strictObject({
  apiVersion: v.optional(v.literal(kubeProxyApiVersion), kubeProxyApiVersion),
  kind: v.optional(v.literal('KubeProxyConfiguration'), 'KubeProxyConfiguration'),
  featureGates: v.optional(v.record(v.string(), v.boolean('must be true or false')), {}),
  clientConnection: v.optional(
    v.strictObject({
      kubeconfig: text(),
      acceptContentTypes: text(),
      contentType: text(),
      qps: v.optional(v.number('must be a number'), 0),
      burst: v.optional(integer(0, 2 ** 31 - 1), 0),
    }),
    {},
  ),
  logging: v.optional(v.looseObject({ format: text(), verbosity: v.optional(v.number(), 0) }), {}),
  hostnameOverride: text(),
  bindAddress: text('0.0.0.0'),
  healthzBindAddress: v.optional(v.string('must be text')),
  metricsBindAddress: v.optional(v.string('must be text')),
  bindAddressHardFail: flag(false),
  enableProfiling: flag(false),
  showHiddenMetricsForVersion: text(),
  mode: v.optional(
    v.picklist(
      ['', 'iptables', 'nftables', 'ipvs', 'auto'],
      'must be iptables, nftables, auto, ipvs or blank (iptables)',
    ),
    '',
  ),
  iptables: v.optional(v.strictObject({ ...ruleFields, localhostNodePorts: flag(true) }), {}),
  nftables: v.optional(v.strictObject(ruleFields), {}),
  ipvs: v.optional(
    v.strictObject({
      syncPeriod: duration('30s'),
      minSyncPeriod: duration('0s'),
      scheduler: text(),
      excludeCIDRs: list(),
      strictARP: flag(false),
      tcpTimeout: duration('0s'),
      tcpFinTimeout: duration('0s'),
      udpTimeout: duration('0s'),
    }),
    {},
  ),
  winkernel: v.optional(v.looseObject({}), {}),
  detectLocalMode: v.optional(
    v.picklist(
      ['', 'ClusterCIDR', 'NodeCIDR', 'BridgeInterface', 'InterfaceNamePrefix'],
      'must be ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix',
    ),
    '',
  ),
  detectLocal: v.optional(v.strictObject({ bridgeInterface: text(), interfaceNamePrefix: text() }), {}),
  clusterCIDR: text(),
  nodePortAddresses: list(),
  oomScoreAdj: number(-999, -1000, 1000),
  conntrack: v.optional(
    v.strictObject({
      maxPerCore: number(32 * 1024),
      min: number(128 * 1024),
      tcpEstablishedTimeout: exactDuration('24h'),
      tcpCloseWaitTimeout: exactDuration('1h'),
      tcpBeLiberal: flag(false),
      udpTimeout: duration('0s'),
      udpStreamTimeout: duration('0s'),
    }),
    {},
  ),
  configSyncPeriod: duration('15m'),
  portRange: text(),
  windowsRunAsService: flag(false),
});

type Fields = v.InferOutput<typeof kubeProxyConfigurationFields>;

export interface KubeProxyConfiguration extends Omit<Fields, 'healthzBindAddress' | 'metricsBindAddress'> {
  /** `ip:port`. */
  readonly healthzBindAddress: string;
  /** `ip:port`. */
  readonly metricsBindAddress: string;
}

const withPort = (address: string | undefined, fallback: string, port: number): string => {
  if (!address) return `${fallback}:${port}`;
  if (/^\[.*\]:\d+$|^[^:]*:\d+$/.test(address)) return address;
  return address.includes(':') && !address.startsWith('[') ? `[${address}]:${port}` : `${address}:${port}`;
};

/** Fills in the defaults that depend on other fields. */
export function completeKubeProxyConfiguration(fields: Fields): KubeProxyConfiguration {
  const v6 = fields.bindAddress.includes(':');
  return {
    ...fields,
    healthzBindAddress: withPort(fields.healthzBindAddress, v6 ? '[::]' : '0.0.0.0', 10_256),
    metricsBindAddress: withPort(fields.metricsBindAddress, v6 ? '[::1]' : '127.0.0.1', 10_249),
  };
}

export const defaultKubeProxyConfiguration = (): KubeProxyConfiguration =>
  completeKubeProxyConfiguration(v.parse(kubeProxyConfigurationFields, {}));

/** The mode that rules are written in; `ipvs` and `auto` are settled by then. */
type Kind = 'iptables' | 'nftables';

/** How often is written, and looked; that of `ipvs` where that was asked for. */
export function syncPeriodsOf(
  config: KubeProxyConfiguration,
  kind: Kind,
): { syncPeriod: number; minSyncPeriod: number } {
  if (config.mode === 'ipvs') return config.ipvs;
  return kind === 'nftables' ? config.nftables : config.iptables;
}

/** What is masqueraded, and by which bit. The IPVS mode has no section of its own for it: it takes that of iptables, in kube-proxy too. */
export function masqueradingOf(
  config: KubeProxyConfiguration,
  kind: Kind,
): { masqueradeAll: boolean; masqueradeBit: number } {
  return kind === 'nftables' && config.mode !== 'ipvs' ? config.nftables : config.iptables;
}

/** As the API writes it, for /configz, with what follows from the mode that is in force. */
export const kubeProxyConfigurationOnWire = (config: KubeProxyConfiguration, kind: Kind): unknown =>
  onWire(kubeProxyConfigurationFields as unknown as WireSchema, durations, {
    ...config,
    mode: kind,
    detectLocalMode: config.detectLocalMode || 'ClusterCIDR',
  });
