// NFS with a real server and a real kernel, on the virtual machine: pods that use volumes of it, the server gone and back, the daemon started again. Run by
// `run.sh --nfs` in a network namespace of its own. --disk RAW: the machine's disk, from run.sh; --write puts the result into docs/conformance.md.
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { type ControlPlane, startControlPlane } from '../lab/control-plane.ts';
import { network } from './image.ts';
import { startNode } from './join-less.ts';
import { type Machine, startMachine } from './machine.ts';
import { bystander, claim, doomed, late, main as mainPod } from './nfs-manifests.ts';
import { createReport, expect, type Report, reportTable, writeSection } from './report.ts';
import { createWorld, nodeName, type World } from './world.ts';

const { values } = parseArgs({ options: { disk: { type: 'string' }, write: { type: 'boolean', default: false } } });

const minutes = 60_000;
const say = (text: string): void => void process.stdout.write(text);

/** NFS mounts below the pods' folder, a line each: id, root, mount point, options, source. The same paths in containers are not in this namespace. */
const mounts = async ({ machine }: World): Promise<string[]> => {
  const text = await machine.run(
    "awk '$0 ~ / - nfs4? / && $5 ~ /kubelet/ { print $1, $4, $5, $6, $(NF-1), $NF }' /proc/self/mountinfo",
  );
  return text.trim() === '' ? [] : text.trim().split('\n');
};

const ready = async (world: World, name: string, limitMs: number): Promise<void> =>
  void (await world.until(
    `${name} is ready`,
    limitMs,
    () => world.kubectl('get', 'pod', name, '-o', 'jsonpath={.status.containerStatuses[0].ready}'),
    (answer) => answer === 'true',
  ));

const gone = async (world: World, name: string): Promise<number> => {
  const startedMs = performance.now();
  await world.until(
    `${name} is gone`,
    10 * minutes,
    () => world.kubectl('get', 'pod', name, '--ignore-not-found', '-o', 'name'),
    (answer) => answer === '',
  );
  return Math.round((performance.now() - startedMs) / 1000);
};

const uidOf = (world: World, name: string): Promise<string> =>
  world.kubectl('get', 'pod', name, '-o', 'jsonpath={.metadata.uid}');

/** Mount helpers that still try. */
const helpers = async ({ machine }: World): Promise<string> =>
  (await machine.run('pgrep -a "^(u?mount\\.nfs4?|mount)$" || true')).trim();

async function server({ machine }: World): Promise<string> {
  const text = await machine.run(
    "systemctl start nfs-server; uname -r; cat /proc/fs/nfsd/versions; exportfs -s; dpkg -s nfs-kernel-server | sed -n 's/^Version: //p'",
    { timeoutMs: 5 * minutes },
  );
  const [kernel, versions, exported = '', tools] = text.trim().split('\n');
  expect(exported.startsWith('/srv/nfs '), `exported: ${exported}`);
  await machine.run('ctr -n k8s.io images import /root/images.tar', { timeoutMs: 5 * minutes });
  return `kernel ${kernel}, nfs-kernel-server ${tools}, versions ${versions}`;
}

