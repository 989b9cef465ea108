// Whatever happens to it — containers that crash, faults of the runtime, lost and doubled events, an agent that is killed — a pod's containers
// never run twice at once, its counts never fall, what has ended stays ended, and it comes to where its spec wants it.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RuntimeCall } from '../../cri/fake-faults.ts';
import type { PodSpec } from '../../kube/types/pod.ts';
import { createPodLab } from '../../test/lab/pod-lab.ts';

/** More of them, for a long search: PROPERTY_RUNS=500. */
const runs = Number(process.env.PROPERTY_RUNS ?? 8);

type Step =
  | { readonly kind: 'wait'; readonly ms: number }
  | { readonly kind: 'crash'; readonly which: number; readonly exitCode: number }
  | { readonly kind: 'crash-sandbox' }
  | {
      readonly kind: 'fault';
      readonly call: RuntimeCall;
      readonly mode: 'fail' | 'hang' | 'late';
      readonly applied: boolean;
    }
  | { readonly kind: 'events'; readonly how: 'lost' | 'doubled' | 'right' }
  | { readonly kind: 'runtime-away'; readonly ms: number }
  | { readonly kind: 'watch-breaks' }
  | { readonly kind: 'restart' };

const calls = [
  'runSandbox',
  'createContainer',
  'startContainer',
  'stopContainer',
  'stopSandbox',
  'removeContainer',
  'removeSandbox',
  'listContainers',
  'listSandboxes',
  'inspectContainer',
  'sandboxStatus',
] as const;

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('wait' as const), ms: fc.constantFrom(0, 1, 50, 900, 5_000, 30_000) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('crash' as const),
      which: fc.nat(4),
      exitCode: fc.constantFrom(0, 1, 42, 137),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'crash-sandbox' as const }) },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('fault' as const),
      call: fc.constantFrom<RuntimeCall>(...calls),
      mode: fc.constantFrom('fail' as const, 'hang' as const, 'late' as const),
      applied: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('events' as const),
      how: fc.constantFrom('lost' as const, 'doubled' as const, 'right' as const),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('runtime-away' as const), ms: fc.constantFrom(10, 3_000, 40_000) }),
  },
  { weight: 1, arbitrary: fc.constant({ kind: 'watch-breaks' as const }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'restart' as const }) },
);

const shapes: Readonly<Record<string, Partial<PodSpec>>> = {
  'one container': { containers: [{ name: 'main', image: 'i' }] },
  'one container that shares its processes': {
    containers: [{ name: 'main', image: 'i' }],
    shareProcessNamespace: true,
  },
  'init container, sidecar and two mains': {
    initContainers: [
      { name: 'init', image: 'i' },
      { name: 'side', image: 'i', restartPolicy: 'Always' },
    ],
    containers: [
      { name: 'main', image: 'i' },
      { name: 'more', image: 'i' },
    ],
  },
  'a rule that restarts all': {
    containers: [
      {
        name: 'main',
        image: 'i',
        restartPolicy: 'Never',
        restartPolicyRules: [{ action: 'RestartAllContainers', exitCodes: { operator: 'In', values: [42] } }],
      },
      { name: 'more', image: 'i' },
    ],
  },
};

type Lab = ReturnType<typeof createPodLab>;

async function take(lab: Lab, each: Step): Promise<void> {
  switch (each.kind) {
    case 'wait':
      await lab.clock.advance(each.ms);
      return;
    case 'crash': {
      const running = lab.runtime.containers().filter(lab.runtime.runs);
      const container = running[each.which % Math.max(1, running.length)];
      if (container) lab.runtime.kill(container.id, each.exitCode);
      return;
    }
    case 'crash-sandbox': {
      const sandbox = lab.runtime.sandboxes().find(({ state }) => state === 'ready');
      if (sandbox) lab.runtime.crashSandbox(sandbox.id);
      return;
    }
    case 'fault':
      lab.runtime.faults.inject(each.call, { mode: each.mode, applied: each.applied });
      return;
    case 'events':
      lab.runtime.mapEvents(
        each.how === 'lost' ? () => [] : each.how === 'doubled' ? (event) => [event, event] : undefined,
      );
      return;
    case 'runtime-away':
      lab.runtime.setDown(true);
      await lab.clock.advance(each.ms);
      lab.runtime.setDown(false);
      return;
    case 'watch-breaks':
      lab.client.endWatches();
      return;
    case 'restart':
      lab.restart();
      return;
    default:
      throw new Error(`no such step: ${JSON.stringify(each satisfies never)}`);
  }
}

