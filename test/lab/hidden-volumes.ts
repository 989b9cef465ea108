// One story of mounts of a root directory, in a mount namespace of its own where `/` is private, as on hosts without systemd. Run as a program:
//   unshare --mount --propagation private node hidden-volumes.ts ROOT STORY
// Prints what it found as one JSON object. All mounts go with the process.
import { execFile } from 'node:child_process';
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createMounter, type Mounter } from '../../agent/volumes/mounter.ts';
import { shareRoot, unshareRoot } from '../../agent/volumes/shared-root.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { createLog } from '../../lib/log.ts';
import { startCsiDriver } from './csi-driver.ts';
import { crashAgent, crashDriver, crashPod, eventually, podIn } from './volumes-crash.ts';

const run = promisify(execFile);
const mounter = createMounter();
const signal = (): AbortSignal => AbortSignal.timeout(60_000);
const lines: string[] = [];
const log = createLog({
  level: 'info',
  format: 'text',
  write: (line) => void (line.includes('a plugin registered') || lines.push(line)),
});
const uid = crashPod.metadata.uid!;

export interface Findings {
  /** What is seen and what is hidden at or below the root directory, by name of what the story did before; paths are relative. */
  readonly mounts: Record<string, { readonly seen: string[]; readonly hidden: string[] }>;
  readonly facts: Record<string, unknown>;
  readonly log: string[];
}

const [root = '', story = ''] = process.argv.slice(2);
const findings: Findings = { mounts: {}, facts: {}, log: lines };
const folder = join(root, 'pods', uid);
const inMemory = join(folder, 'volumes/kubernetes.io~empty-dir/memory');

async function look(after: string): Promise<void> {
  const table = await mounter.table();
  const relative = (path: string): string => path.slice(root.length);
  findings.mounts[after] = {
    seen: table.under(root).map(({ mountPoint }) => relative(mountPoint)),
    hidden: table.hidden(root).map(({ mountPoint }) => relative(mountPoint)),
  };
}

/** An agent as after a restart, for as long as the work takes. */
async function withAgent(
  work: (volumes: ReturnType<typeof crashAgent>['volumes']) => Promise<void>,
  own: Mounter = mounter,
): Promise<void> {
  const { volumes } = crashAgent(root, () => undefined, { mounter: own, log });
  const stopping = new AbortController();
  const running = volumes.run(stopping.signal);
  try {
    await work(volumes);
  } finally {
    stopping.abort();
    await running;
  }
}

const other: Pod = {
  metadata: { name: 'other', namespace: 'default', uid: '99999999-2222-4333-8444-555555555555' },
  spec: { containers: [], volumes: [{ name: 'memory', emptyDir: { medium: 'Memory' } }] },
};

async function setUp(): Promise<void> {
  const pod = podIn(root);
  await withAgent(async (volumes) => {
    await eventually(() => volumes.setUp(pod, signal()));
    for (const container of pod.spec.containers as Container[]) await volumes.mountsFor(pod, container, {}, signal());
    await volumes.setUp(
      {
        ...other,
        spec: { ...other.spec, containers: [{ name: 'c', volumeMounts: [{ name: 'memory', mountPath: '/m' }] }] },
      },
      signal(),
    );
  });
  await writeFile(join(inMemory, 'file'), 'in memory');
}

/** As a kubelet does at its start. */
async function cover(): Promise<void> {
  await run('mount', ['--bind', root, root]);
  await run('mount', ['--make-rshared', root]);
}

const tearDown = (own?: Mounter): Promise<void> =>
  withAgent(async (volumes) => {
    // The driver registers a moment after the agent starts.
    await eventually(() => volumes.tearDown(uid, signal()));
    findings.facts.known = await volumes.known();
  }, own);

const pods = async (): Promise<string[]> => (await readdir(join(root, 'pods'))).sort();

const stories: Record<string, () => Promise<void>> = {
  async covered() {
    await setUp();
    await look('set up');
    await cover();
    await look('covered');
    findings.facts.rmdir = await rmdir(inMemory).catch((error: NodeJS.ErrnoException) => error.code);
    await tearDown();
    await look('torn down');
    findings.facts.pods = await pods();
    await run('umount', [root]);
    await look('uncovered');
  },

  async 'covered and set up again'() {
    await setUp();
    await cover();
    await setUp();
    await look('set up again');
    await tearDown();
    await look('torn down');
    findings.facts.pods = await pods();
  },

  async 'covered for good'() {
    await setUp();
    await cover();
    const unable: Mounter = { ...mounter, unmountHidden: () => Promise.reject(new Error('it is not possible here')) };
    await withAgent(async (volumes) => {
      await eventually(() => volumes.tearDown(uid, signal()));
      await volumes.tearDown(uid, signal());
      findings.facts.knownWhileHeld = await volumes.known();
      findings.facts.held = (await volumes.held(uid)).length;
      findings.facts.podsWhileHeld = await pods();
      await run('umount', [root]);
      findings.facts.knownThen = (await volumes.known()).sort();
    }, unable);
    findings.facts.file = await readFile(join(inMemory, 'file'), 'utf8');
    await tearDown();
    await look('torn down');
    findings.facts.pods = await pods();
  },

  async shared() {
    await setUp();
    await look('set up');
    await shareRoot({ mounter, log }, root, signal());
    await shareRoot({ mounter, log }, root, signal());
    await look('shared');
    findings.facts.file = await readFile(join(inMemory, 'file'), 'utf8');
    // As a container with Bidirectional propagation: a mount of its own reaches this host, and goes with the pod.
    const inside = join(folder, 'volumes/kubernetes.io~empty-dir/empty/inside');
    await mkdir(inside);
    await run('unshare', ['--mount', '--propagation', 'unchanged', 'mount', '-t', 'tmpfs', 'tmpfs', inside]);
    findings.facts.propagated = (await mounter.table()).at(inside)?.fsType;
    await tearDown();
    await look('torn down');
    findings.facts.pods = await pods();
    await withAgent((volumes) => volumes.tearDown(other.metadata.uid!, signal()));
    findings.facts.unshared = await unshareRoot({ mounter, log }, root, signal());
    await look('unshared');
  },
};

const driver = await startCsiDriver({
  name: crashDriver,
  folder: join(root, 'driver'),
  registry: join(root, 'plugins_registry'),
});
try {
  await stories[story]!();
  findings.facts.calls = driver.calls.map(({ method }) => method).filter((method) => method.startsWith('NodeUn'));
} finally {
  await driver.stop();
}
process.stdout.write(JSON.stringify(findings));
