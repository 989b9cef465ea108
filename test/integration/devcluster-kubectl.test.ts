// An unmodified kubectl against the control plane, for all that needs no node's runtime. With KUBEBUILDER_ASSETS the same is asked of a real API
// server with our controllers, which holds this test and devcluster to the truth.
import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, kubectlPath, startCluster } from '../lab/cluster.ts';
import { type PretendNode, startPretendNode } from '../lab/pretend-node.ts';

let cluster: Cluster;
let node: PretendNode;
const kubectl = (...args: string[]): Promise<string> => cluster.kubectl(...args);

async function until<T>(what: string, read: () => Promise<T>, holds: (value: T) => boolean): Promise<T> {
  let last: T | undefined;
  for (let tries = 0; tries < 200; tries++) {
    last = await read();
    if (holds(last)) return last;
    await sleep(50);
  }
  throw new Error(`${what}: not within 10 s; last seen: ${JSON.stringify(last)}`);
}

const web = (image = 'demo:1', replicas = 3): string => `
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, labels: { app: web } }
spec:
  replicas: ${replicas}
  strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } }
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      containers:
        - name: web
          image: ${image}
          ports: [{ containerPort: 8080, name: http }]
          readinessProbe: { httpGet: { path: /, port: http }, periodSeconds: 1 }
          resources: { requests: { cpu: 10m }, limits: { memory: 64Mi } }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { type: NodePort, selector: { app: web }, ports: [{ port: 80, targetPort: http }] }
`;

beforeAll(async () => {
  cluster = await startCluster();
  node = await startPretendNode(cluster.admin, { name: 'n1' });
  await kubectl('wait', '--for=condition=Ready', 'node/n1', '--timeout=20s');
});

afterAll(async () => {
  await node?.stop();
  await cluster?.stop();
});

