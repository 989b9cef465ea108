// The configuration of a private containerd and of its one bridge network, as text. Pure.

export interface ContainerdFolders {
  readonly root: string;
  readonly state: string;
  readonly opt: string;
  readonly cniConf: string;
  readonly cniBin: string;
  readonly ipam: string;
  readonly registry: string;
  readonly socket: string;
}

export interface ContainerdConfigOptions {
  /** 2 for containerd 1.6 and 1.7, 3 for 2.x. */
  readonly version: 2 | 3;
  readonly sandboxImage: string;
  readonly runc: string;
  readonly streamingAddress: string;
  readonly streamingPort: number;
}

const text = (value: string): string => JSON.stringify(value);

function version2(folders: ContainerdFolders, options: ContainerdConfigOptions): string {
  const cri = 'plugins."io.containerd.grpc.v1.cri"';
  const runtime = (name: string): string => `
[${cri}.containerd.runtimes.${name}]
  runtime_type = "io.containerd.runc.v2"
[${cri}.containerd.runtimes.${name}.options]
  BinaryName = ${text(options.runc)}
  SystemdCgroup = false`;
  return `
[${cri}]
  sandbox_image = ${text(options.sandboxImage)}
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  stream_server_address = ${text(options.streamingAddress)}
  stream_server_port = "${options.streamingPort}"
[${cri}.cni]
  bin_dir = ${text(folders.cniBin)}
  conf_dir = ${text(folders.cniConf)}
[${cri}.registry]
  config_path = ${text(folders.registry)}
[${cri}.containerd]
  default_runtime_name = "runc"
${runtime('runc')}
${runtime('test-handler')}
`;
}

function version3(folders: ContainerdFolders, options: ContainerdConfigOptions): string {
  const runtimePlugin = "plugins.'io.containerd.cri.v1.runtime'";
  const runtime = (name: string): string => `
[${runtimePlugin}.containerd.runtimes.${name}]
  runtime_type = "io.containerd.runc.v2"
[${runtimePlugin}.containerd.runtimes.${name}.options]
  BinaryName = ${text(options.runc)}
  SystemdCgroup = false`;
  return `
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = ${text(options.sandboxImage)}
[plugins.'io.containerd.cri.v1.images'.registry]
  config_path = ${text(folders.registry)}
[${runtimePlugin}]
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
[${runtimePlugin}.cni]
  bin_dirs = [${text(folders.cniBin)}]
  conf_dir = ${text(folders.cniConf)}
[${runtimePlugin}.containerd]
  default_runtime_name = "runc"
${runtime('runc')}
${runtime('test-handler')}
[plugins.'io.containerd.grpc.v1.cri']
  stream_server_address = ${text(options.streamingAddress)}
  stream_server_port = "${options.streamingPort}"
`;
}

/** containerd's config.toml. `test-handler` is the second runtime handler that RuntimeClass tests ask for. */
export function containerdConfig(folders: ContainerdFolders, options: ContainerdConfigOptions): string {
  return `version = ${options.version}
root = ${text(folders.root)}
state = ${text(folders.state)}
oom_score = 0
[grpc]
  address = ${text(folders.socket)}
[plugins."io.containerd.internal.v1.opt"]
  path = ${text(folders.opt)}
${options.version === 2 ? version2(folders, options) : version3(folders, options)}`;
}

/** A CNI configuration list: one bridge with addresses from the ranges, and host ports. */
export function bridgeNetwork(options: {
  readonly bridge: string;
  readonly podCidrs: readonly string[];
  readonly ipamDir: string;
  readonly ipMasq: boolean;
  readonly mtu?: number | undefined;
}): string {
  const routes = options.podCidrs.map((cidr) => ({ dst: cidr.includes(':') ? '::/0' : '0.0.0.0/0' }));
  return JSON.stringify(
    {
      cniVersion: '1.0.0',
      name: options.bridge,
      plugins: [
        {
          type: 'bridge',
          bridge: options.bridge,
          isGateway: true,
          ipMasq: options.ipMasq,
          hairpinMode: true,
          ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
          ipam: {
            type: 'host-local',
            dataDir: options.ipamDir,
            ranges: options.podCidrs.map((subnet) => [{ subnet }]),
            routes,
          },
        },
        { type: 'portmap', capabilities: { portMappings: true }, snat: true },
      ],
    },
    undefined,
    2,
  );
}
