// The demo: manifests as everybody starts with, and calls of their Service.
import { get } from 'node:http';
import { demoImageName } from '../../cri/local-images.ts';
import type { KubeClient } from '../../kube/client.ts';
import { isNotFound } from '../../kube/errors.ts';
import { type Resource, resources } from '../../kube/resources.ts';
import type { KubeObject } from '../../kube/types/meta.ts';
import type { Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';

const labels = { app: 'demo' };
const namespace = 'default';
const replicas = 3;

const container = {
  name: 'web',
  image: demoImageName,
  imagePullPolicy: 'IfNotPresent' as const,
  ports: [{ name: 'http', containerPort: 8080 }],
};

const deployments: Resource = {
  group: 'apps',
  version: 'v1',
  plural: 'deployments',
  kind: 'Deployment',
  namespaced: true,
};

export const demoManifests: readonly { readonly resource: Resource; readonly object: KubeObject }[] = [
  {
    resource: deployments,
    object: {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name: 'demo', namespace, labels },
      spec: {
        replicas,
        strategy: { type: 'RollingUpdate', rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
        selector: { matchLabels: labels },
        template: {
          metadata: { labels },
          spec: {
            terminationGracePeriodSeconds: 10,
            containers: [
              {
                ...container,
                readinessProbe: { httpGet: { path: '/healthz', port: 'http' }, periodSeconds: 1 },
                resources: { requests: { cpu: '10m', memory: '16Mi' } },
                // Connections already on their way still find the pod while it leaves the Service.
                lifecycle: { preStop: { sleep: { seconds: 2 } } },
              },
            ],
          },
        },
      },
    } as KubeObject,
  },
  {
    resource: resources.services,
    object: {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'demo', namespace },
      spec: { selector: labels, ports: [{ port: 80, targetPort: 'http' }] },
    } as KubeObject,
  },
  {
    resource: resources.services,
    object: {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'demo-nodeport', namespace },
      spec: { type: 'NodePort', selector: labels, ports: [{ port: 80, targetPort: 'http' }] },
    } as KubeObject,
  },
  {
    resource: resources.pods,
    object: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name: 'single', namespace, labels: { app: 'single' } },
      spec: {
        terminationGracePeriodSeconds: 5,
        containers: [
          {
            ...container,
            resources: { requests: { cpu: '50m', memory: '16Mi' }, limits: { cpu: '500m', memory: '64Mi' } },
          },
        ],
      },
    } as KubeObject,
  },
];

export async function applyDemo(client: KubeClient): Promise<void> {
  for (const { resource, object } of demoManifests)
    await client.patch(resource, object.metadata, object, {
      type: 'apply',
      fieldManager: 'stevedore-dev',
      force: true,
    });
}

const isReady = (pod: Pod): boolean =>
  pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false;

const patienceMs = 120_000;

export async function waitForDemo(clock: Clock, client: KubeClient, progress: (text: string) => void): Promise<void> {
  const startedMs = clock.monotonicMs();
  for (;;) {
    const { items } = await client.list(resources.pods, { namespace });
    const ready = items.filter(isReady).length;
    progress(`${ready} of ${replicas + 1} pods ready`);
    if (ready >= replicas + 1) return;
    if (clock.monotonicMs() - startedMs > patienceMs) {
      const waiting = items.filter((pod) => !isReady(pod)).map((pod) => `${pod.metadata.name}: ${reasonOf(pod)}`);
      throw new Error(`the demo's pods are not ready within ${patienceMs / 1000} s: ${waiting.join('; ')}`);
    }
    await clock.sleep(100);
  }
}

function reasonOf({ status }: Pod): string {
  const waiting = status?.containerStatuses?.map(({ state }) => state?.waiting).find(Boolean);
  const unready = status?.conditions?.find((condition) => condition.status === 'False');
  return waiting?.message ?? waiting?.reason ?? unready?.message ?? status?.phase ?? 'unknown';
}

const callTimeoutMs = 3000;

/** One GET over a connection of its own; resolves with the body. */
export const call = (url: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const request = get(url, { agent: false, timeout: callTimeoutMs }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('end', () => resolve(Buffer.concat(chunks).toString('utf8').trim()));
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error(`${url} did not answer within ${callTimeoutMs} ms`)));
    request.on('error', reject);
  });

export interface Addresses {
  readonly clusterUrl: string;
  readonly nodePortUrl: string;
}

export async function addressesOf(client: KubeClient, nodeAddress: string): Promise<Addresses> {
  const service = await client.get(resources.services, { namespace, name: 'demo' });
  const nodePort = await client.get(resources.services, { namespace, name: 'demo-nodeport' });
  return {
    clusterUrl: `http://${service.spec.clusterIP}/`,
    nodePortUrl: `http://${nodeAddress}:${nodePort.spec.ports?.[0]?.nodePort}/`,
  };
}

/** Calls until each pod has answered, `most` times at most; tells each answer. Throws where fewer than two pods answered. */
export async function callUntilAllAnswered(url: string, most: number, tell: (answer: string) => void): Promise<void> {
  const pods = new Set<string>();
  for (let count = 0; count < most && pods.size < replicas; count++) {
    const answer = await call(url);
    if (!pods.has(answer)) tell(answer);
    pods.add(answer);
  }
  if (pods.size < 2) throw new Error(`${most} calls of ${url} were answered by ${pods.size} pod only`);
}

/** Deletes the demo and waits, `patience` at most, until no pod is left; returns the pods that are. */
export async function removeDemo(clock: Clock, client: KubeClient, patience: number): Promise<string[]> {
  for (const { resource, object } of demoManifests.toReversed())
    await client.delete(resource, object.metadata, { propagationPolicy: 'Background' }).catch((error: unknown) => {
      if (!isNotFound(error)) throw error;
    });
  const startedMs = clock.monotonicMs();
  for (;;) {
    const { items } = await client.list(resources.pods, {});
    if (items.length === 0 || clock.monotonicMs() - startedMs > patience)
      return items.map(({ metadata }) => `${metadata.namespace}/${metadata.name}`);
    await clock.sleep(100);
  }
}
