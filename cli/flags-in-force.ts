// The flags of `stevedore run` as they hold, for /flagz: what the command line, the documents and the defaults have come to.
import type { Configuration } from './config/load.ts';

export interface GivenFlags {
  readonly config?: readonly string[];
  readonly configDir?: string;
  readonly only?: string;
  readonly dryRun?: boolean;
  readonly lockFile?: string;
  readonly exitOnLockContention?: boolean;
}

const taintText = (taint: unknown): string => {
  const { key = '', value, effect = '' } = taint as { key?: string; value?: string; effect?: string };
  return `${key}${value ? `=${value}` : ''}:${effect}`;
};

/** By name, without dashes in front, as kubelet's page has them. None of them carries a secret: those are in files, which are named only. */
export function flagsInForce(configuration: Configuration, given: GivenFlags): Record<string, string> {
  const { kubelet, stevedore } = configuration;
  return {
    'bootstrap-kubeconfig': stevedore.bootstrapKubeconfig,
    'cert-dir': stevedore.certDir,
    'cloud-provider': stevedore.cloudProvider,
    config: (given.config ?? []).join(','),
    'config-dir': given.configDir ?? '',
    'container-runtime-endpoint': kubelet.containerRuntimeEndpoint,
    'dry-run': String(given.dryRun ?? false),
    'exit-on-lock-contention': String(given.exitOnLockContention ?? false),
    'hostname-override': stevedore.hostnameOverride,
    kubeconfig: stevedore.kubeconfig,
    'lock-file': given.lockFile ?? '',
    'node-ip': stevedore.nodeIP,
    'node-labels': Object.entries(stevedore.nodeLabels)
      .map(([key, value]) => `${key}=${value}`)
      .sort()
      .join(','),
    only: given.only ?? '',
    'register-with-taints': kubelet.registerWithTaints.map(taintText).join(','),
    'root-dir': stevedore.rootDir,
    v: stevedore.log.level,
  };
}
