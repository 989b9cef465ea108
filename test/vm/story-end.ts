// The last part of the story: the host goes down in order, leaves the cluster, joins it again, and the package is purged.
import { ending, web } from './manifests.ts';
import { expect, type Report } from './report.ts';
import { idleFigures } from './story-idle.ts';
import { joinCluster } from './story-join.ts';
import { lenient, nodeName, type World } from './world.ts';

const minutes = 60_000;

const pods = ({ kubectl }: World): Promise<string> =>
  kubectl('get', 'pods', '-o', 'jsonpath={range .items[*]}{.status.phase}/{.status.containerStatuses[0].ready} {end}');

const ready = (world: World, count: number): Promise<string> =>
  world.until(
    `${count} pods are ready`,
    15 * minutes,
    () => pods(world),
    (answer) => (answer.match(/Running\/true/g) ?? []).length === count,
  );

const deleteAll = async (world: World): Promise<void> => {
  await world.kubectl('delete', 'deployment,service,pod', '--all', '--wait=false');
  await world.until(
    'all pods are gone',
    5 * minutes,
    () => world.kubectl('get', 'pods', '-o', 'name'),
    (answer) => answer.trim() === '',
  );
};

/** What is left of pods and of the daemon, as lines; empty: nothing. */
const remainsOfPods = [
  'ls -d /sys/fs/cgroup/kubepods.slice /sys/fs/cgroup/*/kubepods.slice 2>/dev/null',
  'systemctl list-units --all --no-legend "kubepods*" | grep .',
  'ctr -n k8s.io containers ls -q',
  'iptables-save | grep KUBE; ip6tables-save | grep KUBE; nft list tables | grep -i kube',
  'grep /var/lib/kubelet /proc/mounts',
  'ls -d /sys/class/net/veth* 2>/dev/null',
  'ls -d /var/lib/kubelet /etc/kubernetes/kubelet.conf /etc/kubernetes/bootstrap-kubelet.conf /etc/kubernetes/pki/ca.crt /etc/systemd/logind.conf.d/99-stevedore.conf 2>/dev/null',
  'pgrep -a "systemd-inhibit|busctl"',
];

export async function idle(world: World): Promise<string> {
  const { machine, until } = world;
  await deleteAll(world);
  await until(
    'no slice of a pod that is gone is left',
    2 * minutes,
    () => machine.run('find /sys/fs/cgroup -path "*kubepods.slice/*" -name "*-pod*.slice"'),
    (left) => left.trim() === '',
  );
  return `no slice of a pod is left; without pods ${await idleFigures(world)}`;
}

/** An ordinary and a critical pod note when they are told to end: the second only when the first is gone. */
async function shutdown(world: World): Promise<string> {
  const { machine, apply, kubectl, nodeReady, until } = world;
  await machine.run(
    "rm -rf /root/ends; sed -i '0,/^kind: KubeletConfiguration/s//&\\nshutdownGracePeriod: 90s\\nshutdownGracePeriodCriticalPods: 30s/' /etc/stevedore/config.yaml; systemctl restart stevedore",
    { timeoutMs: 10 * minutes },
  );
  await until(
    'logind waits for the daemon',
    5 * minutes,
    () =>
      machine.run(
        'busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager InhibitDelayMaxUSec; systemd-inhibit --list --no-legend --no-pager',
      ),
    (answer) => answer.includes('t 90000000') && answer.includes('stevedore'),
  );
  await apply(ending('ordinary'));
  await apply(ending('critical', 'system-cluster-critical'));
  await ready(world, 2);
  const seconds = await machine.reboot();
  const log = (await machine.run('cat /root/ends/log')).trim().split('\n');
  const order = log.map((line) => line.split(' ').slice(0, 2).join(' ')).join(', ');
  expect(order === 'ordinary told, ordinary ends, critical told, critical ends', `the pods noted: ${log.join(', ')}`);
  await nodeReady(10 * minutes);
  for (const name of ['ordinary', 'critical']) {
    const text = await until(
      `${name} was ended for the shutdown`,
      5 * minutes,
      () => kubectl('get', 'pod', name, '-o', 'jsonpath={.status.phase}|{.status.reason}|{.status.message}'),
      (answer) => answer.startsWith('Failed|') || answer.startsWith('Succeeded|'),
    );
    expect(
      text === 'Failed|Terminated|Pod was terminated in response to imminent node shutdown.',
      `${name} says ${text}`,
    );
  }
  await deleteAll(world);
  return `${order}; both Failed with reason Terminated; up again after ${seconds} s`;
}