describe('kubectl', () => {
  it('applies a Deployment and a Service, waits for the rollout, and prints them', async () => {
    expect(await cluster.apply(web())).toMatch(/deployment.apps\/web created\nservice\/web created/);
    expect(await kubectl('rollout', 'status', 'deploy/web', '--timeout=30s')).toContain('successfully rolled out');
    expect(await kubectl('get', 'deploy', 'web')).toMatch(
      /NAME\s+READY\s+UP-TO-DATE\s+AVAILABLE\s+AGE\nweb\s+3\/3\s+3\s+3\s/,
    );
    const pods = await kubectl('get', 'pods', '-l', 'app=web', '-o', 'wide');
    expect(pods).toMatch(/NAME\s+READY\s+STATUS\s+RESTARTS\s+AGE\s+IP\s+NODE\s+NOMINATED NODE\s+READINESS GATES/);
    expect(pods.match(/web-\S+\s+1\/1\s+Running\s+0\s+\S+\s+10\.244\.200\.\d+\s+n1\s+<none>\s+<none>/g)).toHaveLength(
      3,
    );
    const service = await kubectl('get', 'svc', 'web');
    expect(service).toMatch(/web\s+NodePort\s+10\.96\.\d+\.\d+\s+<none>\s+80:3\d{4}\/TCP\s/);
    expect(await kubectl('get', 'svc', 'kubernetes', '-o', 'jsonpath={.spec.clusterIP}')).toBe('10.96.0.1');
    const slices = await until(
      'three endpoints',
      () => kubectl('get', 'endpointslices', '-l', 'kubernetes.io/service-name=web', '-o', 'json'),
      (text) => JSON.parse(text).items[0]?.endpoints?.length === 3,
    );
    const [slice] = JSON.parse(slices).items;
    expect(slice.ports).toEqual([{ name: '', port: 8080, protocol: 'TCP' }]);
    expect(slice.endpoints[0].conditions).toEqual({ ready: true, serving: true, terminating: false });
    await cluster.apply(web());
    expect(await kubectl('rollout', 'status', 'deploy/web', '--timeout=10s')).toContain('successfully rolled out');
    expect((await kubectl('get', 'rs', '-l', 'app=web', '-o', 'name')).trim().split('\n')).toHaveLength(1);
  });

  it('fills in defaults as the API server does', async () => {
    const [pod] = JSON.parse(await kubectl('get', 'pods', '-l', 'app=web', '-o', 'json')).items;
    const { volumes, containers, ...spec } = pod.spec;
    expect(spec).toMatchObject({
      dnsPolicy: 'ClusterFirst',
      enableServiceLinks: true,
      nodeName: 'n1',
      preemptionPolicy: 'PreemptLowerPriority',
      priority: 0,
      restartPolicy: 'Always',
      schedulerName: 'default-scheduler',
      securityContext: {},
      serviceAccount: 'default',
      serviceAccountName: 'default',
      terminationGracePeriodSeconds: 30,
      tolerations: [
        { effect: 'NoExecute', key: 'node.kubernetes.io/not-ready', operator: 'Exists', tolerationSeconds: 300 },
        { effect: 'NoExecute', key: 'node.kubernetes.io/unreachable', operator: 'Exists', tolerationSeconds: 300 },
      ],
    });
    expect(volumes).toEqual([
      {
        name: expect.stringMatching(/^kube-api-access-[a-z0-9]{5}$/),
        projected: {
          defaultMode: 420,
          sources: expect.arrayContaining([
            { serviceAccountToken: { expirationSeconds: 3607, path: 'token' } },
            { configMap: { items: [{ key: 'ca.crt', path: 'ca.crt' }], name: 'kube-root-ca.crt' } },
            {
              downwardAPI: {
                items: [{ fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' }, path: 'namespace' }],
              },
            },
          ]),
        },
      },
    ]);
    expect(containers).toEqual([
      {
        name: 'web',
        image: 'demo:1',
        imagePullPolicy: 'IfNotPresent',
        ports: [{ containerPort: 8080, name: 'http', protocol: 'TCP' }],
        readinessProbe: {
          failureThreshold: 3,
          httpGet: { path: '/', port: 'http', scheme: 'HTTP' },
          periodSeconds: 1,
          successThreshold: 1,
          timeoutSeconds: 1,
        },
        resources: { limits: { memory: '64Mi' }, requests: { cpu: '10m', memory: '64Mi' } },
        terminationMessagePath: '/dev/termination-log',
        terminationMessagePolicy: 'File',
        volumeMounts: [
          { mountPath: '/var/run/secrets/kubernetes.io/serviceaccount', name: volumes[0].name, readOnly: true },
        ],
      },
    ]);
    expect(pod.status.qosClass).toBe('Burstable');
    expect(pod.metadata.generation).toBe(1);
  });

  it('rolls an update through without going below what is wanted', async () => {
    let least = 3;
    const stop = new AbortController();
    const watching = (async () => {
      while (!stop.signal.aborted) {
        const items = JSON.parse(
          await cluster.admin.raw('GET', '/api/v1/namespaces/default/pods?labelSelector=app%3Dweb'),
        ).items;
        least = Math.min(
          least,
          items.filter(
            (pod: { metadata: { deletionTimestamp?: string }; status: { phase: string } }) =>
              !pod.metadata.deletionTimestamp && pod.status.phase === 'Running',
          ).length,
        );
        await sleep(5);
      }
    })();
    await kubectl('set', 'image', 'deploy/web', 'web=demo:2');
    await kubectl('rollout', 'status', 'deploy/web', '--timeout=30s');
    stop.abort();
    await watching;
    expect(least).toBeGreaterThanOrEqual(3);
    await until(
      'the old set gone',
      () => kubectl('get', 'rs', '-l', 'app=web', '-o', 'jsonpath={.items[?(@.spec.replicas==3)].spec.template.spec}'),
      (text) => text.includes('demo:2'),
    );
  });

  it('scales, labels, annotates, patches, waits and describes', async () => {
    await kubectl('scale', 'deploy/web', '--replicas=5');
    await kubectl('wait', 'deploy/web', '--for=jsonpath={.status.readyReplicas}=5', '--timeout=20s');
    await kubectl('scale', 'deploy/web', '--replicas=2');
    await kubectl('rollout', 'status', 'deploy/web', '--timeout=20s');
    await kubectl('label', 'deploy/web', 'tier=front');
    await kubectl('annotate', 'deploy/web', 'note=hello');
    await kubectl(
      'patch',
      'deploy/web',
      '-p',
      '{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"A","value":"1"}]}]}}}}',
    );
    const deployment = JSON.parse(await kubectl('get', 'deploy', 'web', '-o', 'json'));
    expect(deployment.metadata.labels).toMatchObject({ app: 'web', tier: 'front' });
    expect(deployment.metadata.annotations.note).toBe('hello');
    expect(deployment.spec.template.spec.containers).toMatchObject([
      { name: 'web', image: 'demo:2', env: [{ name: 'A', value: '1' }] },
    ]);
    await kubectl('wait', '--for=condition=Available', 'deploy/web', '--timeout=10s');
    const name = (await kubectl('get', 'pods', '-l', 'app=web', '-o', 'name')).split('\n')[0]!;
    const described = await kubectl('describe', name);
    expect(described).toContain('Successfully assigned default/');
    expect(described).toMatch(/Node:\s+n1/);
    expect(await kubectl('events', '--for', name)).toContain('Scheduled');
    expect(await kubectl('get', 'events', '--field-selector', 'reason=Scheduled')).toContain('Successfully assigned');
  });

  it('refuses what is wrong with the reason', async () => {
    await expect(
      cluster.apply(
        `apiVersion: v1
kind: Pod
metadata: { name: bad }
spec: { containers: [{ name: a, image: x, volumeMounts: [{ name: v, mountPath: /v }] }] }`,
      ),
    ).rejects.toThrow(/Pod "bad" is invalid: spec\.containers\[0\]\.volumeMounts\[0\]\.name: Not found: "v"/);
    await expect(kubectl('get', 'pod', 'none')).rejects.toThrow('pods "none" not found');
    await expect(
      kubectl('patch', 'deploy/web', '-p', '{"spec":{"selector":{"matchLabels":{"app":"other"}}}}'),
    ).rejects.toThrow(/field is immutable|does not match/);
    const lost = 'apiVersion: v1\nkind: ConfigMap\nmetadata: { name: x, namespace: nowhere }';
    await expect(cluster.apply(lost)).rejects.toThrow('namespaces "nowhere" not found');
  });

  it('applies on the server, with owners of fields', async () => {
    // In block style: kubectl before 1.36 takes a document that begins with a brace for JSON.
    const map = (data: string): string =>
      `apiVersion: v1\nkind: ConfigMap\nmetadata: { name: ssa }\ndata: { ${data} }\n`;
    const apply = (data: string, ...flags: string[]): Promise<string> =>
      new Promise((resolve, reject) => {
        const child = execFile(
          kubectlPath(),
          ['--kubeconfig', cluster.adminKubeconfig, 'apply', '--server-side', ...flags, '-f', '-'],
          (error, stdout) => (error ? reject(error) : resolve(stdout)),
        );
        child.stdin?.end(map(data));
      });
    await apply('a: "1", b: "2"');
    await apply('a: "1"');
    expect(JSON.parse(await kubectl('get', 'cm', 'ssa', '-o', 'jsonpath={.data}'))).toEqual({ a: '1' });
    await expect(apply('a: "3"', '--field-manager=other')).rejects.toThrow(/conflict with "kubectl"[\s\S]*\.data\.a/);
    await apply('a: "3"', '--field-manager=other', '--force-conflicts');
    await apply('c: "4"', '--field-manager=third');
    expect(JSON.parse(await kubectl('get', 'cm', 'ssa', '-o', 'jsonpath={.data}'))).toEqual({ a: '3', c: '4' });
  });

  it('makes a namespace with what is in it, and takes both away', async () => {
    await cluster.apply(`
apiVersion: v1
kind: Namespace
metadata: { name: made }
---
apiVersion: v1
kind: Secret
metadata: { name: s, namespace: made }
stringData: { a: b }
`);
    await until(
      'a service account',
      () => kubectl('get', 'sa', 'default', '-n', 'made', '-o', 'name', '--ignore-not-found'),
      (text) => text !== '',
    );
    await cluster.apply(
      web('demo:1', 2).replaceAll(/name: web, labels|name: web }/g, (name) => `namespace: made, ${name}`),
    );
    expect(await kubectl('get', 'secret', 's', '-n', 'made', '-o', 'jsonpath={.data.a}')).toBe(
      Buffer.from('b').toString('base64'),
    );
    await kubectl('rollout', 'status', 'deploy/web', '-n', 'made', '--timeout=20s');
    await kubectl('delete', 'ns', 'made', '--timeout=20s');
    await expect(kubectl('get', 'ns', 'made')).rejects.toThrow('not found');
    await until(
      'empty',
      () => kubectl('get', 'pods,rs,deploy,svc,secrets', '-n', 'made', '-o', 'name'),
      (text) => text === '',
    );
  });

  it('says what to do where kubectl sends protobuf, and who may not', async () => {
    const jane = await cluster.kubeconfigFor({ user: 'jane' });
    await expect(kubectl('--kubeconfig', jane, 'get', 'secrets')).rejects.toThrow(
      'secrets is forbidden: User "jane" cannot list resource "secrets"',
    );
    if (cluster.kind === 'devcluster')
      await expect(kubectl('create', 'configmap', 'c', '--from-literal=a=b')).rejects.toThrow(
        'reads JSON and YAML, not application/vnd.kubernetes.protobuf: for example from kubectl apply -f',
      );
  });

  it('lists resources, and copes with a node that is cordoned', async () => {
    expect(await kubectl('api-resources', '--namespaced=true')).toMatch(/pods\s+po\s+v1\s+true\s+Pod/);
    await kubectl('cordon', 'n1');
    expect(await kubectl('get', 'node', 'n1')).toContain('Ready,SchedulingDisabled');
    await kubectl('run', 'waits', '--image=demo:1');
    await until(
      'unschedulable',
      () => kubectl('get', 'pod', 'waits', '-o', 'jsonpath={.status.conditions[0].message}'),
      (text) => /0\/1 nodes are available: 1 node\(s\) were unschedulable/.test(text),
    );
    await kubectl('uncordon', 'n1');
    await kubectl('wait', '--for=condition=Ready', 'pod/waits', '--timeout=20s');
    await kubectl('delete', 'pod', 'waits', '--timeout=20s');
  });

  it('deletes with what belongs to it', async () => {
    await kubectl('delete', 'deploy/web', 'svc/web');
    await until(
      'all gone',
      () => kubectl('get', 'pods,rs,endpointslices', '-l', 'app=web', '-o', 'name'),
      (text) => text === '',
    );
  });

  it('comes back after it was gone', async () => {
    await cluster.pause();
    await expect(kubectl('get', 'ns', '--request-timeout=2s')).rejects.toThrow();
    await cluster.resume();
    expect(await kubectl('get', 'cm', 'ssa', '-o', 'name')).toBe('configmap/ssa\n');
    await cluster.apply(web());
    await kubectl('rollout', 'status', 'deploy/web', '--timeout=30s');
    await kubectl('delete', 'deploy', 'web');
  });
});
