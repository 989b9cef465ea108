// StevedoreConfiguration (stevedore/v1alpha1): what neither KubeletConfiguration nor KubeProxyConfiguration has a field for. Most of it
// are the kubelet's command-line flags, so that one file can say everything; a flag given on the command line wins.
import * as v from 'valibot';
import { parseGoDuration } from '../../lib/go-duration.ts';

export const stevedoreApiVersion = 'stevedore/v1alpha1';

const text = (fallback = '') => v.optional(v.string('must be text'), fallback);
const flag = (fallback: boolean) => v.optional(v.boolean('must be true or false'), fallback);
const duration = (fallback: string) =>
  v.pipe(
    v.optional(v.string('must be a duration such as "10s"'), fallback),
    v.check((value) => (parseGoDuration(value) ?? -1) >= 0, 'must be a duration such as "10s"'),
    v.transform((value): number => parseGoDuration(value) ?? 0),
  );

export const stevedoreConfigurationFields = v.strictObject({
  apiVersion: v.optional(v.literal(stevedoreApiVersion), stevedoreApiVersion),
  kind: v.optional(v.literal('StevedoreConfiguration'), 'StevedoreConfiguration'),
  /** Where `stevedore status` and `stevedore why` ask. */
  socketPath: text('/run/stevedore/stevedore.sock'),
  /** Which halves run here. */
  agent: v.optional(v.strictObject({ enabled: flag(true) }), {}),
  proxy: v.optional(v.strictObject({ enabled: flag(true) }), {}),
  log: v.optional(
    v.strictObject({
      level: v.optional(
        v.picklist(['debug', 'info', 'warn', 'error'], 'must be one of debug, info, warn, error'),
        'info',
      ),
      format: v.optional(v.picklist(['json', 'text'], 'must be json or text'), 'json'),
    }),
    {},
  ),
  /** Absent with no bootstrapKubeconfig either: static pods only, no API server. */
  kubeconfig: text(),
  bootstrapKubeconfig: text(),
  rootDir: text('/var/lib/kubelet'),
  /** Empty: `pki` under rootDir. */
  certDir: text(),
  hostnameOverride: text(),
  /** One address, or one of each family with a comma between; `0.0.0.0` or `::` choose a family. Empty: the default route's address. */
  nodeIP: text(),
  nodeLabels: v.optional(v.record(v.string(), v.string('must be text')), {}),
  /** `external`: a cloud controller manager gives the addresses and takes away the uninitialized taint. */
  cloudProvider: v.optional(v.picklist(['', 'external'], 'must be "external" or empty'), ''),
  /** `auto`: provider id and zone of an EC2 instance are asked of its metadata service, where the firmware says it is one. */
  instanceMetadata: v.optional(v.picklist(['auto', 'none'], 'must be auto or none'), 'auto'),
  /** `auto`: memory overcommit, panics and key quotas of the host's kernel are set as a kubelet sets them; `none`: they stay as they are. */
  kernelSettings: v.optional(v.picklist(['auto', 'none'], 'must be auto or none'), 'auto'),
  imageCredentialProviderConfig: text(),
  imageCredentialProviderBinDir: text(),
  cni: v.optional(
    v.strictObject({
      confDir: text('/etc/cni/net.d'),
      binDir: text('/opt/cni/bin'),
      /** Writes a bridge network made of the node's podCIDR where confDir is empty. */
      writeBridge: flag(false),
    }),
    {},
  ),
  /** How long the daemon takes at most to end in order when it is told to; pods outlive it. */
  stopTimeout: duration('10s'),
});

export type StevedoreConfiguration = v.InferOutput<typeof stevedoreConfigurationFields>;
