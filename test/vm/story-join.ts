// The first part of the story: the package is installed on a fresh host, which is looked at, refused for good reasons, and joined.
import { expect, type Report } from './report.ts';
import { failToJoin } from './story-failures.ts';
import { nodeName, type World } from './world.ts';

const minutes = 60_000;

async function host({ machine }: World): Promise<string> {
  const text = await machine.run(
    'uname -r; stat -fc %T /sys/fs/cgroup; cat /sys/module/apparmor/parameters/enabled; systemctl is-active containerd; containerd --version',
  );
  const [kernel = '', cgroup, appArmor, containerd, version = ''] = text.trim().split('\n');
  expect(cgroup === 'cgroup2fs', `cgroups are ${cgroup}, not version 2`);
  expect(appArmor === 'Y', 'AppArmor is off');
  expect(containerd === 'active', `containerd is ${containerd}`);
  await machine.run('ctr -n k8s.io images import /root/images.tar', { timeoutMs: 5 * minutes });
  return `kernel ${kernel}, cgroup version 2, AppArmor, ${version.split(' ').slice(0, 3).join(' ')}`;
}

async function install({ machine, packages }: World): Promise<string> {
  await machine.put(packages.first, '/root/first.deb');
  const { ok, output } = await machine.tryRun(
    'DEBIAN_FRONTEND=noninteractive apt-get install -y /root/first.deb </dev/null',
    {
      timeoutMs: 15 * minutes,
    },
  );
  expect(ok, output.slice(-1500));
  const text = await machine.run(
    'systemctl is-enabled stevedore || true; systemctl is-active stevedore || true; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/bridge/bridge-nf-call-iptables; test -e /etc/stevedore/config.yaml; man -w stevedore; test -s /usr/share/bash-completion/completions/stevedore; systemd-analyze verify stevedore.service 2>&1 | grep stevedore || true; dpkg -V stevedore',
  );
  const [enabled, active, forward, bridged, ...rest] = text.trim().split('\n');
  expect(enabled === 'disabled' && active === 'inactive', `the service is ${enabled} and ${active} before a join`);
  expect(forward === '1' && bridged === '1', `forwarding is ${forward}, bridged packets in iptables ${bridged}`);
  expect(rest.length === 1, `a man page and no complaints were expected: ${rest.join(' ')}`);
  return 'installed offline, not enabled, forwarding on, man page there, unit without complaints';
}

async function check({ machine }: World): Promise<string> {
  const { ok, output } = await machine.tryRun('stevedore check', { timeoutMs: 5 * minutes });
  expect(ok, output);
  const warnings = output.split('\n').filter((line) => line.includes('warning'));
  return `this host can be a node; ${warnings.length} warnings${warnings.map((line) => `; ${line.trim()}`).join('')}`;
}

/** Seconds that the machine's processors have worked. */
const busy = async ({ machine }: World): Promise<number> =>
  Number(await machine.run("awk '/^cpu / { print ($2 + $3 + $4 + $7 + $8) / 100 }' /proc/stat"));

export async function joinCluster(world: World): Promise<string> {
  const { machine, join, kubectl, nodeReady } = world;
  const busyBefore = await busy(world);
  const startedMs = performance.now();
  const { ok, output } = await machine.tryRun(
    `stevedore join ${join.endpoint} --token ${join.token} --discovery-token-ca-cert-hash ${join.hash}`,
    { timeoutMs: 15 * minutes },
  );
  expect(ok, output);
  await nodeReady(10 * minutes);
  const seconds = Math.round((performance.now() - startedMs) / 1000);
  const worked = Math.round((await busy(world)) - busyBefore);
  const info = await kubectl('get', 'node', nodeName, '-o', 'jsonpath={.status.nodeInfo.kubeletVersion}');
  const unit = (
    await machine.run('systemctl is-enabled stevedore; systemctl show -p WatchdogUSec,NRestarts --value stevedore')
  ).trim();
  return `Ready after ${seconds} s, in which the emulated processors worked ${worked} s; ${info}; unit ${unit.replaceAll('\n', ', ')}`;
}

export async function installAndJoin(world: World, report: Report): Promise<void> {
  await report.step('the host: systemd, cgroup v2, AppArmor, containerd', () => host(world), { vital: true });
  await report.step('apt install ./stevedore.deb', () => install(world), { vital: true });
  await report.step('stevedore check', () => check(world));
  await failToJoin(world, report);
  await report.step('stevedore join', () => joinCluster(world), { vital: true });
}
