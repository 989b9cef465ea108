import { setImmediate as nextTurn } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { ExecError } from '../lib/exec.ts';
import { createStayingTool } from './staying-tool.ts';

/** `answers`: of one session after the other, whether it answers. `asked` is told which one is. */
function setUp(answers: readonly boolean[], asked: (session: number) => void = () => undefined) {
  let sessions = 0;
  const tool = createStayingTool(
    (command) => {
      const session = sessions++;
      const answer = answers[session];
      return {
        pid: 1,
        ended: false,
        ask: (_text, _mark, { signal }) => {
          asked(session);
          return answer && !signal?.aborted
            ? Promise.resolve('said')
            : Promise.reject(new ExecError(command, signal?.aborted ? 'aborted' : 'timeout', 'no answer'));
        },
        end: () => undefined,
      };
    },
    { command: 'tool', args: [], markLine: '# mark', mark: 'mark\n' },
  );
  return { tool, sessions: () => sessions };
}

const going = new AbortController().signal;

it('none stays where the first does not answer', async () => {
  const { tool, sessions } = setUp([false, true]);
  expect(await tool.ask('a', going)).toBeUndefined();
  expect(await tool.ask('b', going)).toBeUndefined();
  expect(sessions()).toBe(1);
});

it('one that was given up before it could answer is no sign that none can stay', async () => {
  const { tool, sessions } = setUp([true, true]);
  await expect(tool.ask('a', AbortSignal.abort())).rejects.toMatchObject({ code: 'aborted' });
  expect(await tool.ask('b', going)).toBe('said');
  expect(sessions()).toBe(2);
});

it('one that was begun early is there for the first text', async () => {
  const { tool, sessions } = setUp([true, true]);
  tool.begin(going);
  await nextTurn();
  expect(sessions()).toBe(1);
  expect(await tool.ask('a', going)).toBe('said');
  tool.begin(going);
  await nextTurn();
  expect(sessions()).toBe(1);
});

it('one that was begun and ended before it could answer is no sign that none can stay', async () => {
  const { tool, sessions } = setUp([false, true], (at) => {
    if (at === 0) tool.rest();
  });
  tool.begin(going);
  await nextTurn();
  expect(await tool.ask('a', going)).toBe('said');
  expect(sessions()).toBe(2);
});

it('one that was begun and ended before its turn is not started', async () => {
  const { tool, sessions } = setUp([true]);
  tool.begin(going);
  tool.rest();
  await nextTurn();
  expect(sessions()).toBe(0);
});

it('the first text does not fail over one that was begun and does not answer', async () => {
  const { tool, sessions } = setUp([false, true]);
  tool.begin(going);
  expect(await tool.ask('a', going)).toBeUndefined();
  expect(sessions()).toBe(1);
});
