// Docker Engine of Debian as the runtime, under systemd, with each of its cgroup drivers: on the virtual machine (cgroup v2), or with --container in a container (v1).
// Run by `run.sh --docker` in a network namespace of its own. --disk RAW: the machine's disk, with docker.io; --driver systemd or cgroupfs: one of the two; --write puts the result into docs/conformance.md.
import { cpus, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { type ControlPlane, startControlPlane } from '../lab/control-plane.ts';
import { startContainer } from './container.ts';
import { type Driver, limits, podCgroups } from './docker-cgroups.ts';
import { network } from './image.ts';
import { startNode } from './join-less.ts';
import { type Machine, startMachine } from './machine.ts';
import { bestEffort, greedy, guaranteed, web } from './manifests.ts';
import { createReport, expect, type Report, reportTable, writeSection } from './report.ts';
import { unnoticed } from './story-life.ts';
import { createWorld, nodeName, type World } from './world.ts';

const { values } = parseArgs({
  options: {
    disk: { type: 'string' },
    container: { type: 'boolean', default: false },
    driver: { type: 'string', multiple: true, default: ['systemd', 'cgroupfs'] },
    write: { type: 'boolean', default: false },
  },
});

const minutes = 60_000;
const say = (text: string): void => void process.stdout.write(text);

const configuration = (driver: Driver): string => `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix:///var/run/docker.sock
cgroupDriver: ${driver}
runtimeRequestTimeout: 20m
authentication: {x509: {clientCAFile: /etc/kubernetes/ca.crt}}
---
apiVersion: stevedore/v1alpha1
kind: StevedoreConfiguration
kubeconfig: /etc/kubernetes/kubelet.conf
cni: {binDir: /usr/lib/cni}
---
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: ${network.pods}
`;

async function engine({ machine }: World, driver: Driver): Promise<string> {
  const settings = JSON.stringify({ 'exec-opts': [`native.cgroupdriver=${driver}`], 'live-restore': true });
  await machine.run('systemctl stop stevedore; mkdir -p /etc/docker; cat > /etc/docker/daemon.json', {
    input: settings,
    timeoutMs: 5 * minutes,
  });
  const text = await machine.run(
    "systemctl restart docker; docker load -q -i /root/images.tar >&2; docker info -f '{{.ServerVersion}} {{.CgroupDriver}} {{.CgroupVersion}} {{.Driver}}'",
    { timeoutMs: 10 * minutes },
  );
  const [version, found, cgroups, storage] = text.trim().split(' ');
  expect(
    found === driver && cgroups === (machine.kind === 'vm' ? '2' : '1'),
    `the engine says ${text.trim()}, not ${driver}`,
  );
  return `Docker ${version}, ${found} driver on cgroup v${cgroups}, ${storage}, live-restore`;
}

async function node(world: World, driver: Driver): Promise<string> {
  await startNode(world, configuration(driver));
  const runtime = await world.kubectl(
    ...['get', 'node', nodeName, '-o', 'jsonpath={.status.nodeInfo.containerRuntimeVersion}'],
  );
  expect(runtime.startsWith('docker://'), `the node's runtime is ${runtime}`);
  return `the packaged unit with ${runtime}; Ready`;
}

async function run({ apply, until, kubectl }: World): Promise<string> {
  for (const object of [guaranteed, bestEffort, web]) await apply(object);
  await until(
    '4 pods are ready',
    30 * minutes,
    () => kubectl('get', 'pods', '-o', 'jsonpath={range .items[*]}{.status.containerStatuses[0].ready} {end}'),
    (answer) => (answer.match(/true/g) ?? []).length === 4,
  );
  return 'a Guaranteed and a BestEffort pod and a Deployment of 2 are ready';
}

async function outOfMemory({ apply, until, kubectl, machine }: World): Promise<string> {
  await apply(greedy);
  const fields = '{.status.containerStatuses[0].state.terminated}';
  const answer = await until(
    'the container that takes too much memory has ended',
    10 * minutes,
    () => kubectl('get', 'pod', 'greedy', '-o', `jsonpath={.status.phase} ${fields}`),
    (text) => text.startsWith('Failed'),
  );
  await kubectl('delete', 'pod', 'greedy', '--wait=true', '--timeout=240s');
  await until(
    'its sandbox is gone',
    5 * minutes,
    () => machine.run('docker ps -q --filter name=_greedy_'),
    (text) => text.trim() === '',
  );
  expect(answer.includes('"reason":"OOMKilled"') && answer.includes('"exitCode":137'), answer);
  return 'OOMKilled, exit code 137, phase Failed';
}

async function resize(world: World, driver: Driver): Promise<string> {
  const { kubectl, until, containers, restarts } = world;
  const before = await containers();
  const asked = { cpu: '500m', memory: '64Mi' };
  const patch = { spec: { containers: [{ name: 'web', resources: { requests: asked, limits: asked } }] } };
  await kubectl('patch', 'pod', 'guaranteed', '--subresource', 'resize', '-p', JSON.stringify(patch));
  await until(
    'the status tells the new limits',
    5 * minutes,
    () => kubectl('get', 'pod', 'guaranteed', '-o', 'jsonpath={.status.containerStatuses[0].resources.limits}'),
    (answer) => answer.includes('"500m"') && answer.includes('"64Mi"'),
  );
  const { found, wanted } = await limits(world, driver, 'guaranteed', '', { milliCpu: 500, mebibytes: 64 });
  expect(found === wanted, `found ${found}, wanted ${wanted}`);
  expect((await containers()) === before && (await restarts()) === 0, 'a container is another one');
  return `250m, 48Mi → 500m, 64Mi in the same container: ${found}`;
}

async function streams({ kubectl }: World): Promise<string> {
  const log = await kubectl('logs', 'deployment/web');
  expect(log.includes('listens on port'), `logs: ${log}`);
  const said = await kubectl('exec', 'guaranteed', '--', 'sh', '-c', 'echo hello; cat /proc/self/cgroup');
  expect(said.includes('hello'), `exec: ${said}`);
  return `logs and exec through the API server; exec runs in ${said.trim().split('\n').at(-1) ?? ''}`;
}

async function service({ callService, machine }: World): Promise<string> {
  const answers = new Set((await callService(12)).map((text) => text.trim()));
  const port = await machine.run(`curl -sS -m 20 http://${network.guest}:30080/`);
  const all = [...answers, port.trim()];
  expect(
    answers.size === 2 && all.every((name) => name.startsWith('web-')),
    `two pods were to answer: ${all.join(', ')}`,
  );
  return `ClusterIP and node port, beside Docker's own rules: ${[...answers].join(' and ')}`;
}

const restart = (world: World, unit: 'stevedore' | 'docker'): Promise<string> =>
  unnoticed(world, async () => {
    await world.machine.run(`systemctl restart ${unit}`, { timeoutMs: 10 * minutes });
    return `systemctl restart ${unit}`;
  });

async function remove({ kubectl, until, machine }: World): Promise<string> {
  await kubectl('delete', 'deployment,service,pod', '--all', '--wait=false');
  await until(
    'all pods are gone',
    10 * minutes,
    () => kubectl('get', 'pods', '-o', 'name'),
    (answer) => answer.trim() === '',
  );
  await until(
    'no container and no cgroup of a pod is left',
    2 * minutes,
    () =>
      machine.run(
        `docker ps -aq; ${podCgroups}; systemctl list-units --all --no-legend "kubepods*-pod*" "docker-*.scope"`,
      ),
    (answer) => answer.trim() === '',
  );
  return 'no container, slice, scope or folder of a pod is left';
}

async function withDriver(world: World, report: Report, driver: Driver): Promise<void> {
  const step = (name: string, work: () => Promise<string>, vital = false): Promise<void> =>
    report.step(`${driver}: ${name}`, work, { vital });
  await step("Debian's engine", () => engine(world, driver), true);
  await step('the node starts', () => node(world, driver), true);
  await step('pods of three classes run', () => run(world), true);
  await step('limits in the cgroups of pods and containers', async () => {
    const seen: string[] = [];
    const cases = [
      ['guaranteed', '', { milliCpu: 250, mebibytes: 48 }],
      ['web', 'burstable', { milliCpu: 500, mebibytes: 64, requestMilliCpu: 50 }],
      ['best-effort', 'besteffort', {}],
    ] as const;
    for (const [name, level, figures] of cases) {
      const { found, wanted } = await limits(world, driver, name, level, figures);
      expect(found === wanted, `${name}: found ${found}, wanted ${wanted}`);
      seen.push(found);
    }
    return seen.join('; ');
  });
  await step('a container over its memory limit is OOMKilled', () => outOfMemory(world));
  await step('resize in place', () => resize(world, driver));
  await step('kubectl logs and exec', () => streams(world));
  await step('the Service answers', () => service(world));
  await step('the daemon is started again', () => restart(world, 'stevedore'));
  await step('the engine is started again', () => restart(world, 'docker'));
  await step('after it: logs and exec', () => streams(world));
  await step('after it: the Service answers', () => service(world));
  await step('everything is deleted', () => remove(world));
}

/** What helps to understand a failed step. */
const explain = (machine: Machine, world: World) => async (): Promise<string> => {
  const inside = await machine.tryRun(
    'journalctl -u stevedore -n 25 --no-pager -o cat | cut -c1-600; journalctl -u docker -n 10 --no-pager -o cat; docker ps -a; systemctl list-units --no-legend "kubepods*" "docker-*"',
  );
  const outside = await world.kubectl('get', 'pods', '-o', 'wide').catch(String);
  return `--- the machine\n${inside.output}\n--- the cluster\n${outside}\n---`;
};

async function main(): Promise<number> {
  if (values.disk === undefined) throw new Error('--disk is needed: run.sh --docker gives it');
  let plane: ControlPlane | undefined;
  let machine: Machine | undefined;
  try {
    const startedMs = performance.now();
    const options = { disk: values.disk };
    machine = await (values.container ? startContainer(options) : startMachine(options));
    say(`the machine is up after ${Math.round((performance.now() - startedMs) / 1000)} s\n`);
    plane = await startControlPlane({ controllers: true, scheduler: true, address: network.host });
    const world = await createWorld(machine, plane, { first: '', next: '' });
    const containers = async (): Promise<string> =>
      (
        await world.machine.run('docker ps -q --no-trunc | xargs -r docker inspect -f "{{.Id}} {{.State.Pid}}" | sort')
      ).trim();
    const report = createReport({ say, explain: explain(machine, world) });
    try {
      for (const driver of ['systemd', 'cgroupfs'] as const)
        if (values.driver.includes(driver)) await withDriver({ ...world, containers }, report, driver);
    } catch (error) {
      say(`the story ends here: ${String(error)}\n`);
    }
    const failed = report.results.filter(({ ok }) => !ok).length;
    const table = reportTable(report.results);
    say(`\n${table}\n${report.results.length - failed} of ${report.results.length} steps passed\n`);
    if (values.write) await write(table);
    return failed === 0 ? 0 : 1;
  } finally {
    await plane?.stop();
    await machine?.stop();
  }
}

const write = (table: string): Promise<void> =>
  writeSection(`test:vm -- --docker${values.container ? ' --container' : ''}`, [
    `## Docker Engine, ${values.container ? 'on a host in a container: cgroup v1' : 'on the virtual machine: cgroup v2'} (${new Date().toISOString().slice(0, 10)})`,
    `\`npm run test:vm -- --docker${values.container ? ' --container' : ''}\`: Debian 12 ${values.container ? 'in namespaces of the host' : 'under qemu without hardware virtualization'}, ${cpus().length} processors of the host for all, whose load was ${loadavg()[0]?.toFixed(0)} at the end.`,
    table,
  ]);

process.exitCode = await main();
