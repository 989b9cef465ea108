// Mistakes of operators, and two daemons on one machine: one clear message each, and whoever runs already goes on.
import { readFile, rename, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { parseAllDocuments, stringify } from 'yaml';
import { type LabNode, startLabNode } from '../lab/node.ts';
import { isReady } from '../lab/watched-pods.ts';

const program = fileURLToPath(new URL('../../cli/stevedore.ts', import.meta.url));
const pinnedNode = fileURLToPath(new URL('../../node_modules/node/bin/node', import.meta.url));

let node: LabNode;
let other: LabNode;
let folder: string;

beforeAll(async () => {
  [node, other] = await Promise.all([startLabNode(), startLabNode()]);
  folder = dirname(node.rootDir);
});
afterAll(async () => {
  await Promise.all([node?.stop(), other?.stop()]);
});
afterEach(async (context) => {
  if (context.task.result?.state === 'fail') console.log(await node.report());
});

type Fields = Record<string, unknown>;

/** The node's own configuration with other values; the file's path. */
async function configWith(name: string, changes: Record<string, Fields>): Promise<string> {
  const documents = parseAllDocuments(await readFile(join(folder, 'config.yaml'), 'utf8')).map(
    (document) => document.toJS() as Fields,
  );
  const path = join(folder, `${name}.yaml`);
  await writeFile(
    path,
    documents.map((fields) => stringify({ ...fields, ...changes[String(fields.kind)] })).join('---\n'),
  );
  return path;
}

/** Runs a daemon in the node's network until it ends by itself, 90 s at most. */
function runToEnd(config: string, ...flags: string[]): Promise<{ code: number | null; said: string; lines: string[] }> {
  const child = node.host.spawn(pinnedNode, [program, 'run', '--config', config, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk: Buffer) => (said += chunk.toString()));
  const overdue = setTimeout(() => child.kill('SIGKILL'), 90_000);
  return new Promise((resolve) =>
    child.once('close', (code) => {
      clearTimeout(overdue);
      const lines = said.split('\n').filter((line) => / ERROR |^stevedore: /.test(line));
      resolve({ code, said, lines });
    }),
  );
}

async function until(what: string, holds: () => Promise<boolean>, ms = 90_000): Promise<void> {
  for (const deadline = Date.now() + ms; !(await holds()); await sleep(50))
    if (Date.now() > deadline) throw new Error(`${what}: not within ${ms} ms`);
}

describe('a configuration', () => {
  it('with an unknown field is refused with file, line and field', async () => {
    const path = await configWith('unknown', { KubeletConfiguration: { maxPodz: 7 } });
    const { code, said } = await runToEnd(path);
    expect(code).toBe(1);
    const line = (await readFile(path, 'utf8')).split('\n').findIndex((text) => text.startsWith('maxPodz')) + 1;
    expect(said).toContain('maxPodz');
    expect(said).toMatch(new RegExp(`unknown\\.yaml.*\\b${line}\\b`));
  });

  it('with a kubeconfig that is not there, or that is none, is refused with its path', async () => {
    const absent = await runToEnd(
      await configWith('absent', { StevedoreConfiguration: { kubeconfig: '/nowhere/kubeconfig' } }),
    );
    expect(absent.code).toBe(1);
    expect(absent.lines).toHaveLength(1);
    expect(absent.lines[0]).toContain('/nowhere/kubeconfig');
    const broken = join(folder, 'broken.kubeconfig');
    await writeFile(broken, 'apiVersion: v1\nkind: Config\ncurrent-context: nothing\n');
    const none = await runToEnd(await configWith('broken', { StevedoreConfiguration: { kubeconfig: broken } }));
    expect(none.code).toBe(1);
    expect(none.lines).toHaveLength(1);
    expect(none.lines[0]).toContain(broken);
    expect(none.lines[0]).toContain('nothing');
  });
});

describe('a second daemon', () => {
  it('on the same runtime is refused, and told by whom it is used', async () => {
    const config = await configWith('second', {
      StevedoreConfiguration: { rootDir: join(folder, 'second'), socketPath: join(folder, 'second.sock') },
      KubeletConfiguration: { port: 10350, healthzPort: 10348 },
    });
    const { code, lines } = await runToEnd(config, '--only', 'agent');
    expect(code).toBe(1);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('is used by another agent already');
    expect(lines[0]).toContain(`process ${node.pid()}, node ${node.name}`);
  });

  it('on the same socketPath is refused, and the first goes on', async () => {
    const { code, lines } = await runToEnd(await configWith('same', {}));
    expect(code).toBe(1);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain(`another stevedore answers on ${node.socketPath}`);
    await node.waitForReady();
  });

  it('with everything of its own runs beside the first: each has its pods, its rules and its Services', async () => {
    const pod = (name: string): string => `
apiVersion: v1
kind: Pod
metadata: { name: ${name}, labels: { app: ${name} } }
spec:
  terminationGracePeriodSeconds: 1
  containers: [{ name: c, image: localhost/stevedore/demo:1, resources: { limits: { memory: 32Mi } } }]
---
apiVersion: v1
kind: Service
metadata: { name: ${name} }
spec: { selector: { app: ${name} }, ports: [{ port: 80, targetPort: 8080 }] }
`;
    await Promise.all([node.cluster.apply(pod('here')), other.cluster.apply(pod('there'))]);
    await Promise.all([node.waitForPod('here', isReady), other.waitForPod('there', isReady)]);
    for (const [at, name] of [
      [node, 'here'],
      [other, 'there'],
    ] as const) {
      const address = await at.cluster.kubectl('get', 'svc', name, '-o', 'jsonpath={.spec.clusterIP}');
      await until(`${name} answers`, async () =>
        at.host.exec('curl', ['-sS', '--fail', '--max-time', '2', `http://${address}/`]).then(
          ({ stdout }) => stdout.trim() === name,
          () => false,
        ),
      );
    }
    const said = await other.host.exec(pinnedNode, [program, 'status', '--socket', other.socketPath]);
    expect(said.stdout).toContain(other.name);
    // Ending one leaves the other's pods alone.
    await other.end();
    await other.start();
    await node.waitForReady();
    expect((await node.waitForPod('here', isReady)).status?.containerStatuses?.[0]?.restartCount).toBe(0);
  });
});

describe('what is in the way at the start', () => {
  it('another program on the port: says which port and what to do, and ends', async () => {
    await node.end();
    const squatter = node.host.spawn(pinnedNode, ['-e', "require('node:net').createServer().listen(10250, '0.0.0.0')"]);
    try {
      await sleep(1_000);
      const { code, said, lines } = await runToEnd(join(folder, 'config.yaml'));
      expect(code).toBe(1);
      expect(said).toContain('cannot listen on 0.0.0.0:10250: another program listens there');
      expect(lines).toHaveLength(1);
    } finally {
      squatter.kill('SIGKILL');
    }
  });

  it('a runtime that is not there: says so once, waits, and goes on when it comes', async () => {
    await node.end();
    const socket = node.engine.socket;
    await rename(socket, `${socket}.hidden`);
    const before = (await node.log()).length;
    const said = async (): Promise<string> => (await node.log()).slice(before);
    try {
      await node.start();
      await until('it says so', async () => (await said()).includes('the container runtime does not answer'));
      expect(await said()).toContain(socket);
      // It is there, and answers for itself, while it waits.
      const shown = await node.host.exec(pinnedNode, [program, 'status', '--socket', node.socketPath]);
      expect(shown.stdout).toContain(node.name);
      await sleep(2_500);
      expect((await said()).split('the container runtime does not answer')).toHaveLength(2);
      expect(node.pid()).toBeDefined();
    } finally {
      await rename(`${socket}.hidden`, socket);
    }
    const backAt = Date.now();
    await until('it runs', async () => (await said()).includes('stevedore runs'));
    console.log(`runtime back → running: ${Date.now() - backAt} ms`);
    await node.waitForPod('here', isReady);
  });
});
