// The node: `stevedore run` as a process of its own, with configuration documents as an operator would write them.
import { writeFile } from 'node:fs/promises';
import { stringify } from 'yaml';
import type { KubeClient } from '../../kube/client.ts';
import { resources } from '../../kube/resources.ts';
import type { Clock } from '../../lib/clock.ts';
import { type Child, startChild } from './child.ts';
import type { DevFolders } from './folders.ts';

export interface DevNodeOptions {
  readonly name: string;
  readonly address: string;
  readonly runtimeEndpoint: string;
  readonly podCidr: string;
  readonly cniConf: string;
}

const documents = (folders: DevFolders, options: DevNodeOptions): unknown[] => [
  {
    apiVersion: 'kubelet.config.k8s.io/v1beta1',
    kind: 'KubeletConfiguration',
    containerRuntimeEndpoint: options.runtimeEndpoint,
    address: options.address,
    authentication: {
      x509: { clientCAFile: folders.caFile },
      webhook: { enabled: true },
      anonymous: { enabled: false },
    },
    authorization: { mode: 'Webhook' },
    podLogsDir: folders.podLogs,
    failSwapOn: false,
    // Nothing on this machine looks for them, and nothing is to be left of it.
    makeIPTablesUtilChains: false,
  },
  {
    apiVersion: 'kubeproxy.config.k8s.io/v1alpha1',
    kind: 'KubeProxyConfiguration',
    clusterCIDR: options.podCidr,
  },
  {
    apiVersion: 'stevedore/v1alpha1',
    kind: 'StevedoreConfiguration',
    kubeconfig: folders.nodeKubeconfig,
    rootDir: folders.nodeRoot,
    socketPath: folders.nodeSocket,
    hostnameOverride: options.name,
    nodeIP: options.address,
    log: { level: 'info', format: 'text' },
    cni: { confDir: options.cniConf },
    // A host of its own has the kernel's settings; this one has its owner's.
    kernelSettings: 'none',
  },
];

/** Starts the daemon from the very program that runs now. */
export async function startNode(clock: Clock, folders: DevFolders, options: DevNodeOptions): Promise<Child> {
  const text = documents(folders, options).map((document) => stringify(document));
  await writeFile(folders.nodeConfig, text.join('---\n'));
  return startChild(clock, {
    command: process.execPath,
    args: [...process.execArgv, process.argv[1]!, 'run', '--config', folders.nodeConfig],
    logPath: folders.nodeLog,
    pidPath: folders.nodePid,
  });
}

const patienceMs = 60_000;

export async function waitForNode(
  clock: Clock,
  client: KubeClient,
  name: string,
  progress: (text: string) => void,
): Promise<string> {
  const startedMs = clock.monotonicMs();
  for (;;) {
    const { items } = await client.list(resources.nodes, { fieldSelector: `metadata.name=${name}` });
    const ready = items[0]?.status?.conditions?.find(({ type }) => type === 'Ready');
    if (ready?.status === 'True') return items[0]?.status?.nodeInfo?.kubeletVersion ?? '';
    progress(!items[0] ? 'registering' : (ready?.message ?? 'registered'));
    if (clock.monotonicMs() - startedMs > patienceMs)
      throw new Error(
        `the node ${name} is not Ready within ${patienceMs / 1000} s: ${ready?.message ?? 'it has not registered'}`,
      );
    await clock.sleep(200);
  }
}
