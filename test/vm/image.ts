// The disk of the virtual machine: Debian 12 by debootstrap, with what the package depends on, made once and kept. `node test/vm/image.ts`
// makes it; each run of the story then writes to an overlay of its own. Needs the network, through apt, and root.
import { existsSync } from 'node:fs';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { demoImage, pauseImage, pauseImageName, readBusybox } from '../../cri/local-images.ts';
import { exec } from '../../lib/exec.ts';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';

/** Where the disk is kept between runs. */
export const cacheDir = process.env.STEVEDORE_VM_DIR ?? '/var/cache/stevedore-vm';

export const paths = {
  disk: join(cacheDir, 'debian-12.raw'),
  kernel: join(cacheDir, 'vmlinuz'),
  initrd: join(cacheDir, 'initrd.img'),
  sshKey: join(cacheDir, 'id_ed25519'),
  log: join(cacheDir, 'image.log'),
};

/** The machine's end of the link, the host's end, and the ranges of pods. */
export const network = { guest: '10.77.0.2', host: '10.77.0.1', prefix: 24, pods: '10.244.0.0/24' };

const packages = [
  ...['systemd', 'systemd-sysv', 'dbus', 'udev', 'libpam-systemd', 'linux-image-cloud-amd64', 'initramfs-tools'],
  ...['openssh-server', 'iproute2', 'iputils-ping', 'procps', 'kmod', 'ca-certificates', 'curl', 'less', 'man-db'],
  ...['apparmor', 'busybox-static', 'bash-completion', 'zstd', 'stress-ng'],
  // What the package depends on.
  ...['containerd', 'runc', 'containernetworking-plugins', 'iptables', 'nftables', 'conntrack', 'util-linux', 'mount'],
];

const hostTools: readonly [program: string, from: string][] = [
  ['debootstrap', 'debootstrap'],
  ['qemu-system-x86_64', 'qemu-system-x86'],
  ['qemu-img', 'qemu-utils'],
  ['mke2fs', 'e2fsprogs'],
  ['ssh', 'openssh-client'],
  ['ip', 'iproute2'],
];

const onPath = (program: string): boolean =>
  [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'].some((folder) => existsSync(join(folder, program)));

const say = (text: string): void => void process.stdout.write(`vm: ${text}\n`);

async function installHostTools(): Promise<void> {
  const missing = hostTools.filter(([program]) => !onPath(program)).map(([, from]) => from);
  if (missing.length === 0) return;
  say(`installing ${missing.join(' ')} on this host`);
  const env = { DEBIAN_FRONTEND: 'noninteractive', RUNLEVEL: '1' };
  const install = () =>
    exec('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...missing], { env, timeoutMs: 600_000 });
  await install().catch(async () => {
    await exec('apt-get', ['update', '-q'], { env, timeoutMs: 300_000 });
    await install();
  });
}

// Version 2 of the configuration is what containerd 1.6 of Debian 12 reads.
const containerdConfig = `version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${pauseImageName}"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = true
`;

const podNetwork = {
  cniVersion: '1.0.0',
  name: 'vm',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni0',
      isGateway: true,
      ipMasq: true,
      hairpinMode: true,
      ipam: { type: 'host-local', ranges: [[{ subnet: network.pods }]], routes: [{ dst: '0.0.0.0/0' }] },
    },
    { type: 'portmap', capabilities: { portMappings: true }, snat: true },
  ],
};

// A profile of the test's own, to be asked for by name: files may be read and run, and nothing written below /tmp.
const appArmorProfile = `#include <tunables/global>
profile stevedore-vm-deny-write flags=(attach_disconnected,mediate_deleted) {
  file,
  network,
  capability,
  signal,
  deny /tmp/** w,
}
`;

