// Where `stevedore dev` keeps what it makes: all below two folders, so that nothing else on the host is touched.
import { join } from 'node:path';

export interface DevFolders {
  readonly data: string;
  readonly run: string;
  readonly containerdRoot: string;
  readonly containerdState: string;
  readonly containerdConfig: string;
  readonly containerdSocket: string;
  readonly containerdLog: string;
  readonly containerdPid: string;
  readonly nodePid: string;
  readonly nodeLog: string;
  readonly nodeConfig: string;
  readonly nodeRoot: string;
  readonly nodeSocket: string;
  readonly podLogs: string;
  readonly cniConf: string;
  readonly images: string;
  readonly caFile: string;
  readonly adminKubeconfig: string;
  readonly nodeKubeconfig: string;
}

export const devFolders = (data: string, run: string): DevFolders => ({
  data,
  run,
  containerdRoot: join(data, 'containerd'),
  containerdState: join(run, 'containerd'),
  containerdConfig: join(data, 'containerd.toml'),
  containerdSocket: join(run, 'containerd.sock'),
  containerdLog: join(data, 'containerd.log'),
  containerdPid: join(run, 'containerd.pid'),
  nodePid: join(run, 'node.pid'),
  nodeLog: join(data, 'node.log'),
  nodeConfig: join(data, 'node.yaml'),
  nodeRoot: join(data, 'kubelet'),
  nodeSocket: join(run, 'stevedore.sock'),
  podLogs: join(data, 'pod-logs'),
  cniConf: join(data, 'cni', 'net.d'),
  images: join(data, 'images'),
  caFile: join(data, 'control-plane', 'ca.crt'),
  adminKubeconfig: join(data, 'admin.kubeconfig'),
  nodeKubeconfig: join(data, 'node.kubeconfig'),
});
