// The flags of `stevedore run` that stand for settings of its configuration, and where in it each belongs.
import type { Taint } from '../kube/types/core.ts';
import type { FlagSetting } from './config/load.ts';

export interface RunFlags {
  config?: string[];
  configDir?: string;
  kubeconfig?: string;
  bootstrapKubeconfig?: string;
  hostnameOverride?: string;
  nodeIp?: string;
  rootDir?: string;
  certDir?: string;
  containerRuntimeEndpoint?: string;
  nodeLabels?: string;
  registerWithTaints?: string;
  cloudProvider?: string;
  only?: string;
  dryRun?: boolean;
  lockFile?: string;
  exitOnLockContention?: boolean;
  v?: string;
}

/** Throws an Error that names the flag where its value cannot be read. */
export function flagSettings(flags: RunFlags): FlagSetting[] {
  const settings: FlagSetting[] = [];
  const set = (flag: string, kind: FlagSetting['kind'], path: string[], value: unknown): void => {
    if (value !== undefined) settings.push({ flag, kind, path, value });
  };
  const own = 'StevedoreConfiguration';
  set('--kubeconfig', own, ['kubeconfig'], flags.kubeconfig);
  set('--bootstrap-kubeconfig', own, ['bootstrapKubeconfig'], flags.bootstrapKubeconfig);
  set('--hostname-override', own, ['hostnameOverride'], flags.hostnameOverride);
  set('--node-ip', own, ['nodeIP'], flags.nodeIp);
  set('--root-dir', own, ['rootDir'], flags.rootDir);
  set('--cert-dir', own, ['certDir'], flags.certDir);
  set('--cloud-provider', own, ['cloudProvider'], flags.cloudProvider);
  set('--node-labels', own, ['nodeLabels'], flags.nodeLabels === undefined ? undefined : parseLabels(flags.nodeLabels));
  set(
    '--container-runtime-endpoint',
    'KubeletConfiguration',
    ['containerRuntimeEndpoint'],
    flags.containerRuntimeEndpoint,
  );
  set('--v', own, ['log', 'level'], flags.v);
  if (flags.registerWithTaints !== undefined)
    set(
      '--register-with-taints',
      'KubeletConfiguration',
      ['registerWithTaints'],
      parseTaints(flags.registerWithTaints),
    );
  return settings;
}

function parseLabels(text: string): Record<string, string> {
  const pairs = text.split(',').filter((part) => part !== '');
  return Object.fromEntries(
    pairs.map((pair) => {
      const at = pair.indexOf('=');
      if (at < 1) throw new Error(`--node-labels: "${pair}" is not key=value`);
      return [pair.slice(0, at), pair.slice(at + 1)];
    }),
  );
}

function parseTaints(text: string): Taint[] {
  const effects = ['NoSchedule', 'PreferNoSchedule', 'NoExecute'] as const;
  return text
    .split(',')
    .filter((part) => part !== '')
    .map((part) => {
      const match = /^([^=:]+)(?:=([^:]*))?:(\w+)$/.exec(part);
      const effect = effects.find((each) => each === match?.[3]);
      if (!match?.[1] || !effect)
        throw new Error(
          `--register-with-taints: "${part}" is not key=value:effect, effect one of ${effects.join(', ')}`,
        );
      return { key: match[1], ...(match[2] === undefined ? {} : { value: match[2] }), effect };
    });
}
