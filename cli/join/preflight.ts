// What must be right with a host before it can be a node, each with a verdict and what to do. Names are kubeadm's where it has one, so that
// `--ignore-preflight-errors` reads the same.
import type { HostReader } from './host-reader.ts';

export interface Finding {
  /** For `--ignore-preflight-errors`. */
  readonly name: string;
  readonly verdict: 'ok' | 'warning' | 'error';
  readonly message: string;
}

export interface PreflightOptions {
  readonly nodeName: string;
  readonly runtimeEndpoint: string;
  readonly failSwapOn: boolean;
  readonly failCgroupV1: boolean;
  readonly agentPort: number;
  readonly withProxy: boolean;
  readonly cniConfDir: string;
  /** A file that only a joined node has; empty: do not look. */
  readonly kubeconfig: string;
}

const ok = (name: string, message: string): Finding => ({ name, verdict: 'ok', message });
const warning = (name: string, message: string): Finding => ({ name, verdict: 'warning', message });
const failure = (name: string, message: string): Finding => ({ name, verdict: 'error', message });

type Check = (host: HostReader, options: PreflightOptions) => Promise<Finding[]> | Finding[];

const privileged: Check = (host) => [
  host.uid() === 0 ? ok('IsPrivilegedUser', 'running as root') : failure('IsPrivilegedUser', 'has to run as root'),
];

const kernel: Check = async (host) => {
  const release = await host.text('/proc/sys/kernel/osrelease');
  const [major = 0, minor = 0] = release.split(/[.-]/).map(Number);
  return [
    major > 4 || (major === 4 && minor >= 19)
      ? ok('SystemVerification', `kernel ${release}`)
      : failure('SystemVerification', `kernel ${release} is too old: 4.19 is the oldest that is supported`),
  ];
};

const cgroups: Check = async (host, { failCgroupV1 }) => {
  const controllers = await host.text('/sys/fs/cgroup/cgroup.controllers');
  if (controllers !== '') {
    const missing = ['cpu', 'memory', 'pids'].filter((name) => !controllers.split(' ').includes(name));
    return [
      missing.length === 0
        ? ok('Cgroups', 'cgroup version 2')
        : failure('Cgroups', `cgroup version 2 lacks the controllers ${missing.join(', ')}`),
    ];
  }
  const v1 = await host.exists('/sys/fs/cgroup/memory');
  if (!v1) return [failure('Cgroups', 'the memory cgroup is not mounted: boot with cgroup_enable=memory')];
  const message = 'cgroup version 1, which Kubernetes is leaving behind';
  return [failCgroupV1 ? failure('Cgroups', `${message}: failCgroupV1 is set`) : warning('Cgroups', message)];
};

const swap: Check = async (host, { failSwapOn }) => {
  const used = (await host.text('/proc/swaps')).split('\n').slice(1).filter(Boolean);
  if (used.length === 0) return [ok('Swap', 'swap is off')];
  const names = used.map((line) => line.split(/\s+/)[0]).join(', ');
  return [
    failSwapOn
      ? failure('Swap', `swap is on (${names}): run swapoff -a and take it out of /etc/fstab, or set failSwapOn: false`)
      : warning('Swap', `swap is on (${names}), and failSwapOn is false`),
  ];
};

const ports: Check = async (host, { agentPort, withProxy }) => {
  const wanted: [number, string][] = [
    [agentPort, 'the node server'],
    [10_248, 'the health check'],
    ...(withProxy
      ? ([
          [10_256, "the proxy's health check"],
          [10_249, "the proxy's metrics"],
        ] as [number, string][])
      : []),
  ];
  return Promise.all(
    wanted.map(async ([port, what]) => {
      const name = `Port-${port}`;
      return (await host.portFree(port))
        ? ok(name, `port ${port} is free for ${what}`)
        : failure(name, `port ${port}, wanted for ${what}, is taken: see ss -tlnp 'sport = :${port}'`);
    }),
  );
};

const runtime: Check = async (host, { runtimeEndpoint }) => {
  const found = await host.runtime(runtimeEndpoint);
  if ('error' in found)
    return [
      failure(
        'CRI',
        `no container runtime answers at ${runtimeEndpoint}: ${found.error}. Install containerd (apt install containerd) or give --cri-socket`,
      ),
    ];
  return [ok('CRI', `${found.name} ${found.version} answers at ${runtimeEndpoint}`)];
};

const network: Check = async (host, { cniConfDir }) => {
  const names = (await host.list(cniConfDir)).filter((name) => /\.(conf|conflist|json)$/.test(name));
  return [
    names.length > 0
      ? ok('CNI', `pod network ${names.sort()[0]} in ${cniConfDir}`)
      : warning('CNI', `no pod network in ${cniConfDir} yet: the node is NotReady until one is installed`),
  ];
};

/** Kernel modules; one that is neither there nor to be had is missing. Where the host's modules cannot be seen, nothing is said. */
const modules: Check = async (host, { withProxy }) => {
  const wanted: [name: string, why: string, must: boolean][] = [
    ['overlay', 'the layers of images', false],
    ...(withProxy ? ([['nf_conntrack', 'Services', true]] as [string, string, boolean][]) : []),
  ];
  const folder = `/lib/modules/${await host.text('/proc/sys/kernel/osrelease')}`;
  const [loaded, builtIn, loadable] = await Promise.all([
    host.text('/proc/modules'),
    host.text(`${folder}/modules.builtin`),
    host.text(`${folder}/modules.dep`),
  ]);
  if (builtIn === '' && loadable === '') return [];
  return wanted.map(([module, why, must]) => {
    const name = `KernelModule-${module}`;
    const file = new RegExp(`/${module}\\.ko`);
    if (new RegExp(`^${module} `, 'm').test(loaded)) return ok(name, `module ${module} is loaded`);
    if (file.test(builtIn)) return ok(name, `${module} is part of the kernel`);
    if (file.test(loadable)) return ok(name, `module ${module} can be loaded`);
    return (must ? failure : warning)(
      name,
      `the kernel has no module ${module}, needed for ${why}: install the modules of the running kernel (apt install linux-image-$(uname -r)), or boot the one that has them`,
    );
  });
};

