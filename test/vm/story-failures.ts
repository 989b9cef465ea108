// Joins that must fail: each with one clear message, exit code 1, and the host as it was before.
import { setTimeout as sleep } from 'node:timers/promises';
import { applyBootstrapObjects } from '../lab/bootstrap-objects.ts';
import { network } from './image.ts';
import { expect, type Report } from './report.ts';
import { lenient, nodeName, type World } from './world.ts';

const minutes = 60_000;

/** What a join makes or changes. Empty: the host is as the package left it. */
const traces = lenient([
  'find /etc/kubernetes /var/lib/kubelet /run/stevedore 2>/dev/null',
  'diff /usr/share/stevedore/config.yaml /etc/stevedore/config.yaml',
  'ls /etc/systemd/system/multi-user.target.wants | grep stevedore',
  'systemctl is-active stevedore | grep -v inactive',
]);

interface Mistake {
  /** What is changed is not a container's own. */
  readonly machineOnly?: true;
  readonly what: string;
  /** In the machine, before and after the attempt. */
  readonly before?: string;
  readonly after?: string;
  readonly endpoint?: string;
  readonly token?: string;
  readonly hash?: string;
  readonly message: RegExp;
}

async function attempt({ machine, join }: World, mistake: Mistake): Promise<string> {
  const { endpoint = join.endpoint, token = join.token, hash = join.hash } = mistake;
  if (mistake.before !== undefined) await machine.run(mistake.before);
  try {
    const { code, output } = await machine.tryRun(
      `stevedore join ${endpoint} --token ${token} --discovery-token-ca-cert-hash ${hash}`,
      { timeoutMs: 10 * minutes },
    );
    expect(code === 1, `the exit code is ${code}: ${output}`);
    const said = output.split('\n').filter((line) => line.startsWith('stevedore: '));
    expect(said.length === 1, `one message was expected: ${output}`);
    expect(mistake.message.test(output), `${mistake.message} was expected: ${output}`);
    const left = (await machine.run(traces)).trim();
    expect(left === '', `left behind: ${left}`);
    const lines = output.split('\n').filter((line) => mistake.message.test(line));
    return (lines[0] ?? said[0] ?? '').replace('stevedore: this host did not join: ', '').trim();
  } finally {
    if (mistake.after !== undefined) await machine.run(mistake.after);
  }
}

async function expiredToken({ plane, kubectl, until }: World): Promise<string> {
  const { token } = await applyBootstrapObjects(plane, { expiresAt: new Date(Date.now() + 5000) });
  const id = token.slice(0, 6);
  const signed = () => kubectl('-n', 'kube-public', 'get', 'configmap', 'cluster-info', '-o', 'json');
  await sleep(5000);
  await until('the token expires', 3 * minutes, signed, (answer) => !answer.includes(`jws-kubeconfig-${id}`));
  return token;
}

/** A node of this name that keeps saying that it is Ready. */
async function whileTaken(world: World, work: () => Promise<string>): Promise<string> {
  const { apply, kubectl } = world;
  await apply({ apiVersion: 'v1', kind: 'Node', metadata: { name: nodeName } });
  let over = false;
  const beat = async (): Promise<void> => {
    while (!over) {
      const ready = {
        type: 'Ready',
        status: 'True',
        reason: 'KubeletReady',
        lastHeartbeatTime: new Date().toISOString(),
      };
      const patch = JSON.stringify({ status: { conditions: [ready] } });
      await kubectl('patch', 'node', nodeName, '--subresource=status', '--type=strategic', '-p', patch);
      await sleep(5000);
    }
  };
  const beating = beat();
  try {
    return await work();
  } finally {
    over = true;
    await beating.catch(() => undefined);
    await kubectl('delete', 'node', nodeName);
  }
}

export async function failToJoin(world: World, report: Report): Promise<void> {
  const { join } = world;
  const id = join.token.slice(0, 7);
  const server = network.host.replaceAll('.', '\\.');
  const back = 'date -s "@$(( $(date +%s) - 172800 ))" >/dev/null';
  const ahead = 'date -s "@$(( $(date +%s) + 172800 ))" >/dev/null';
  const mistakes: readonly Mistake[] = [
    { what: 'wrong CA hash', hash: `sha256:${'0'.repeat(64)}`, message: /which is none of those given/ },
    { what: 'wrong token', token: `${id}0123456789abcdef`, message: /the token's secret is wrong/ },
    {
      what: 'API server unreachable',
      endpoint: `${network.host}:9`,
      message: new RegExp(`the API server at https://${server}:9 cannot be reached: .*ECONNREFUSED`),
    },
    {
      machineOnly: true,
      what: 'clock two days behind',
      before: back,
      after: ahead,
      message: /clock is 2 days behind the API server's/,
    },
    {
      machineOnly: true,
      what: 'clock two days ahead',
      before: ahead,
      after: back,
      message: /clock is 2 days ahead of the API server's/,
    },
    {
      machineOnly: true,
      what: 'swap on',
      before:
        'test -e /root/swap || { fallocate -l 64M /root/swap; chmod 600 /root/swap; mkswap -q /root/swap; }; swapon /root/swap',
      after: 'swapoff /root/swap',
      message: /\[Swap\] swap is on \(\/root\/swap\): run swapoff -a/,
    },
    {
      what: 'port taken',
      before: 'systemd-run --quiet --unit=squatter busybox nc -l -p 10250; sleep 2; ss -tln | grep -q :10250',
      after: 'systemctl stop squatter',
      message: /\[Port-10250\] port 10250, wanted for the node server, is taken/,
    },
    {
      machineOnly: true,
      what: 'module missing',
      before: 'modprobe -r br_netfilter',
      after: 'modprobe br_netfilter; sysctl -q -p /usr/lib/sysctl.d/60-stevedore.conf',
      message: /\[BridgeNetfilter\] the module br_netfilter is not loaded/,
    },
    {
      what: 'no container runtime',
      before: 'systemctl stop containerd',
      after: 'systemctl start containerd',
      message: /\[CRI\] no container runtime answers at unix:\/\/\/run\/containerd\/containerd\.sock/,
    },
  ];
  const own = mistakes.filter(({ machineOnly }) => world.machine.kind === 'vm' || !machineOnly);
  for (const mistake of own) await report.step(`join refused: ${mistake.what}`, () => attempt(world, mistake));
  await report.step('join refused: expired token', async () =>
    attempt(world, {
      what: '',
      token: await expiredToken(world),
      message: /the cluster does not know the token .*it expired/,
    }),
  );
  await report.step('join refused: the name is taken', () =>
    whileTaken(world, () => attempt(world, { what: '', message: /a node named vm1 is in this cluster and Ready/ })),
  );
}