const configuration = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupDriver: systemd
runtimeRequestTimeout: 20m
authentication: {x509: {clientCAFile: /etc/kubernetes/ca.crt}}
---
apiVersion: stevedore/v1alpha1
kind: StevedoreConfiguration
kubeconfig: /etc/kubernetes/kubelet.conf
proxy: {enabled: false}
cni: {binDir: /usr/lib/cni}
`;

async function start(world: World): Promise<string> {
  await startNode(world, configuration);
  return 'the packaged unit, as it is, with a kubeconfig; the node is Ready';
}

async function use(world: World): Promise<string> {
  const { apply, kubectl, machine } = world;
  for (const object of [claim, mainPod, doomed, bystander('bystander')]) await apply(object);
  for (const name of ['main', 'doomed', 'bystander']) await ready(world, name, 15 * minutes);
  const uid = await uidOf(world, 'main');
  const found = await mounts(world);
  const at = (name: string): string =>
    found.find((line) => line.includes(`${uid}/volumes/kubernetes.io~nfs/${name} `)) ?? '';
  const source = `${network.guest}:/srv/nfs`;
  expect(at('data').includes(` ${source} rw,`), `the volume's mount: ${found.join('\n')}`);
  expect(at('data').includes('hard'), `not a hard mount: ${at('data')}`);
  expect(/ ro,\S* \S+:\/srv\/nfs\/read-only /.test(at('fixed')), `the read-only one: ${at('fixed')}`);
  expect(at('nfs-disk').includes('vers=4.1') && at('nfs-disk').includes('noatime'), `the claim's: ${at('nfs-disk')}`);
  const said = await kubectl(
    ...['exec', 'main', '--', 'sh', '-c'],
    [
      'head -c 4194304 /dev/urandom > /data/random; sync; sha256sum < /data/random; sha256sum < /same/random',
      'echo part > /part/file; echo claim > /claim/file; cat /fixed/file',
      '(echo x > /same/x) 2>&1; (echo x > /fixed/x) 2>&1; (ls /part/../../../secret) 2>&1; true',
    ].join('; '),
  );
  const [written, read, fixed, ...refusals] = said.trim().split('\n');
  const onServer = await machine.run(
    'sha256sum < /srv/nfs/random; cat /srv/nfs/sub/inner/file /srv/nfs/claim/file; test ! -e /srv/nfs/x; test ! -e /srv/nfs/read-only/x',
  );
  expect(read === written && onServer.trim() === `${written}\npart\nclaim`, `pod: ${said}; server: ${onServer}`);
  expect(fixed === 'the server wrote this', `the server's file: ${fixed}`);
  const readOnly = refusals.filter((line) => line.includes('Read-only file system')).length;
  expect(readOnly === 2 && refusals.some((line) => line.includes('No such file')), `refusals: ${refusals.join('; ')}`);
  const version = /vers=[\d.]+/.exec(at('data'))?.[0];
  return `inline (${version}, hard), readOnly source, readOnly mount, subPath, a claim with nfsvers=4.1,noatime: written and read on both sides, the read-only ones refused`;
}

async function statistics(world: World): Promise<string> {
  const startedMs = performance.now();
  const text = await world.kubectl('get', '--raw', `/api/v1/nodes/${nodeName}/proxy/stats/summary`);
  const seconds = Math.round((performance.now() - startedMs) / 100) / 10;
  const { pods } = JSON.parse(text) as {
    pods: {
      podRef: { name: string };
      volume?: { name: string; capacityBytes?: number; pvcRef?: { name: string } }[];
    }[];
  };
  const volumes = pods.find(({ podRef }) => podRef.name === 'main')?.volume ?? [];
  const shown = volumes.map(
    ({ name, capacityBytes, pvcRef }) => `${name}${pvcRef ? ` (${pvcRef.name})` : ''} ${capacityBytes}`,
  );
  return `${seconds} s: ${shown.join(', ')}`;
}

const measured = async (world: World): Promise<string> =>
  await world.until(
    'statistics of the claim',
    5 * minutes,
    () => statistics(world),
    (text) => /claim \(disk\) \d/.test(text),
  );

/** Starts the daemon again; neither containers nor mounts may be others afterwards. */
async function adopted(world: World): Promise<string> {
  const { machine, containers, restarts, nodeReady, until, kubectl } = world;
  const before = [await containers(), String(await restarts()), (await mounts(world)).join('\n')];
  const started = (await machine.run('systemctl show -p MainPID --value stevedore')).trim();
  await machine.run('systemctl restart stevedore', { timeoutMs: 10 * minutes });
  expect((await machine.run('systemctl show -p MainPID --value stevedore')).trim() !== started, 'the same process');
  const startedMs = performance.now();
  await nodeReady(10 * minutes);
  await until(
    'its pods are ready',
    5 * minutes,
    () => kubectl('get', 'pods', 'main', 'bystander', '-o', 'jsonpath={.items[*].status.containerStatuses[*].ready}'),
    (answer) => answer === 'true true',
  );
  const seconds = Math.round((performance.now() - startedMs) / 1000);
  const after = [await containers(), String(await restarts()), (await mounts(world)).join('\n')];
  expect(
    JSON.stringify(after) === JSON.stringify(before),
    `before:\n${before.join('\n')}\nafter:\n${after.join('\n')}`,
  );
  return `${before[2]?.split('\n').length} mounts and ${before[0]?.split('\n').length} tasks are the same ones; ready ${seconds} s after the start`;
}

// As a server that lost its power: no packet of it comes any more, not even a refusal.
const cut = (way: '-I' | '-D'): string =>
  ['--dport 2049', '--sport 2049', '--dport 111']
    .map((match) => `iptables -w ${way} INPUT -p tcp ${match} -j DROP`)
    .join('\n');

