// The third part of the story: the daemon is restarted, killed, upgraded, the network and the power are cut, the host is rebooted, and at last the
// package is purged.
import { setTimeout as sleep } from 'node:timers/promises';
import { web } from './manifests.ts';
import { expect, type Report } from './report.ts';
import { nodeName, type World } from './world.ts';

const minutes = 60_000;

/** Does something to the daemon and makes sure that no container noticed: same ids and process ids, no restart counted, all ready. */
async function unnoticed(world: World, work: () => Promise<string>): Promise<string> {
  const { machine, containers, restarts, until, nodeReady, kubectl } = world;
  const [idsBefore, restartsBefore] = [await containers(), await restarts()];
  expect(idsBefore !== '', 'no container runs');
  const seen = await work();
  await until(
    'the service is active',
    10 * minutes,
    () => machine.run('systemctl show -p ActiveState,SubState --value stevedore | tr "\\n" " "'),
    (answer) => answer.trim() === 'active running',
  );
  const startedMs = performance.now();
  await nodeReady(5 * minutes);
  await until(
    'all pods are ready',
    5 * minutes,
    () => kubectl('get', 'pods', '-o', 'jsonpath={.items[*].status.containerStatuses[*].ready}'),
    (answer) => answer !== '' && !answer.includes('false'),
  );
  const [idsAfter, restartsAfter] = [await containers(), await restarts()];
  expect(idsAfter === idsBefore, `containers before:\n${idsBefore}\nafter:\n${idsAfter}`);
  expect(restartsAfter === restartsBefore, `${restartsAfter - restartsBefore} restarts were counted`);
  const count = idsBefore.split('\n').length;
  return `${seen}; ${count} tasks go on under the same ids and pids, pods ready ${Math.round((performance.now() - startedMs) / 1000)} s after`;
}

const restart = (world: World): Promise<string> =>
  unnoticed(world, async () => {
    await world.machine.run('systemctl restart stevedore', { timeoutMs: 10 * minutes });
    return 'systemctl restart';
  });

const kill = (world: World): Promise<string> =>
  unnoticed(world, async () => {
    const before = (await world.machine.run('systemctl show -p MainPID --value stevedore')).trim();
    await world.machine.run('systemctl kill -s KILL --kill-whom=main stevedore');
    await world.until(
      'systemd starts the daemon again',
      5 * minutes,
      () => world.machine.run('systemctl show -p MainPID,NRestarts --value stevedore | tr "\\n" " "'),
      (answer) => Number(answer.split(' ')[0]) > 0 && !answer.startsWith(`${before} `),
    );
    return 'killed -9, started again by systemd';
  });

/** SIGSTOP is an event loop that does not turn. */
const hang = (world: World): Promise<string> =>
  unnoticed(world, async () => {
    const before = (await world.machine.run('systemctl show -p MainPID --value stevedore')).trim();
    await world.machine.run(`kill -STOP ${before}`);
    await world.until(
      'the watchdog ends the daemon',
      5 * minutes,
      () => world.machine.run('systemctl show -p MainPID --value stevedore'),
      (answer) => Number(answer) > 0 && answer.trim() !== before,
    );
    const log = await world.machine.run('journalctl -u stevedore --no-pager -o cat | grep -ci "watchdog timeout"');
    expect(Number(log) > 0, 'systemd did not speak of its watchdog');
    return 'stopped with SIGSTOP, ended and started again by the watchdog';
  });

/** A client calls the Service, each time over a connection of its own, while the package is exchanged. */
const upgrade = async (world: World): Promise<string> => {
  const { machine, packages, kubectl } = world;
  await machine.put(packages.next, '/root/next.deb');
  const ip = (await kubectl('get', 'service', 'web', '-o', 'jsonpath={.spec.clusterIP}')).trim();
  const detail = await unnoticed(world, async () => {
    await machine.run(
      `rm -f /root/calls /root/stop; systemd-run --quiet --unit=caller sh -c 'while [ ! -e /root/stop ]; do curl -s -m 30 http://${ip}/ >/dev/null && echo ok >>/root/calls || echo FAILED >>/root/calls; sleep 0.5; done'`,
    );
    const { ok, output } = await machine.tryRun(
      'DEBIAN_FRONTEND=noninteractive apt-get install -y /root/next.deb </dev/null',
      { timeoutMs: 15 * minutes },
    );
    expect(ok, output.slice(-1500));
    const version = await machine.run("dpkg-query -s stevedore | sed -n 's/^Version: //p'");
    expect(version.includes('+next'), `the version is ${version}`);
    return `upgraded to ${version}`;
  });
  const calls = await machine.run('touch /root/stop; grep -c ok /root/calls; grep -c FAILED /root/calls || true');
  const [good = '0', bad = '0'] = calls.trim().split('\n');
  expect(Number(good) > 0 && Number(bad) === 0, `${bad} of ${Number(good) + Number(bad)} calls of the Service failed`);
  return `${detail}; ${good} calls of the Service meanwhile, none failed`;
};

