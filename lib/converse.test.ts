import { describe, expect, it } from 'vitest';
import { startConversation } from './converse.ts';

const talk = (script: string) => startConversation('/bin/sh', ['-c', script]);
const soon = { timeoutMs: 5_000 };

describe('a conversation', () => {
  it('asks again and again, and reads both streams in order', async () => {
    const shell = talk('while read -r line; do echo "bad $line" >&2; echo "good $line"; echo DONE; done');
    expect(await shell.ask('one\n', 'DONE\n', soon)).toBe('bad one\ngood one\n');
    expect(await shell.ask('two\n', 'DONE\n', soon)).toBe('bad two\ngood two\n');
    shell.end();
    expect(shell.ended).toBe(true);
    await expect(shell.ask('three\n', 'DONE\n', soon)).rejects.toMatchObject({ code: 'failed' });
  });

  it('answers those who ask at a time one after the other, each with his own, also when one before ended it', async () => {
    const shell = talk('while read -r line; do sleep 0.05; [ "$line" = end ] && exit 1; echo "$line"; echo DONE; done');
    const asks = ['one', 'two', 'three'].map((line) => shell.ask(`${line}\n`, 'DONE\n', soon));
    expect(await Promise.all(asks)).toEqual(['one\n', 'two\n', 'three\n']);
    const late = ['end', 'four'].map((line) => shell.ask(`${line}\n`, 'DONE\n', soon));
    for (const { status } of await Promise.allSettled(late)) expect(status).toBe('rejected');
  });

  it('ends where the program ends, with what it said', async () => {
    const shell = talk('read -r line; echo no such thing; exit 3');
    await expect(shell.ask('x\n', 'DONE', soon)).rejects.toThrow('exit 3: no such thing');
    expect(shell.ended).toBe(true);
  });

  it('ends where no answer comes in time, or the signal aborts', async () => {
    await expect(talk('sleep 20').ask('x\n', 'DONE', { timeoutMs: 50 })).rejects.toMatchObject({ code: 'timeout' });
    const stopping = new AbortController();
    const asking = talk('sleep 20').ask('x\n', 'DONE', { ...soon, signal: stopping.signal });
    stopping.abort();
    await expect(asking).rejects.toMatchObject({ code: 'aborted' });
  });

  it('goes on for others where one no longer waits for his turn', async () => {
    const shell = talk('while read -r line; do sleep 0.1; echo "$line"; echo DONE; done');
    const leaving = new AbortController();
    const first = shell.ask('one\n', 'DONE\n', soon);
    const second = shell.ask('two\n', 'DONE\n', { ...soon, signal: leaving.signal });
    const third = shell.ask('three\n', 'DONE\n', soon);
    let answered = false;
    void first.then(() => {
      answered = true;
    });
    leaving.abort();
    await expect(second).rejects.toMatchObject({ code: 'aborted' });
    expect(answered).toBe(false);
    expect(await Promise.all([first, third])).toEqual(['one\n', 'three\n']);
    shell.end();
  });

  it('a program that is not there ends at once', async () => {
    const none = startConversation('/no/such/program', []);
    await expect(none.ask('x\n', 'DONE', soon)).rejects.toMatchObject({ code: 'failed' });
  });
});
