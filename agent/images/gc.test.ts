// The image collector: when it starts, what it takes first, what it never takes, and what it says when that was not enough.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createFakeRuntime } from '../../cri/fake-runtime.ts';
import type { ContainerConfig, SandboxConfig } from '../../cri/types.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createImageGc } from './gc.ts';
import { bytesToFree, candidates, formatSize, type GcPolicy, type ImageRecord } from './gc-plan.ts';

const policy: GcPolicy = { highThresholdPercent: 85, lowThresholdPercent: 80, minAgeMs: 120_000, maxAgeMs: 0 };
const security = {
  namespaces: { network: 'pod', pid: 'container', ipc: 'pod' },
  readonlyRootfs: false,
  supplementalGroups: [],
  supplementalGroupsPolicy: 'Merge',
  privileged: false,
} as const;
const sandbox: SandboxConfig = {
  metadata: { name: 'p', uid: 'u', namespace: 'n', attempt: 0 },
  hostname: 'p',
  logDirectory: '/logs',
  portMappings: [],
  labels: {},
  annotations: {},
  cgroupParent: '',
  sysctls: {},
  security,
};
const container = (image: string, mounted?: string): ContainerConfig => ({
  metadata: { name: image, attempt: 0 },
  image: { image },
  command: [],
  args: [],
  workingDir: '',
  envs: [],
  mounts: mounted
    ? [
        {
          containerPath: '/m',
          hostPath: '',
          readonly: true,
          recursiveReadOnly: false,
          selinuxRelabel: false,
          propagation: 'private',
          image: { image: mounted },
        },
      ]
    : [],
  devices: [],
  cdiDevices: [],
  labels: {},
  annotations: {},
  logPath: '',
  stdin: false,
  stdinOnce: false,
  tty: false,
  resources: {},
  security: { ...security, capabilities: { add: [], drop: [] }, noNewPrivs: false, maskedPaths: [], readonlyPaths: [] },
});

function make(over: Partial<GcPolicy> = {}, sizes: Record<string, number> = { a: 10, b: 10, c: 10 }) {
  const clock = createFakeClock();
  const runtime = createFakeRuntime({ clock });
  for (const [name, sizeBytes] of Object.entries(sizes)) runtime.images.add({ name, sizeBytes });
  const events: string[] = [];
  let otherBytes = 0;
  const gc = createImageGc(
    {
      runtime,
      clock,
      log: silentLog,
      events: { record: (_about, type, reason, message) => void events.push(`${type} ${reason} ${message}`) },
      node: { apiVersion: 'v1', kind: 'Node', name: 'n' },
      diskUse: async () => {
        const images = runtime.images.list().reduce((sum, image) => sum + image.sizeBytes, 0);
        return { capacityBytes: 100, availableBytes: 100 - images - otherBytes };
      },
    },
    { ...policy, ...over },
  );
  const left = () =>
    runtime.images.list().map(({ repoTags }) => repoTags[0]?.replace(/^docker.io\/library\/(.*):latest$/, '$1'));
  const collect = async () => {
    const done = gc.collect();
    done.catch(() => undefined);
    await clock.advance(10_000);
    return done;
  };
  return {
    clock,
    runtime,
    gc,
    events,
    left,
    collect,
    use: (bytes: number) => {
      otherBytes = bytes;
    },
    run: async (image: string, mounted?: string) => {
      const id = await runtime.runSandbox({ ...sandbox, metadata: { ...sandbox.metadata, uid: image } }, '');
      return runtime.createContainer(id, container(image, mounted), sandbox);
    },
  };
}