/** Nothing is left that disturbs; time for every back-off, time-out and relist. */
async function calm(lab: Lab): Promise<void> {
  lab.runtime.faults.clear();
  lab.runtime.mapEvents(undefined);
  for (let minute = 0; minute < 12; minute++) await lab.clock.advance(60_000);
}

function held(lab: Lab): void {
  expect(lab.runtime.violations).toEqual([]);
  expect(lab.complaints).toEqual([]);
}

const isEnd = (phase: string | undefined): boolean => phase === 'Succeeded' || phase === 'Failed';

/** How long after a process has ended the runtime notes it, saying so before. */
const lags = [0, 40, 15_000];

describe.each(
  Object.entries(shapes).flatMap(([name, shape]) => lags.map((notesEndAfterMs) => ({ name, shape, notesEndAfterMs }))),
)('a pod of $name, on a runtime that notes an end after $notesEndAfterMs ms', ({ shape, notesEndAfterMs }) => {
  const initExits = (lab: Lab): void =>
    lab.runtime.behave((config) => config.metadata.name === 'init', { exitAfterMs: 100, exitCode: 0 });

  it('under Always runs in the end, and goes when it is deleted', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 14 }), async (steps) => {
        const lab = createPodLab({ notesEndAfterMs });
        initExits(lab);
        lab.bind('a', { ...shape, restartPolicy: 'Always' });
        for (const each of steps) await take(lab, each);
        held(lab);
        await calm(lab);
        held(lab);
        const never = shape.containers?.some(({ restartPolicy }) => restartPolicy === 'Never');
        if (!never) {
          const names = [
            ...(shape.initContainers ?? []).filter(({ restartPolicy }) => restartPolicy),
            ...shape.containers!,
          ];
          expect(lab.running('a')).toEqual(names.map(({ name }) => name).sort());
          expect(lab.pod('a')?.status?.phase).toBe('Running');
          expect(lab.pod('a')?.status?.containerStatuses?.every(({ ready }) => ready)).toBe(true);
        }
        await lab.delete('a', 5);
        await calm(lab);
        expect(lab.pod('a')).toBeUndefined();
        expect(lab.runtime.containers()).toEqual([]);
        expect(lab.runtime.sandboxes()).toEqual([]);
        held(lab);
        await lab.stop();
      }),
      { numRuns: runs },
    );
  }, 60_000);

  it.each(['Never', 'OnFailure'] as const)(
    'under %s stays ended once it has ended',
    async (restartPolicy) => {
      await fc.assert(
        fc.asyncProperty(fc.array(step, { maxLength: 14 }), fc.array(step, { maxLength: 6 }), async (steps, more) => {
          const lab = createPodLab({ notesEndAfterMs });
          initExits(lab);
          lab.runtime.behave((config) => config.metadata.name === 'main' || config.metadata.name === 'more', {
            exitAfterMs: 20_000,
            exitCode: 0,
          });
          lab.bind('a', { ...shape, restartPolicy });
          for (const each of steps) await take(lab, each);
          await calm(lab);
          held(lab);
          const end = lab.pod('a')?.status?.phase;
          expect(isEnd(end)).toBe(true);
          const { length: started } = lab.runtime.faults.calls.filter(({ call }) => call === 'startContainer');
          for (const each of more) await take(lab, each);
          await calm(lab);
          expect(lab.runtime.faults.calls.filter(({ call }) => call === 'startContainer')).toHaveLength(started);
          expect(lab.pod('a')?.status?.phase).toBe(end);
          held(lab);
          await lab.stop();
        }),
        { numRuns: runs },
      );
    },
    60_000,
  );
});
