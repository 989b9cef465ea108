// The second part of the story: pods under systemd's slices, limits, AppArmor, a Service, kubectl's streams.
import { network } from './image.ts';
import { armored, bestEffort, greedy, guaranteed, web } from './manifests.ts';
import { expect, type Report } from './report.ts';
import type { World } from './world.ts';

const minutes = 60_000;

// One after the other: sandboxes that are made side by side on emulated processors take each other's time.
async function start({ apply, until, kubectl }: World): Promise<string> {
  let count = 0;
  for (const object of [guaranteed, bestEffort, web]) {
    await apply(object);
    count += object === web ? 2 : 1;
    const wanted = count;
    await until(
      `${wanted} pods run and are ready`,
      110 * minutes,
      () => kubectl('get', 'pods', '-o', 'jsonpath={range .items[*]}{.status.containerStatuses[0].ready} {end}'),
      (answer) => (answer.match(/true/g) ?? []).length === wanted,
    );
  }
  return 'a Guaranteed and a BestEffort pod and a Deployment of 2 are ready';
}

/** The slice of a pod, as systemd names it. */
const sliceOf = (uid: string, level: string): string => {
  const pod = `pod${uid.replaceAll('-', '_')}`;
  return level === '' ? `kubepods-${pod}.slice` : `kubepods-${level}-${pod}.slice`;
};

const folderOf = (uid: string, level: string, controller = ''): string =>
  `/sys/fs/cgroup/${controller}kubepods.slice/${level === '' ? '' : `kubepods-${level}.slice/`}${sliceOf(uid, level)}`;

async function slices(world: World): Promise<string> {
  const { machine, kubectl } = world;
  const uidOf = async (...which: string[]): Promise<string> =>
    (await kubectl('get', 'pod', ...which, '-o', 'jsonpath={.items[0].metadata.uid}{.metadata.uid}')).trim();
  const [whole, part, best] = [await uidOf('guaranteed'), await uidOf('-l', 'app=web'), await uidOf('best-effort')];
  if (machine.kind === 'container') return slicesOfVersion1(world, { whole, part, best });
  const cat = (folder: string) =>
    `cd ${folder}; echo "$(cat cpu.max) $(cat cpu.weight) $(cat memory.max) $(ls -d cri-containerd-*.scope | wc -l)"`;
  const text = await machine.run(
    [
      cat(folderOf(whole, '')),
      cat(folderOf(part, 'burstable')),
      cat(folderOf(best, 'besteffort')),
      `systemctl show -p MemoryMax --value ${sliceOf(whole, '')}`,
      `cat ${folderOf(whole, '')}/cri-containerd-*.scope/memory.max | sort | head -1`,
      'cat /proc/$(systemctl show -p MainPID --value stevedore)/oom_score_adj',
      'cat /sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice/cpu.weight /sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice/cpu.weight',
    ].join('\n'),
  );
  const lines = text.trim().split('\n');
  const wanted = [
    // quota and period, weight, bytes, scopes of sandbox and container
    '25000 100000 10 50331648 2',
    '50000 100000 2 67108864 2',
    'max 100000 1 max 2',
    '50331648',
    '50331648',
    '-999',
    // The sum of the requests of Burstable pods, 100m; the least there is.
    '4',
    '1',
  ];
  expect(
    JSON.stringify(lines) === JSON.stringify(wanted),
    `found ${JSON.stringify(lines)}, wanted ${JSON.stringify(wanted)}`,
  );
  // systemd writes a slice's files again at a reload: what it does not know is lost then.
  await machine.run('systemctl daemon-reload', { timeoutMs: 3 * minutes });
  const after = await machine.run([cat(folderOf(whole, '')), cat(folderOf(part, 'burstable'))].join('\n'));
  expect(after.trim() === wanted.slice(0, 2).join('\n'), `after systemctl daemon-reload: ${after.trim()}`);
  return `cpu.max, cpu.weight and memory.max of three classes, in slices and scopes, also after daemon-reload: ${lines.slice(0, 3).join('; ')}`;
}

/** The same with the files of version 1, where shares are the request itself and systemd knows nothing of quotas. */
async function slicesOfVersion1(
  { machine }: World,
  { whole, part, best }: Record<'whole' | 'part' | 'best', string>,
): Promise<string> {
  const cat = (uid: string, level: string) => {
    const [cpu, memory] = [folderOf(uid, level, 'cpu/'), folderOf(uid, level, 'memory/')];
    return `echo "$(cat ${cpu}/cpu.cfs_quota_us) $(cat ${cpu}/cpu.cfs_period_us) $(cat ${cpu}/cpu.shares) $(cat ${memory}/memory.limit_in_bytes) $(ls -d ${memory}/cri-containerd-*.scope | wc -l)"`;
  };
  const of = [cat(whole, ''), cat(part, 'burstable'), cat(best, 'besteffort')];
  const classes = '/sys/fs/cgroup/cpu/kubepods.slice';
  const text = await machine.run(
    [
      ...of,
      `cat ${folderOf(whole, '', 'memory/')}/cri-containerd-*.scope/memory.limit_in_bytes | sort | head -1`,
      `cat ${classes}/kubepods-burstable.slice/cpu.shares ${classes}/kubepods-besteffort.slice/cpu.shares`,
    ].join('\n'),
  );
  const lines = text.trim().split('\n');
  const wanted = [
    // quota, period, shares, bytes, scopes of sandbox and container
    '25000 100000 256 50331648 2',
    '50000 100000 51 67108864 2',
    '-1 100000 2 9223372036854771712 2',
    '50331648',
    '102',
    '2',
  ];
  const found = JSON.stringify(lines);
  expect(found === JSON.stringify(wanted), `found ${found}, wanted ${JSON.stringify(wanted)}`);
  await machine.run('systemctl daemon-reload', { timeoutMs: 3 * minutes });
  const after = await machine.run(of.join('\n'));
  expect(after.trim() === wanted.slice(0, 3).join('\n'), `after systemctl daemon-reload: ${after.trim()}`);
  return `quota, shares and limit of three classes, in slices and scopes, also after daemon-reload: ${lines.slice(0, 3).join('; ')}`;
}

