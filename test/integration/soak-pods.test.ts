// The short form of `npm run soak:pods`: pods come and go in bursts, and nothing of them is left.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LabNode, startLabNode } from '../lab/node.ts';
import { growth, type SoakRound, soakPods } from '../lab/soak-pods.ts';

let node: LabNode;

beforeAll(async () => {
  node = await startLabNode({ only: 'agent' });
});
afterAll(async () => {
  await node?.stop();
});

describe('pods that come and go in bursts', () => {
  it('leave nothing behind', async () => {
    const rounds = await soakPods(node, { pods: 6, times: 3, timeoutMs: 120_000 });
    expect(rounds.map(({ left }) => left)).toEqual([{}, {}, {}]);
  }, 400_000);
});

describe('growth', () => {
  const round = (anonymousMiB: number, files: number): SoakRound => ({
    upMs: 1,
    downMs: 1,
    left: {},
    forgotten: 0,
    residentMiB: anonymousMiB,
    anonymousMiB,
    files,
    threads: 11,
  });
  const limits = { anonymousMiB: 10, files: 2 };

  it('is what is more at the end than after the third burst', () => {
    expect(
      growth(
        [1, 2, 50, 55, 61, 59].map((each) => round(each, 20)),
        limits,
      ),
    ).toEqual([]);
    expect(
      growth(
        [1, 2, 50, 55, 61, 62].map((each) => round(each, 20)),
        limits,
      ),
    ).toEqual(['MiB of anonymous memory: 50 after burst 3, at least 61 at the end']);
    expect(
      growth(
        [20, 20, 20, 23, 26].map((each) => round(50, each)),
        limits,
      ),
    ).toHaveLength(1);
  });
});