async function stopServer({ machine, until }: World): Promise<string> {
  await machine.run(`${cut('-I')}\nsystemctl stop nfs-server`, { timeoutMs: 5 * minutes });
  const size = await machine.run('wc -c < /srv/nfs/main.log');
  const hung = await until(
    'the writers hang in the kernel',
    5 * minutes,
    () => machine.run("ps -eo stat=,comm= | awk '$1 ~ /^D/ { print $2 }'"),
    (answer) => (answer.match(/^sh$/gm) ?? []).length >= 2,
  );
  expect((await machine.run('wc -c < /srv/nfs/main.log')) === size, 'somebody still writes to the server');
  return `stopped, and silent; in uninterruptible sleep: ${hung.trim().replaceAll('\n', ', ')}`;
}

async function othersGoOn(world: World): Promise<string> {
  const { kubectl, machine, apply } = world;
  const startedMs = performance.now();
  await apply(bystander('newcomer'));
  await ready(world, 'newcomer', 10 * minutes);
  const seconds = Math.round((performance.now() - startedMs) / 1000);
  const [now, last] = [await machine.run('date +%s'), await kubectl('logs', 'bystander', '--tail=1')];
  expect(Math.abs(Number(now) - Number(last)) < 60, `the bystander last said ${last}, and it is ${now}`);
  expect((await kubectl('exec', 'bystander', '--', 'echo', 'hello')).trim() === 'hello', 'exec');
  const node = await kubectl('get', 'node', nodeName, '-o', 'jsonpath={.status.conditions[?(@.type=="Ready")].status}');
  expect(node === 'True', `the node's Ready is ${node}`);
  return `a new pod without NFS is ready after ${seconds} s; logs and exec of the other answer, the node is Ready; /stats/summary within ${await statistics(world)}`;
}

async function told(world: World): Promise<string> {
  const { apply, kubectl, until } = world;
  await apply(late('late'));
  await apply(late('given-up'));
  const told = await until(
    'a new pod says what it waits for',
    10 * minutes,
    async () =>
      [
        await kubectl(
          'get',
          'pod',
          'late',
          '-o',
          'jsonpath={.status.containerStatuses[0].state.waiting.message}{"\\n"}',
        ),
        await kubectl(
          'get',
          'events',
          '--field-selector',
          'involvedObject.name=late,reason=FailedMount',
          '-o',
          'jsonpath={.items[*].message}',
        ),
      ].join(''),
    (answer) => /the NFS server 10\.77\.0\.2 does not answer/.test(answer),
  );
  return told.trim().replaceAll('\n', ' / ');
}

async function given(world: World, name: string): Promise<string> {
  const { kubectl, machine } = world;
  const uid = await uidOf(world, name);
  await kubectl('delete', 'pod', name, '--wait=false');
  const seconds = await gone(world, name);
  const left = await machine.run(
    `grep ${uid} /proc/self/mountinfo || true; ls -d /var/lib/kubelet/pods/${uid} 2>/dev/null || true; pgrep -af ${uid} | grep -v pgrep || true`,
  );
  // The shell that asks has the uid on its command line too.
  const lines = left.split('\n').filter((line) => line !== '' && !line.includes('grep'));
  expect(lines.length === 0, `left behind: ${lines.join('; ')}`);
  return `gone after ${seconds} s, with mount, folder and every process`;
}

async function deleted(world: World): Promise<string> {
  const sum = async (): Promise<string> => await world.machine.run('sha256sum /srv/nfs/random /srv/nfs/doomed');
  const before = await sum();
  const seen = `with a process that hangs: ${await given(world, 'doomed')}; while its mount(8) waits: ${await given(world, 'given-up')}`;
  expect((await sum()) === before, 'data has changed');
  return `${seen}; the data is there`;
}

async function back(world: World): Promise<string> {
  const { machine, kubectl, restarts, until } = world;
  const size = Number(await machine.run('wc -c < /srv/nfs/main.log'));
  const pid = (await machine.run('systemctl show -p MainPID --value stevedore')).trim();
  await machine.run(`systemctl start nfs-server\n${cut('-D')}`, { timeoutMs: 5 * minutes });
  const startedMs = performance.now();
  const passed = (): number => Math.round((performance.now() - startedMs) / 1000);
  await until(
    'main writes again',
    10 * minutes,
    () => machine.run('wc -c < /srv/nfs/main.log'),
    (answer) => Number(answer) > size,
  );
  const wrote = passed();
  await ready(world, 'late', 10 * minutes);
  await until(
    'late writes',
    5 * minutes,
    () => machine.run('cat /srv/nfs/late'),
    (answer) => /^\d+/.test(answer),
  );
  const lateAfter = passed();
  await kubectl('exec', 'main', '--', 'sh', '-c', 'echo again > /part/again && cat /claim/file /fixed/file');
  expect((await machine.run('cat /srv/nfs/sub/inner/again')).trim() === 'again', 'the sub-path does not write');
  expect((await restarts()) === 0, 'a container was restarted');
  expect((await machine.run('systemctl show -p MainPID --value stevedore')).trim() === pid, 'the daemon was restarted');
  const twice = (await mounts(world))
    .map((line) => line.split(' ')[2])
    .filter((path, at, all) => all.indexOf(path) !== at);
  expect(twice.length === 0, `mounted more than once: ${twice.join(', ')}`);
  expect((await helpers(world)) === '', `still trying: ${await helpers(world)}`);
  return `the process that hung writes after ${wrote} s, the pod that waited after ${lateAfter} s; nothing was restarted, each volume is mounted once`;
}