/** True where pods are joined by a bridge of this host. */
async function podsOnBridge(host: HostReader, folder: string): Promise<boolean> {
  const [first] = (await host.list(folder)).filter((name) => /\.(conf|conflist|json)$/.test(name)).sort();
  return first !== undefined && /"type"\s*:\s*"bridge"/.test(await host.text(`${folder}/${first}`));
}

const sysctls: Check = async (host, { withProxy, cniConfDir }) => {
  const forward = await host.text('/proc/sys/net/ipv4/ip_forward');
  const bridged = await host.text('/proc/sys/net/bridge/bridge-nf-call-iptables');
  const found = [
    forward === '1'
      ? ok('FileContent--proc-sys-net-ipv4-ip_forward', 'IPv4 forwarding is on')
      : failure(
          'FileContent--proc-sys-net-ipv4-ip_forward',
          'IPv4 forwarding is off: set net.ipv4.ip_forward=1 in /etc/sysctl.d',
        ),
  ];
  if (!withProxy) return found;
  if (bridged === '')
    found.push(
      (await podsOnBridge(host, cniConfDir))
        ? failure(
            'BridgeNetfilter',
            'the module br_netfilter is not loaded, and the pod network is a bridge: pods would not reach Services that lead to pods of their own node. Run modprobe br_netfilter, and name it in a file of /etc/modules-load.d',
          )
        : warning(
            'BridgeNetfilter',
            'br_netfilter is not loaded: pods on a bridge reach Services of their own node only with it (modprobe br_netfilter)',
          ),
    );
  else if (bridged !== '1')
    found.push(warning('BridgeNetfilter', 'net.bridge.bridge-nf-call-iptables is 0: set it to 1'));
  else found.push(ok('BridgeNetfilter', 'bridged packets pass netfilter'));
  return found;
};

const programs: Check = async (host, { withProxy }) => {
  const needed: [string, string, boolean][] = [
    ['mount', 'util-linux', true],
    ['umount', 'util-linux', true],
    ...(withProxy
      ? ([
          ['iptables-restore', 'iptables', true],
          ['nft', 'nftables', false],
          ['conntrack', 'conntrack', false],
        ] as [string, string, boolean][])
      : []),
  ];
  return Promise.all(
    needed.map(async ([program, from, must]) => {
      const name = `FileExisting-${program}`;
      if (await host.onPath(program)) return ok(name, `${program} is there`);
      return (must ? failure : warning)(name, `${program} is not on PATH: apt install ${from}`);
    }),
  );
};

const hostname: Check = (_host, { nodeName }) => [
  /^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/.test(nodeName) && nodeName.length <= 253
    ? ok('Hostname', `the node will be ${nodeName}`)
    : failure(
        'Hostname',
        `"${nodeName}" cannot be a node's name: give --node-name in lower case letters, digits, - and .`,
      ),
];

const others: Check = async (host, { withProxy }) => {
  const running = await host.processes(['kubelet', 'kube-proxy']);
  const found = running
    .filter(({ name }) => name === 'kubelet' || withProxy)
    .map(({ name, pid }) =>
      name === 'kubelet'
        ? failure(
            'Kubelet',
            `a kubelet runs here (pid ${pid}): drain the node and stop it first (systemctl disable --now kubelet); its pods are replaced, not adopted`,
          )
        : failure(
            'KubeProxy',
            `a kube-proxy runs here (pid ${pid}): two proxies would undo each other's rules; stop it, keep its DaemonSet away from this node, or join with --only agent`,
          ),
    );
  return found.length > 0 ? found : [ok('Kubelet', 'no other node agent runs here')];
};

const joined: Check = async (host, { kubeconfig }) => {
  if (kubeconfig === '') return [];
  const name = `FileAvailable-${kubeconfig.replaceAll('/', '-')}`;
  return [
    (await host.exists(kubeconfig))
      ? failure(name, `${kubeconfig} exists: this host was joined before; run stevedore leave first`)
      : ok(name, 'not joined to a cluster yet'),
  ];
};

const checks: readonly Check[] = [
  privileged,
  kernel,
  cgroups,
  swap,
  hostname,
  ports,
  runtime,
  network,
  modules,
  sysctls,
  programs,
  others,
  joined,
];

/** All findings, in a fixed order; nothing is changed on the host. */
export async function runPreflight(host: HostReader, options: PreflightOptions): Promise<Finding[]> {
  const found: Finding[] = [];
  for (const check of checks) found.push(...(await check(host, options)));
  return found;
}

/** Errors among the findings that are not to be ignored; `all` ignores every one. */
export const blocking = (findings: readonly Finding[], ignored: readonly string[]): Finding[] => {
  const names = new Set(ignored.map((name) => name.toLowerCase()));
  return findings.filter(
    ({ name, verdict }) => verdict === 'error' && !names.has('all') && !names.has(name.toLowerCase()),
  );
};

const marks = { ok: '  ok     ', warning: '  warning', error: '  ERROR  ' } as const;

export const findingsText = (findings: readonly Finding[], quiet = false): string =>
  findings
    .filter(({ verdict }) => !quiet || verdict !== 'ok')
    .map(({ name, verdict, message }) => `${marks[verdict]} [${name}] ${message}\n`)
    .join('');
