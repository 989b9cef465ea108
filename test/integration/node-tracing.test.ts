// What a whole daemon lets an operator see of its work: the traces of a pod, as a collector receives them, and the pages that say how it was
// started.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it, onTestFailed } from 'vitest';
import { demoImageName } from '../../cri/local-images.ts';
import { createKubeClient } from '../../kube/http-client.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { type Collector, startCollector } from '../../lib/tracing/collector.fixture.ts';
import type { Span } from '../../lib/tracing/gen/otlp.ts';
import { type LabNode, startLabNode } from '../lab/node.ts';

let folder: string;
let collector: Collector;
let lab: LabNode;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-tr-'));
  // By a socket of the file system: the daemon is in a network of its own.
  collector = await startCollector(`unix:${folder}/otlp.sock`);
  lab = await startLabNode({
    kubelet: { tracing: { endpoint: `unix://${folder}/otlp.sock`, samplingRatePerMillion: 1_000_000 } },
  });
});
afterAll(async () => {
  await lab?.stop();
  collector?.stop();
  if (folder) await rm(folder, { recursive: true, force: true });
});

const attribute = (span: Span, key: string): unknown => {
  const value = span.attributes.find((each) => each.key === key)?.value?.value;
  return value?.$case === 'stringValue' ? value.value : undefined;
};
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const until = async <T>(what: string, look: () => T | undefined | false): Promise<T> => {
  for (const deadline = Date.now() + 30_000; ; await sleep(50)) {
    const found = look();
    if (found) return found;
    if (Date.now() > deadline)
      throw new Error(`not within 30 s: ${what}; spans: ${collector.spans().map((span) => span.name)}`);
  }
};

it('the spans of a pod arrive: from the look at it to the calls that the runtime got', async () => {
  onTestFailed(async () => console.log(await lab.report()));
  await lab.cluster.apply(`
apiVersion: v1
kind: Pod
metadata: { name: traced }
spec:
  terminationGracePeriodSeconds: 0
  containers: [{ name: main, image: "${demoImageName}", command: [sleep, "1000"] }]
`);
  const pod = await lab.waitForPod('traced', ({ status }) => status?.phase === 'Running');
  const { uid = '' } = pod.metadata;
  const ofPod = (name: string) => () => {
    const mine = collector.spans().filter((span) => attribute(span, 'k8s.pod.uid') === uid);
    return mine.find((span) => span.name === name);
  };
  const service = lab.engine.kind === 'docker' ? 'docker' : 'runtime.v1.RuntimeService';
  const call = (method: string, parents: ReadonlySet<string>) => () =>
    collector.spans().find((span) => span.name === `${service}/${method}` && parents.has(hex(span.traceId)));
  await until('a look at the pod', ofPod('syncPod'));
  const traces = new Set<string>();
  const refresh = (): ReadonlySet<string> => {
    for (const span of collector.spans()) if (attribute(span, 'k8s.pod.uid') === uid) traces.add(hex(span.traceId));
    return traces;
  };
  for (const method of ['RunPodSandbox', 'CreateContainer', 'StartContainer']) {
    const span = await until(method, () => call(method, refresh())());
    expect(span.kind).toBe(3);
    expect(span.endTimeUnixNano).toBeGreaterThan(span.startTimeUnixNano);
    const parent = await until(`what called ${method}`, () =>
      collector.spans().find((other) => hex(other.spanId) === hex(span.parentSpanId)),
    );
    expect(hex(parent.traceId)).toBe(hex(span.traceId));
    expect(attribute(parent, 'k8s.pod.name')).toBe('traced');
  }
  await lab.cluster.kubectl('delete', 'pod', 'traced', '--wait=false');
  await until('the look that ends it', ofPod('syncTerminatingPod'));
  await until('StopPodSandbox', () => call('StopPodSandbox', refresh())());
});

it('the flags that hold and the state are shown to an administrator', async () => {
  const identity = await loadKubeconfig(lab.cluster.adminKubeconfig);
  const server = {
    server: `https://${lab.address}:10250`,
    certificateAuthority: undefined,
    insecureSkipTlsVerify: true,
  };
  const client = createKubeClient({ log: silentLog, clock: systemClock }, { ...identity, ...server });
  try {
    const flagz = await client.raw('GET', '/flagz', { accept: 'text/plain' });
    expect(flagz).toContain('kubelet flagz');
    expect(flagz).toContain(`root-dir=${lab.rootDir}\n`);
    expect(flagz).toContain(`hostname-override=${lab.name}\n`);
    expect(await client.raw('GET', '/statusz')).toMatch(/Binary version: v1\.36\.\d+\+stevedore/);
  } finally {
    await client.close();
  }
});