async function end(world: World): Promise<string> {
  const { kubectl, machine } = world;
  const sum = (): Promise<string> =>
    machine.run('cd /srv/nfs; sha256sum random read-only/file claim/file sub/inner/file sub/inner/again');
  const before = await sum();
  await kubectl('delete', 'pods', '--all', '--wait=false');
  for (const name of ['main', 'late', 'bystander', 'newcomer']) await gone(world, name);
  const found = await mounts(world);
  expect(found.length === 0, `still mounted: ${found.join('\n')}`);
  // Folders go with the tidying that follows the pods' end.
  await world.until(
    'no folder of a pod is left',
    2 * minutes,
    () => machine.run('ls /var/lib/kubelet/pods; grep -c " nfs4 " /proc/self/mountinfo || true'),
    (answer) => answer.trim() === '0',
  );
  expect((await sum()) === before, 'data has changed');
  return 'no mount and no folder of a pod is left; checksums of five files on the server are what they were';
}

async function story(world: World, report: Report): Promise<void> {
  await report.step("a server of Debian's, on the machine", () => server(world), { vital: true });
  await report.step('the node starts', () => start(world), { vital: true });
  await report.step('pods use its folders in five ways', () => use(world), { vital: true });
  await report.step('statistics of the claim', () => measured(world));
  await report.step('the daemon is started again: mounts are adopted', () => adopted(world));
  await report.step('the server is gone', () => stopServer(world), { vital: true });
  await report.step('a new pod with the volume says so', () => told(world));
  await report.step('other pods go on', () => othersGoOn(world));
  await report.step('pods with the dead volume are deleted', () => deleted(world));
  await report.step('the daemon is started again while the server is gone', () => adopted(world));
  await report.step('the server is back', () => back(world));
  await report.step('everything is deleted', () => end(world));
}

/** What helps to understand a failed step. */
const explain = (machine: Machine, world: World) => async (): Promise<string> => {
  const inside = await machine.tryRun(
    'journalctl -u stevedore -n 25 --no-pager -o cat | cut -c1-600; grep nfs /proc/self/mountinfo; ps -eo pid,ppid,stat,wchan:24,args | grep -E "nfs|mount| D" | grep -v grep; dmesg | tail -5',
  );
  const outside = await world.kubectl('get', 'pods', '-o', 'wide').catch(String);
  return `--- the machine\n${inside.output}\n--- the cluster\n${outside}\n---`;
};

async function main(): Promise<number> {
  if (values.disk === undefined) throw new Error('--disk is needed: run.sh --nfs gives it');
  let plane: ControlPlane | undefined;
  let machine: Machine | undefined;
  try {
    const startedMs = performance.now();
    machine = await startMachine({ disk: values.disk });
    say(`the machine is up after ${Math.round((performance.now() - startedMs) / 1000)} s\n`);
    plane = await startControlPlane({ controllers: true, address: network.host });
    const world = await createWorld(machine, plane, { first: '', next: '' });
    const report = createReport({ say, explain: explain(machine, world) });
    await story(world, report).catch((error: unknown) => say(`the story ends here: ${String(error)}\n`));
    const failed = report.results.filter(({ ok }) => !ok).length;
    const table = reportTable(report.results);
    say(`\n${table}\n${report.results.length - failed} of ${report.results.length} steps passed\n`);
    if (values.write)
      await writeSection('test:vm -- --nfs', [
        `## NFS, on the virtual machine (${new Date().toISOString().slice(0, 10)})`,
        `\`npm run test:vm -- --nfs\`: Debian 12 under qemu without hardware virtualization, ${cpus().length} processors of the host for all, whose load was ${loadavg()[0]?.toFixed(0)} at the end: times say nothing about real hardware. The machine is server and client at once.`,
        table,
      ]);
    return failed === 0 ? 0 : 1;
  } finally {
    await plane?.stop();
    await machine?.stop();
  }
}

process.exitCode = await main();
