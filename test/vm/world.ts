// What the steps of the story have at hand: the machine, the control plane, and questions about both.
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { caHash } from '../../cli/join/discovery.ts';
import { exec } from '../../lib/exec.ts';
import { applyBootstrapObjects } from '../lab/bootstrap-objects.ts';
import { type ControlPlane, findBinary } from '../lab/control-plane.ts';
import { network } from './image.ts';
import type { Machine } from './machine.ts';

export interface World {
  readonly machine: Machine;
  readonly plane: ControlPlane;
  /** Paths of the packages on this host. */
  readonly packages: { readonly first: string; readonly next: string };
  readonly join: { readonly token: string; readonly hash: string; readonly endpoint: string };
  kubectl(...args: string[]): Promise<string>;
  apply(object: object): Promise<void>;
  /** Asks again until the answer is wanted; rejects with the last answer. */
  until(
    what: string,
    limitMs: number,
    ask: () => Promise<string>,
    wanted: (answer: string) => boolean,
  ): Promise<string>;
  nodeReady(limitMs: number): Promise<void>;
  /** Ids of all containers that run on the machine, sandboxes too, as lines. */
  containers(): Promise<string>;
  /** Restarts of all containers that the cluster knows of, summed up. */
  restarts(): Promise<number>;
  /** Calls the Service from the machine, as often as asked, and returns the bodies. */
  callService(times: number): Promise<string[]>;
}

export const nodeName = 'vm1';

/** Commands of which each may fail. */
export const lenient = (commands: readonly string[]): string =>
  commands.map((each) => `{ ${each}; } || true`).join('\n');

// Emulated processors are slow, and one whose deadline cuts calls short never gets on: hence the time for the runtime's calls.
const kubeletConfiguration = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
cgroupDriver: systemd
rotateCertificates: true
runtimeRequestTimeout: 20m
evictionPressureTransitionPeriod: 20s
authentication: {x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
`;
const proxyConfiguration = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clusterCIDR: ${network.pods}
`;

export async function createWorld(machine: Machine, plane: ControlPlane, packages: World['packages']): Promise<World> {
  const { token } = await applyBootstrapObjects(plane, {
    kubelet: kubeletConfiguration,
    proxy: proxyConfiguration,
    // The story ends with a second join, on a busy machine more than an hour after the first.
    expiresAt: new Date(Date.now() + 12 * 3_600_000),
  });
  await plane.kubectl(
    ...['create', 'clusterrolebinding', 'nodes-proxy', '--clusterrole=system:node-proxier', '--group=system:nodes'],
  );
  const hash = caHash(await readFile(plane.caFile, 'utf8'));
  const kubectl = (...args: string[]): Promise<string> => plane.kubectl(...args);

  const until: World['until'] = async (what, limitMs, ask, wanted) => {
    const startedMs = performance.now();
    for (;;) {
      const answer = await ask().catch((error: unknown) => String(error));
      if (wanted(answer)) return answer;
      if (performance.now() - startedMs > limitMs)
        throw new Error(`${what}: not within ${limitMs / 1000} s; last: ${answer.trim().slice(-400)}`);
      await sleep(1_000);
    }
  };
  await until(
    'cluster-info is signed',
    60_000,
    () => kubectl('-n', 'kube-public', 'get', 'configmap', 'cluster-info', '-o', 'json'),
    (answer) => answer.includes(`jws-kubeconfig-${token.slice(0, 6)}`),
  );

  return {
    machine,
    plane,
    packages,
    join: { token, hash, endpoint: plane.server.replace('https://', '') },
    kubectl,
    until,
    async apply(object) {
      await exec(findBinary('kubectl'), ['--kubeconfig', plane.adminKubeconfig, 'apply', '-f', '-'], {
        input: JSON.stringify(object),
      });
    },
    nodeReady: async (limitMs) =>
      void (await until(
        'the node is Ready',
        limitMs,
        () => kubectl('get', 'node', nodeName, '-o', 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'),
        (answer) => answer === 'True',
      )),
    async containers() {
      const text = await machine.run('ctr -n k8s.io tasks ls | awk \'$3 == "RUNNING" { print $1 " " $2 }\' | sort');
      return text.trim();
    },
    async restarts() {
      const text = await kubectl('get', 'pods', '-o', 'jsonpath={.items[*].status.containerStatuses[*].restartCount}');
      return text.split(' ').reduce((sum, each) => sum + Number(each), 0);
    },
    async callService(times) {
      const ip = (await kubectl('get', 'service', 'web', '-o', 'jsonpath={.spec.clusterIP}')).trim();
      const text = await machine.run(
        `for i in $(seq ${times}); do curl -sS -m 20 http://${ip}/ | tr '\\n' ' '; echo; done`,
        { timeoutMs: 180_000 },
      );
      return text.trim().split('\n');
    },
  };
}
