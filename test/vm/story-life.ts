// The third part of the story: the daemon is restarted, killed, upgraded, the network and the power are cut, the host is rebooted.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, type Report } from './report.ts';
import { runPods } from './story-pods.ts';
import { underPressure } from './story-pressure.ts';
import { nodeName, type World } from './world.ts';

const minutes = 60_000;

/** Does something to the daemon and makes sure that no container noticed: same ids and process ids, no restart counted, all ready. */
export async function unnoticed(world: World, work: () => Promise<string>): Promise<string> {
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
  const locks = await machine.run('pgrep -c systemd-inhibit || true');
  expect(Number(locks) <= 1, `${locks.trim()} locks delay a shutdown`);
  const [idsAfter, restartsAfter] = [await containers(), await restarts()];
  expect(idsAfter === idsBefore, `containers before:\n${idsBefore}\nafter:\n${idsAfter}`);
  expect(restartsAfter === restartsBefore, `${restartsAfter - restartsBefore} restarts were counted`);
  const count = idsBefore.split('\n').length;
  return `${seen}; ${count} tasks go on under the same ids and pids, pods ready ${Math.round((performance.now() - startedMs) / 1000)} s after`;
}

/** Waits until the daemon itself shows all pods running and ready; prints how many, the milliseconds to READY=1 and to then, and the daemon's own of the processors. */
export const adoption = `
count() { curl -s -m 5 --unix-socket /run/stevedore/stevedore.sock http://node/status | grep -o '"phase":"Running","ready":true' | wc -l; }
wanted=$(count); started=$(date +%s%3N)
systemctl restart stevedore
ready=$(date +%s%3N)
until [ "$(count)" -ge "$wanted" ]; do sleep 0.1; done
adopted=$(date +%s%3N)
worked=$(awk '{ print ($14 + $15) * 10 }' "/proc/$(systemctl show -p MainPID --value stevedore)/stat")
echo "$wanted $((ready - started)) $((adopted - ready)) $worked"`;

const restart = (world: World): Promise<string> =>
  unnoticed(world, async () => {
    const [pods, readyMs, adoptedMs] = (await world.machine.run(adoption, { timeoutMs: 15 * minutes }))
      .trim()
      .split(' ');
    expect(Number(pods) >= 4, `the daemon showed ${pods} ready pods`);
    return `systemctl restart took ${Number(readyMs) / 1000} s, all ${pods} pods were adopted ${Number(adoptedMs) / 1000} s later`;
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
    // The unit's three minutes would only be waited for.
    const dropIn = '/run/systemd/system/stevedore.service.d';
    await world.machine.run(
      `mkdir -p ${dropIn}; printf '[Service]\\nWatchdogSec=80s\\n' > ${dropIn}/watchdog.conf; systemctl daemon-reload; systemctl restart stevedore`,
      { timeoutMs: 10 * minutes },
    );
    const before = (await world.machine.run('systemctl show -p MainPID --value stevedore')).trim();
    await world.machine.run(`kill -STOP ${before}; rm -r ${dropIn}; systemctl daemon-reload`);
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

/** NAME/READY/RESTARTS of each pod's first container. */
const lives = ({ kubectl }: World): Promise<string> =>
  kubectl(
    'get',
    'pods',
    '-o',
    'jsonpath={range .items[*]}{.metadata.name}/{.status.containerStatuses[0].ready}/{.status.containerStatuses[0].restartCount} {end}',
  );

async function recovers(world: World, how: string, goDown: () => Promise<number>): Promise<string> {
  const { kubectl, until, nodeReady, callService, machine } = world;
  // A host that is back soon finds the API still telling of the boot before: its pods have begun anew when each count has risen.
  const before = new Set((await lives(world)).trim().split(' '));
  const seconds = await goDown();
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
    () => lives(world),
    (answer) => {
      const now = answer.trim().split(' ');
      return now.every((pod) => pod.includes('/true/') && !before.has(pod));
    },
  );
  const answers = await callService(4);
  expect(
    answers.every((text) => text.startsWith('web-')),
    `the Service answered: ${answers.join(', ')}`,
  );
  return `${how} (ssh after ${seconds} s); ${Math.round((performance.now() - startedMs) / 1000)} s later all pods run again and the Service answers`;
}

export async function lifeOfNode(world: World, report: Report): Promise<void> {
  await report.step('systemctl restart keeps pods', () => restart(world));
  await report.step('kill -9 keeps pods', () => kill(world));
  await report.step('a daemon that hangs is started again by the watchdog', () => hang(world));
  await report.step('apt install ./newer.deb keeps pods and connections', () => upgrade(world));
  await report.step('cut off from the network', () => cutNetwork(world));
  await fallsAndRises(world, report);
}

/** What has its own kernel and may be short of memory. */
export async function lifeOfMachine(world: World, report: Report): Promise<void> {
  await runPods(world, report);
  await fallsAndRises(world, report);
}

async function fallsAndRises(world: World, report: Report): Promise<void> {
  const { machine } = world;
  await underPressure(world, report);
  await report.step('reboot', async () => recovers(world, 'rebooted', machine.reboot));
  await report.step('power cut', async () => recovers(world, 'power cut', machine.powerCut));
}
