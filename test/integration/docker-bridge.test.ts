// A node on Docker Engine with no CNI configured: pods are on Docker's own bridge, and host ports are Docker's.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { demoImageName } from '../../cri/local-images.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { type LabNode, startLabNode } from '../lab/node.ts';
import { isReady, restartsOf } from '../lab/watched-pods.ts';

let node: LabNode;

beforeAll(async () => {
  node = await startLabNode({ runtime: 'docker', ownBridge: true, only: 'agent' });
});
afterAll(async () => {
  await node?.stop();
});
afterEach(async (context) => {
  if (context.task.result?.state === 'fail') console.log(await node.report());
});

const podOf = (name: string, over: Partial<Pod['spec']> = {}): Pod => ({
  metadata: { name, namespace: 'default' },
  spec: {
    terminationGracePeriodSeconds: 1,
    dnsPolicy: 'None',
    dnsConfig: { nameservers: ['192.0.2.53'], searches: ['example.test'] },
    containers: [
      {
        name: 'main',
        image: demoImageName,
        imagePullPolicy: 'Never',
        ports: name === 'web' ? [{ containerPort: 8080, hostPort: 18080 }] : [],
        readinessProbe: { httpGet: { path: '/healthz', port: 8080 }, periodSeconds: 1 },
      },
      // The pod's network is one.
      { name: 'side', image: demoImageName, imagePullPolicy: 'Never', command: ['sleep', '100000'] },
    ],
    ...over,
  },
});
const fetch = async (url: string): Promise<string> =>
  (await node.host.exec('curl', ['-sS', '--fail', '--max-time', '10', url])).stdout.trim();
const inside = async (pod: Pod, container: string, script: string): Promise<string> => {
  const id = pod.status?.containerStatuses?.find(({ name }) => name === container)?.containerID?.split('//')[1];
  const made = await node.dockerd!.api('POST', `/containers/${id}/exec`, {
    Cmd: ['/bin/sh', '-c', script],
    AttachStdout: true,
    AttachStderr: true,
    Tty: true,
  });
  const { Id } = JSON.parse(made.body) as { Id: string };
  return (await node.dockerd!.api('POST', `/exec/${Id}/start`, { Tty: true })).body.trim();
};

describe('pods on Docker’s own bridge', () => {
  it('are reached by their address, which all of a pod’s containers share, and reach each other', async () => {
    const network = JSON.parse((await node.dockerd!.api('GET', '/networks/bridge')).body) as {
      IPAM: { Config: { Subnet: string }[] };
    };
    expect(network.IPAM.Config[0]?.Subnet).toBe('10.244.0.0/24');
    for (const name of ['web', 'other']) await node.cluster.admin.create(resources.pods, podOf(name));
    const [web, other] = [await node.waitForPod('web', isReady), await node.waitForPod('other', isReady)];
    expect(web.status?.podIP).toMatch(/^10\.244\.0\.\d+$/);
    expect(web.status?.podIP).not.toBe(other.status?.podIP);
    expect(await fetch(`http://${web.status?.podIP}:8080/cgi-bin/index.cgi`)).toBe('web');
    expect(await inside(other, 'side', `wget -qO- http://${web.status?.podIP}:8080/cgi-bin/index.cgi`)).toBe('web');
    expect(await inside(web, 'side', 'wget -qO- http://127.0.0.1:8080/cgi-bin/index.cgi')).toBe('web');
    expect(await inside(web, 'side', 'hostname; cat /etc/resolv.conf')).toBe(
      'web\r\nsearch example.test\r\nnameserver 192.0.2.53',
    );
    expect(await inside(web, 'side', 'cat /etc/hosts')).toContain(`${web.status?.podIP}\tweb`);
  });

  it('have their host ports from Docker', async () => {
    expect(await fetch(`http://${node.address}:18080/cgi-bin/index.cgi`)).toBe('web');
  });

  it('go on as they are when the agent is killed and comes back', async () => {
    const before = await node.waitForPod('web', isReady);
    await node.end('SIGKILL');
    await node.start();
    await node.waitForReady();
    const after = await node.waitForPod('web', isReady);
    expect([after.status?.podIP, restartsOf(after)]).toEqual([before.status?.podIP, restartsOf(before)]);
    expect(after.status?.containerStatuses?.map(({ containerID }) => containerID)).toEqual(
      before.status?.containerStatuses?.map(({ containerID }) => containerID),
    );
  });

  it('come again with the engine, with an address that is theirs', async () => {
    const before = await node.waitForPod('web', isReady);
    await node.dockerd!.restart('SIGTERM');
    const after = await node.waitForPod('web', (pod) => isReady(pod) && restartsOf(pod) > restartsOf(before));
    expect(await fetch(`http://${after.status?.podIP}:8080/cgi-bin/index.cgi`)).toBe('web');
    expect(await fetch(`http://${node.address}:18080/cgi-bin/index.cgi`)).toBe('web');
  });

  it('leave neither container nor address nor port', async () => {
    for (const name of ['web', 'other'])
      await node.cluster.admin.delete(resources.pods, { namespace: 'default', name });
    for (const deadline = Date.now() + 30_000; ; await sleep(100)) {
      const { items } = await node.cluster.admin.list(resources.pods, { namespace: 'default' });
      if (items.length === 0 && (await node.engine.containers()).length === 0) break;
      if (Date.now() > deadline) throw new Error(`something is left after 30 s\n${await node.report()}`);
    }
    const { body } = await node.dockerd!.api('GET', '/networks/bridge');
    expect((JSON.parse(body) as { Containers: object }).Containers).toEqual({});
    const { stdout } = await node.host.exec('iptables-save', ['-t', 'nat']);
    expect(stdout).not.toContain('18080');
  });

  it('an engine without a bridge says so on the node, and no pod is tried', async () => {
    await node.dockerd!.end();
    await node.dockerd!.start({ bridge: 'none', bip: '' });
    for (const deadline = Date.now() + 30_000; ; await sleep(100)) {
      const { status } = await node.cluster.admin.get(resources.nodes, { name: node.name });
      const ready = status?.conditions?.find(({ type }) => type === 'Ready');
      if (ready?.status === 'False') {
        expect(ready.message).toContain('no CNI configuration folder is named, and the daemon has no bridge');
        return;
      }
      if (Date.now() > deadline) throw new Error(`the node is ${JSON.stringify(ready)} after 30 s`);
    }
  });
});
