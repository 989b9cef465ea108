// The first part of the story: the package is installed on a fresh host, which is looked at, refused for good reasons, and joined.
import { expect, type Report } from './report.ts';
import { failToJoin } from './story-failures.ts';
import { fresh } from './story-idle.ts';
import { nodeName, type World } from './world.ts';

const minutes = 60_000;

async function host(world: World): Promise<string> {
  const { machine } = world;
  const text = await machine.run(
    'uname -r; stat -fc %T /sys/fs/cgroup; cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo N; systemctl is-active containerd; containerd --version',
  );
  const [kernel = '', cgroup, appArmor, containerd, version = ''] = text.trim().split('\n');
  const isMachine = machine.kind === 'vm';
  expect(cgroup === (isMachine ? 'cgroup2fs' : 'tmpfs'), `cgroups are ${cgroup}, not version ${isMachine ? 2 : 1}`);
  expect(!isMachine || appArmor === 'Y', 'AppArmor is off');
  expect(containerd === 'active', `containerd is ${containerd}`);
  await machine.run('ctr -n k8s.io images import /root/images.tar', { timeoutMs: 5 * minutes });
  return `kernel ${kernel}, cgroup version ${isMachine ? '2, AppArmor' : 1}, ${version.split(' ').slice(0, 3).join(' ')}`;
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
  Number(
    await machine.run(
      machine.kind === 'vm'
        ? "awk '/^cpu / { print ($2 + $3 + $4 + $7 + $8) / 100 }' /proc/stat"
        : "awk '{ print $1 / 1e9 }' /sys/fs/cgroup/cpuacct/cpuacct.usage",
    ),
  );

export async function joinCluster(world: World): Promise<string> {
  const { machine, join, kubectl, nodeReady } = world;
  const busyBefore = await busy(world);
  const startedMs = performance.now();
  // Each line with the milliseconds since the start.
  const stamped = 'while IFS= read -r line; do echo "$(($(date +%s%3N) - started)) $line"; done';
  const { ok, output } = await machine.tryRun(
    `set -o pipefail; started=$(date +%s%3N); stevedore join ${join.endpoint} --token ${join.token} --discovery-token-ca-cert-hash ${join.hash} 2>&1 | ${stamped}`,
    { timeoutMs: 15 * minutes },
  );
  expect(ok, output);
  await nodeReady(10 * minutes);
  const seconds = Math.round((performance.now() - startedMs) / 100) / 10;
  const worked = Math.round(((await busy(world)) - busyBefore) * 10) / 10;
  const info = await kubectl('get', 'node', nodeName, '-o', 'jsonpath={.status.nodeInfo.kubeletVersion}');
  const unit = (
    await machine.run('systemctl is-enabled stevedore; systemctl show -p WatchdogUSec,NRestarts --value stevedore')
  ).trim();
  const at = (what: RegExp): string => {
    const ms = output
      .split('\n')
      .find((line) => what.test(line))
      ?.split(' ')[0];
    return `${(Number(ms) / 1000).toFixed(1)} s`;
  };
  const stages = `host ${at(/looking at the cluster/)}, cluster ${at(/is who it says/)}, identity ${at(/ConfigMap/)}, unit started ${at(/enabled and started/)}, Ready ${at(/is Ready$/)}`;
  return `${stages}; asked of the cluster after ${seconds} s, in which the host's ${machine.kind === 'vm' ? 'emulated ' : ''}processors worked ${worked} s; ${info}; unit ${unit.replaceAll('\n', ', ')}`;
}

/** `mistakes`: whether joins that fail are part of it. */
export async function installAndJoin(world: World, report: Report, mistakes = true): Promise<void> {
  const has =
    world.machine.kind === 'vm' ? 'systemd, cgroup v2, AppArmor, containerd' : 'systemd, cgroup v1, containerd';
  await report.step(`the host: ${has}`, () => host(world), { vital: true });
  await report.step('apt install ./stevedore.deb', () => install(world), { vital: true });
  await report.step('stevedore check', () => check(world));
  if (mistakes) await failToJoin(world, report);
  await report.step('stevedore join', () => joinCluster(world), { vital: true });
  await report.step('the node before its first pod', () => fresh(world));
}