describe('the image collector', () => {
  it('does nothing below the high threshold', async () => {
    const { use, collect, left, clock } = make();
    use(54);
    await collect();
    await clock.advance(600_000);
    expect((await collect()).removed).toEqual([]);
    expect(left()).toEqual(['a', 'b', 'c']);
  });

  it('frees down to the low threshold, the least recently used first, and never what is in use, pinned or young', async () => {
    const { use, collect, left, clock, runtime, run } = make({}, { a: 10, b: 10, c: 10, used: 10, volume: 10 });
    runtime.images.add({ name: 'pinned', sizeBytes: 10, pinned: true });
    const old = await run('a');
    await run('used', runtime.images.find('volume')?.id);
    await collect();
    await clock.advance(60_000);
    await collect();
    await runtime.removeContainer(old);
    await clock.advance(600_000);
    runtime.images.add({ name: 'young', sizeBytes: 10 });
    use(25);
    const result = await collect();
    expect(result.wantedBytes).toBe(15);
    expect(left()).toEqual(['a', 'used', 'volume', 'pinned', 'young']);
    expect(result.kept.map(({ image, why }) => [image.name.replace(/.*\/(.*):.*/, '$1'), why])).toEqual([
      ['used', 'in use'],
      ['volume', 'in use'],
      ['pinned', 'pinned by the runtime'],
      ['young', 'too young'],
    ]);
  });

  it('says what to look at where that was not enough', async () => {
    const { use, collect, events, clock, left } = make();
    await collect();
    await clock.advance(600_000);
    use(95);
    const message =
      "Insufficient free disk space on the node's image filesystem (125% of 100 B used). Failed to free sufficient space by deleting unused images (freed 30 bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data.";
    await expect(collect()).rejects.toThrow(message);
    expect(events).toEqual([`Warning FreeDiskSpaceFailed ${message}`]);
    expect(left()).toEqual([]);
  });

  it('goes on with the others where one cannot be removed', async () => {
    const { use, collect, clock, runtime, left } = make();
    await collect();
    await clock.advance(600_000);
    use(60);
    runtime.faults.inject('removeImage', { mode: 'fail', code: 'unknown', detail: 'busy' });
    const result = await collect();
    expect(result.failed).toHaveLength(1);
    expect(left()).toHaveLength(2);
  });

  it('removes what was not used for the maximum age, but not before it watched that long', async () => {
    const { collect, clock, left } = make({ maxAgeMs: 3_600_000 });
    await collect();
    await clock.advance(3_500_000);
    await collect();
    expect(left()).toHaveLength(3);
    await clock.advance(3_600_000);
    await collect();
    expect(left()).toEqual([]);
  });

  it('under disk pressure removes all that may go', async () => {
    const { gc, clock, run, left } = make();
    await run('b');
    await gc.removeUnused();
    await clock.advance(600_000);
    const result = await gc.removeUnused();
    expect(result.freedBytes).toBe(20);
    expect(left()).toEqual(['b']);
  });

  it('tells the Node of failures that last', async () => {
    const { gc, clock, events, use } = make();
    use(200);
    const controller = new AbortController();
    const running = gc.run(controller.signal);
    await clock.advance(700_000);
    controller.abort();
    await running;
    expect(events.filter((event) => event.startsWith('Warning ImageGCFailed'))).not.toHaveLength(0);
    expect(events[0]).toMatch(/^Warning FreeDiskSpaceFailed/);
  });
});

describe('the plan', () => {
  it('never offers what is in use, pinned or young, and orders by use', () => {
    const image = fc.record({
      id: fc.uuid(),
      name: fc.string(),
      sizeBytes: fc.nat(),
      pinned: fc.boolean(),
      inUse: fc.boolean(),
      firstSeenMs: fc.nat(1_000_000),
      lastUsedMs: fc.nat(1_000_000),
    });
    fc.assert(
      fc.property(fc.array(image), fc.nat(2_000_000), (images: ImageRecord[], nowMs) => {
        const { remove, keep } = candidates(images, policy, nowMs);
        expect(remove.length + keep.length).toBe(images.length);
        for (const one of remove) {
          expect(one.inUse || one.pinned).toBe(false);
          expect(nowMs - one.firstSeenMs).toBeGreaterThanOrEqual(policy.minAgeMs);
        }
        for (let index = 1; index < remove.length; index++)
          expect(remove[index]!.lastUsedMs).toBeGreaterThanOrEqual(remove[index - 1]!.lastUsedMs);
      }),
    );
  });

  it.each([
    [84, 0],
    [85, 5],
    [100, 20],
  ])('at %i%% frees %i', (used, bytes) => {
    expect(bytesToFree({ capacityBytes: 100, availableBytes: 100 - used }, policy)).toBe(bytes);
  });

  it.each([
    [100, '100 B'],
    [1536, '1.5 KiB'],
    [5 * 1024 ** 3, '5.0 GiB'],
    [3 * 1024 ** 5, '3072.0 TiB'],
  ])('%i is %s', (bytes, text) => {
    expect(formatSize(bytes)).toBe(text);
  });
});