const cutNetwork = (world: World): Promise<string> =>
  unnoticed(world, async () => {
    await world.machine.link(false);
    try {
      await world.until(
        'the cluster takes the node for lost',
        3 * minutes,
        () => world.kubectl('get', 'node', nodeName, '-o', 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'),
        (answer) => answer === 'Unknown',
      );
      await sleep(10_000);
    } finally {
      await world.machine.link(true);
    }
    return 'cut off until the node was Unknown';
  });

async function recovers(world: World, how: string, seconds: number): Promise<string> {
  const { kubectl, until, nodeReady, callService, machine } = world;
  const startedMs = performance.now();
  const boot = (await machine.run('cat /proc/sys/kernel/random/boot_id')).trim();
  await until(
    'the node speaks of the new boot',
    10 * minutes,
    () => kubectl('get', 'node', nodeName, '-o', 'jsonpath={.status.nodeInfo.bootID}'),
    (answer) => answer === boot,
  );
  await nodeReady(10 * minutes);
  await until(
    'all pods are ready, in new containers',
    10 * minutes,
    () =>
      kubectl(
        'get',
        'pods',
        '-o',
        'jsonpath={range .items[*]}{.status.containerStatuses[0].ready}/{.status.containerStatuses[0].restartCount} {end}',
      ),
    (answer) => answer !== '' && !answer.includes('false') && !answer.includes('/0 '),
  );
  const answers = await callService(4);
  expect(
    answers.every((text) => text.startsWith('web-')),
    `the Service answered: ${answers.join(', ')}`,
  );
  return `${how} (ssh after ${seconds} s); ${Math.round((performance.now() - startedMs) / 1000)} s later all pods run again and the Service answers`;
}

async function idle({ machine, kubectl, until }: World): Promise<string> {
  await kubectl('delete', 'deployment,service,pod', '--all', '--wait=false');
  await until(
    'all pods are gone',
    5 * minutes,
    () => kubectl('get', 'pods', '-o', 'name'),
    (answer) => answer.trim() === '',
  );
  const left = (
    await machine.run(
      'ls -d /sys/fs/cgroup/kubepods.slice/*pod*.slice /sys/fs/cgroup/kubepods.slice/*/*pod*.slice 2>/dev/null || true',
    )
  ).trim();
  expect(left === '', `slices of pods that are gone: ${left}`);
  const sample = () =>
    machine.run(
      "pid=$(systemctl show -p MainPID --value stevedore); awk '{print $14 + $15}' /proc/$pid/stat; awk '/VmRSS|RssAnon/ {print $2}' /proc/$pid/status",
    );
  const before = Number((await sample()).split('\n')[0]);
  await sleep(60_000);
  const [ticks = '0', rss = '0', anonymous = '0'] = (await sample()).trim().split('\n');
  return `no slice of a pod is left; without pods ${((Number(ticks) - before) / 100).toFixed(1)} s of (emulated) CPU in a minute, ${Math.round(Number(rss) / 1024)} MiB resident, ${Math.round(Number(anonymous) / 1024)} MiB anonymous`;
}

async function purge({ machine, apply, kubectl, until }: World): Promise<string> {
  // Something has to be there that can be left behind: a pod, a Service, a mount.
  await apply(web);
  await until(
    'two pods are ready',
    10 * minutes,
    () => kubectl('get', 'pods', '-o', 'jsonpath={.items[*].status.containerStatuses[*].ready}'),
    (answer) => answer.trim() === 'true true',
  );
  // A mount below the folder that is removed: what is in it is not ours.
  await machine.run(
    'mkdir -p /srv/precious /var/lib/kubelet/foreign; echo data > /srv/precious/file; mount --bind /srv/precious /var/lib/kubelet/foreign',
  );
  const { ok, output } = await machine.tryRun('DEBIAN_FRONTEND=noninteractive apt-get purge -y stevedore </dev/null', {
    timeoutMs: 15 * minutes,
  });
  expect(ok, output.slice(-2000));
  const left = await machine.run(
    [
      'ls -d /etc/stevedore /etc/default/stevedore /usr/lib/stevedore /var/lib/stevedore /run/stevedore /var/lib/kubelet /var/log/pods /var/log/containers /etc/kubernetes/kubelet.conf /etc/kubernetes/pki/ca.crt /sys/fs/cgroup/kubepods.slice 2>/dev/null',
      'ctr -n k8s.io containers ls -q',
      'iptables-save | grep KUBE; ip6tables-save | grep KUBE; nft list tables | grep -i kube',
      'systemctl list-unit-files --no-legend | grep stevedore',
      'grep /var/lib/kubelet /proc/mounts',
      'ls -d /sys/class/net/veth* 2>/dev/null',
      'true',
    ]
      .join('\n')
      .replaceAll(/^(?!true)(.*)$/gm, '{ $1; } || true'),
    { timeoutMs: 5 * minutes },
  );
  expect(left.trim() === '', `left behind: ${left.trim()}\n${output.slice(-1500)}`);
  const kept = await machine.run('cat /srv/precious/file');
  expect(kept.trim() === 'data', 'what was mounted below /var/lib/kubelet is gone');
  return 'no file, rule, container, interface, cgroup, mount or unit is left; what was mounted below /var/lib/kubelet is untouched';
}

export async function lifeOfNode(world: World, report: Report): Promise<void> {
  const { machine } = world;
  await report.step('systemctl restart keeps pods', () => restart(world));
  await report.step('kill -9 keeps pods', () => kill(world));
  await report.step('a daemon that hangs is started again by the watchdog', () => hang(world));
  await report.step('apt install ./newer.deb keeps pods and connections', () => upgrade(world));
  await report.step('cut off from the network', () => cutNetwork(world));
  await report.step('reboot', async () => recovers(world, 'rebooted', await machine.reboot()));
  await report.step('power cut', async () => recovers(world, 'power cut', await machine.powerCut()));
}

export async function endOfNode(world: World, report: Report): Promise<void> {
  await report.step('pods deleted, the node idle', () => idle(world));
  await report.step('apt purge', () => purge(world));
}