// containerd 1.6 hears of an exit and of the kernel's kill by two ways; on a slow machine the second may come too late to be the reason.
async function outOfMemory({ apply, until, kubectl }: World): Promise<string> {
  const fields =
    '{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}';
  for (let tries = 1; ; tries++) {
    await apply(greedy);
    const answer = await until(
      'the container that takes too much memory has ended',
      10 * minutes,
      () => kubectl('get', 'pod', 'greedy', '-o', `jsonpath={.status.phase} ${fields}`),
      (text) => text.startsWith('Failed'),
    );
    await kubectl('delete', 'pod', 'greedy', '--wait=true', '--timeout=240s');
    if (answer.startsWith('Failed OOMKilled')) return `OOMKilled, phase Failed${tries > 1 ? ` (try ${tries})` : ''}`;
    expect(answer.endsWith(' 137') && tries < 4, `after ${tries} tries: ${answer}`);
  }
}

async function appArmor({ apply, until, kubectl }: World): Promise<string> {
  const cases: readonly [name: string, profile: object, label: RegExp, result: string][] = [
    ['armored-default', { type: 'RuntimeDefault' }, /^cri-containerd\.apparmor\.d \(enforce\)/, 'written'],
    [
      'armored-local',
      { type: 'Localhost', localhostProfile: 'stevedore-vm-deny-write' },
      /^stevedore-vm-deny-write \(enforce\)/,
      'denied',
    ],
    ['armored-not', { type: 'Unconfined' }, /^unconfined/, 'written'],
  ];
  for (const [name, profile, label, result] of cases) {
    await apply(armored(name, profile));
    await until(
      `${name} has ended`,
      10 * minutes,
      () => kubectl('get', 'pod', name, '-o', 'jsonpath={.status.phase}'),
      (answer) => answer === 'Succeeded',
    );
    const text = await kubectl('logs', name);
    expect(label.test(text) && text.includes(result), `${name} said: ${text}`);
  }
  await apply(armored('armored-absent', { type: 'Localhost', localhostProfile: 'no-such-profile' }));
  const why = await until(
    'a pod with a profile that is not there is not run',
    10 * minutes,
    () =>
      kubectl(
        ...['get', 'pod', 'armored-absent', '-o'],
        'jsonpath={.status.phase} {.status.message}{.status.containerStatuses[0].state.waiting.reason} {.status.containerStatuses[0].state.waiting.message}',
      ),
    (answer) => answer.includes('no-such-profile'),
  );
  await kubectl('delete', 'pod', ...cases.map(([name]) => name), 'armored-absent', '--wait=true', '--timeout=240s');
  return `RuntimeDefault, Localhost and Unconfined as asked; an absent one is refused: ${why.slice(0, 120)}`;
}

async function service({ callService, machine }: World): Promise<string> {
  const answers = new Set((await callService(12)).map((text) => text.trim()));
  expect(
    answers.size === 2 && [...answers].every((name) => name.startsWith('web-')),
    `two pods were to answer: ${[...answers].join(', ')}`,
  );
  const port = await machine.run(`curl -sS -m 20 http://${network.guest}:30080/`);
  expect(port.startsWith('web-'), `the node port answered: ${port}`);
  return `ClusterIP and node port answer from ${[...answers].join(' and ')}`;
}

async function streams({ kubectl }: World): Promise<string> {
  const log = await kubectl('logs', 'deployment/web');
  expect(log.includes('listens on port'), `logs: ${log}`);
  const said = await kubectl('exec', 'guaranteed', '--', 'sh', '-c', 'echo hello; cat /proc/self/cgroup');
  expect(said.includes('hello'), `exec: ${said}`);
  return `kubectl logs and exec through the API server; exec runs in ${said.trim().split('\n').at(-1) ?? ''}`;
}

export async function runPods(world: World, report: Report): Promise<void> {
  await report.step('pods of three classes run', () => start(world), { vital: true });
  const version = world.machine.kind === 'vm' ? 2 : 1;
  await report.step(`limits under cgroup v${version}, in systemd's slices`, () => slices(world));
  await report.step('a container over its memory limit is OOMKilled', () => outOfMemory(world));
  if (world.machine.kind === 'vm') await report.step('AppArmor profiles are enforced', () => appArmor(world));
  await report.step('the Service answers', () => service(world));
  await report.step('kubectl logs and exec', () => streams(world));
}