async function leave(world: World): Promise<string> {
  const { machine, apply, kubectl } = world;
  await apply(web);
  await ready(world, 2);
  const refused = await machine.tryRun('stevedore leave', { timeoutMs: 5 * minutes });
  expect(
    refused.code === 1 && refused.output.includes('kubectl drain vm1 --ignore-daemonsets --delete-emptydir-data'),
    `with pods: ${refused.code}, ${refused.output}`,
  );
  await kubectl('drain', nodeName, '--ignore-daemonsets', '--delete-emptydir-data', '--timeout=300s');
  const { ok, output } = await machine.tryRun('stevedore leave', { timeoutMs: 15 * minutes });
  expect(ok, output);
  const left = (await machine.run(lenient(remainsOfPods), { timeoutMs: 5 * minutes })).trim();
  expect(left === '', `left behind: ${left}\n${output}`);
  const unit = (
    await machine.run('systemctl is-enabled stevedore || true; systemctl is-active stevedore || true')
  ).trim();
  expect(unit === 'disabled\ninactive', `the unit is ${unit}`);
  await kubectl('delete', 'node', nodeName, '--ignore-not-found');
  await kubectl('delete', 'deployment,service', 'web');
  return `refused while pods ran, with the drain to do; afterwards no pod, rule, cgroup, mount, file or lock of it is left: ${output.split('\n').at(-1) ?? ''}`;
}

async function purge(world: World): Promise<string> {
  const { machine, apply } = world;
  // Something has to be there that can be left behind: a pod, a Service, a mount.
  await apply(web);
  await ready(world, 2);
  // A mount below the folder that is removed: what is in it is not ours.
  await machine.run(
    'mkdir -p /srv/precious /var/lib/kubelet/foreign; echo data > /srv/precious/file; mount --bind /srv/precious /var/lib/kubelet/foreign',
  );
  const { ok, output } = await machine.tryRun('DEBIAN_FRONTEND=noninteractive apt-get purge -y stevedore </dev/null', {
    timeoutMs: 15 * minutes,
  });
  expect(ok, output.slice(-2000));
  const left = await machine.run(
    lenient([
      'ls -d /etc/stevedore /etc/default/stevedore /usr/lib/stevedore /var/lib/stevedore /run/stevedore /var/cache/stevedore /var/log/pods /var/log/containers /etc/kubernetes 2>/dev/null',
      'systemctl list-unit-files --no-legend | grep stevedore',
      ...remainsOfPods,
    ]),
    { timeoutMs: 5 * minutes },
  );
  expect(left.trim() === '', `left behind: ${left.trim()}\n${output.slice(-1500)}`);
  const kept = await machine.run('cat /srv/precious/file');
  expect(kept.trim() === 'data', 'what was mounted below /var/lib/kubelet is gone');
  return 'no file, rule, container, interface, cgroup, mount or unit is left; what was mounted below /var/lib/kubelet is untouched';
}

export async function endOfNode(world: World, report: Report): Promise<void> {
  await report.step('pods deleted, the node idle', () => idle(world));
  await report.step('graceful node shutdown by priority', () => shutdown(world));
  await report.step('stevedore leave', () => leave(world));
  await report.step('stevedore join again', () => joinCluster(world), { vital: true });
  await report.step('apt purge', () => purge(world));
}