/** Files of the machine that no package brings. */
async function configure(tree: string, publicKey: string): Promise<void> {
  const put = async (path: string, text: string | Uint8Array, mode = 0o644): Promise<void> => {
    await mkdir(join(tree, path, '..'), { recursive: true });
    await writeFile(join(tree, path), text);
    await chmod(join(tree, path), mode);
  };
  await put('etc/hostname', 'vm1\n');
  await put('etc/hosts', '127.0.0.1 localhost\n127.0.1.1 vm1\n');
  await put('etc/fstab', '/dev/vda / ext4 defaults,noatime 0 1\n');
  // One name everywhere: the interface is found by its driver.
  await put(
    'etc/systemd/network/10-link.network',
    `[Match]\nDriver=virtio_net\n[Network]\nAddress=${network.guest}/${network.prefix}\nGateway=${network.host}\n`,
  );
  await rm(join(tree, 'etc/resolv.conf'), { force: true });
  await put('etc/resolv.conf', `nameserver ${network.host}\n`);
  await put('root/.ssh/authorized_keys', publicKey, 0o600);
  await chmod(join(tree, 'root/.ssh'), 0o700);
  await put('etc/ssh/sshd_config.d/vm.conf', 'UseDNS no\nPermitRootLogin prohibit-password\nGSSAPIAuthentication no\n');
  await put('etc/containerd/config.toml', containerdConfig);
  await put('etc/cni/net.d/10-vm.conflist', `${JSON.stringify(podNetwork, null, 2)}\n`);
  await put('etc/apparmor.d/stevedore-vm', appArmorProfile);
  const architecture = imageArchitecture();
  await put('root/images.tar', imageArchive([pauseImage(architecture), demoImage(architecture, await readBusybox())]));
  for (const unit of ['systemd-networkd.service', 'ssh.service', 'serial-getty@ttyS0.service'])
    await exec('systemctl', ['--root', tree, 'enable', unit]).catch(async () => {
      const wants = join(tree, 'etc/systemd/system/multi-user.target.wants');
      await mkdir(wants, { recursive: true });
      await symlink(`/lib/systemd/system/${unit}`, join(wants, unit)).catch(() => undefined);
    });
  // Debian's own timers would only spend the machine's slow time.
  for (const unit of [
    'apt-daily.timer',
    'apt-daily-upgrade.timer',
    'man-db.timer',
    'e2scrub_all.timer',
    'fstrim.timer',
  ])
    await symlink('/dev/null', join(tree, 'etc/systemd/system', unit)).catch(() => undefined);
}

async function fileOf(tree: string, prefix: string): Promise<string> {
  const found = (await readdir(join(tree, 'boot'))).filter((name) => name.startsWith(prefix)).sort();
  const last = found.at(-1);
  if (last === undefined) throw new Error(`debootstrap left no ${prefix}* in ${tree}/boot`);
  return join(tree, 'boot', last);
}

/** Makes the disk unless it is there. Resolves with whether it was made. */
export async function makeImage(): Promise<boolean> {
  await installHostTools();
  if (existsSync(paths.disk)) return false;
  await mkdir(cacheDir, { recursive: true });
  const work = await mkdtemp(join(cacheDir, 'making-'));
  try {
    const tree = join(work, 'tree');
    await rm(paths.sshKey, { force: true });
    await exec('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-C', 'stevedore-vm', '-f', paths.sshKey]);
    say('debootstrap: Debian 12 (some minutes)');
    const { stdout } = await exec(
      'nice',
      [...['-n', '15', 'debootstrap', '--variant=minbase', `--include=${packages.join(',')}`], 'bookworm', tree],
      { timeoutMs: 1_800_000 },
    );
    await writeFile(paths.log, stdout);
    await configure(tree, await readFile(`${paths.sshKey}.pub`, 'utf8'));
    await cp(await fileOf(tree, 'vmlinuz-'), paths.kernel);
    await cp(await fileOf(tree, 'initrd.img-'), paths.initrd);
    await rm(join(tree, 'var/cache/apt/archives'), { recursive: true, force: true });
    await mkdir(join(tree, 'var/cache/apt/archives/partial'), { recursive: true });
    say('writing the disk');
    const making = join(work, 'disk.raw');
    await exec('nice', ['-n', '15', 'mke2fs', '-q', '-t', 'ext4', '-L', 'root', '-d', tree, making, '8G'], {
      timeoutMs: 600_000,
    });
    await rename(making, paths.disk);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  say(`made ${paths.disk}`);
  return true;
}

if (import.meta.main) await makeImage();
