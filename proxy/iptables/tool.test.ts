// Which tool is called how, and what its answers mean.
import { describe, expect, it } from 'vitest';
import { ExecError, type ExecResult } from '../../lib/exec.ts';
import type { Converse } from '../staying-tool.ts';
import { type Exec, findIptables } from './tool.ts';

const signal = new AbortController().signal;
const input = '*nat\n:KUBE-X - [0:0]\nCOMMIT\n';

/** `answer`: what the tools say; `session`: what one that stays says to each text, undefined where it does not answer. */
function setUp(given: {
  readonly version?: string;
  readonly restore?: () => Promise<ExecResult>;
  readonly session?: (text: string) => string | ExecError | undefined;
}) {
  const calls: string[] = [];
  const asked: string[] = [];
  let sessions = 0;
  const exec: Exec = (command, args) => {
    calls.push([command, ...args].join(' '));
    if (args.includes('--version'))
      return Promise.resolve({ stdout: `iptables v${given.version ?? '1.8.9'} (nf_tables)`, stderr: '' });
    if (command.endsWith('-restore')) return given.restore?.() ?? Promise.resolve({ stdout: '', stderr: '' });
    return Promise.resolve({ stdout: '', stderr: '' });
  };
  const converse: Converse = (command, args) => {
    calls.push(`stays: ${[command, ...args].join(' ')}`);
    sessions++;
    let ended = false;
    return {
      pid: 1,
      get ended() {
        return ended;
      },
      ask(text) {
        asked.push(text);
        const said = given.session?.(text);
        if (typeof said === 'string') return Promise.resolve(said);
        ended = true;
        return Promise.reject(said ?? new ExecError(command, 'timeout', 'no answer'));
      },
      end() {
        ended = true;
      },
    };
  };
  return {
    calls,
    asked,
    sessions: () => sessions,
    tool: () => findIptables(exec, 'IPv4', given.session ? converse : undefined),
  };
}

const failing = (exitCode: number, said: string) => (): Promise<never> =>
  Promise.reject(new ExecError('iptables-restore', 'failed', `exit ${exitCode}: ${said}`, { exitCode, stderr: said }));

describe('what iptables-restore ends with', () => {
  it.each([
    // The kernel refuses a rule, or to take a chain away that others jump to: the nft kind ends with 4 then, as for the lock.
    [4, 'line 3: RULE_APPEND failed (Invalid argument): rule in chain KUBE-X', 'rejected'],
    [4, 'line 4: CHAIN_DEL failed (Device or resource busy): chain KUBE-SEP-A', 'rejected'],
    [4, 'line 4: RULE_APPEND failed (Cannot allocate memory): rule in chain KUBE-X', 'failed'],
    [
      4,
      'Another app is currently holding the xtables lock; still 0s 0us time ahead to have a chance to grab the lock...',
      'busy',
    ],
    [4, 'iptables-restore: line 4 failed: Resource temporarily unavailable.', 'busy'],
    [2, "iptables-restore v1.8.9 (nf_tables): Couldn't load match `nope':No such file or directory", 'rejected'],
    [1, 'iptables-restore: line 2 failed: Bad rule (does a matching rule exist in that chain?).', 'rejected'],
    [3, 'Fatal: cannot fork', 'failed'],
  ])('%i %s', async (exitCode, said, code) => {
    const t = setUp({ restore: failing(exitCode, said) });
    await expect((await t.tool()).restore(input, signal)).rejects.toMatchObject({ code });
  });
});

describe('an iptables-restore that stays', () => {
  const stays = (): string => '';

  it('is given what is short, one after another; what is long goes to one of its own', async () => {
    const t = setUp({ session: stays });
    const tool = await t.tool();
    await tool.restore(input, signal);
    await tool.restore(input, signal);
    expect(t.asked).toEqual(['# stevedore: done\n', `${input}# stevedore: done\n`, `${input}# stevedore: done\n`]);
    expect(t.calls.filter((call) => call.includes('restore'))).toEqual([
      'stays: iptables-nft-restore --noflush -w 5 -v',
    ]);
    await tool.restore(input.repeat(2_000), signal);
    await tool.restore(Buffer.from(input), signal);
    expect(t.calls.slice(-2)).toEqual(Array.from({ length: 2 }, () => 'iptables-nft-restore --noflush -w 5'));
  });

  it('ends over what it refuses, and the next one is another', async () => {
    const said = 'line 3: RULE_APPEND failed (Invalid argument): rule in chain KUBE-X';
    let bad = true;
    const t = setUp({
      session: (text) =>
        bad && text.startsWith('*')
          ? new ExecError('iptables-restore', 'failed', said, { exitCode: 4, stdout: said })
          : '',
    });
    const tool = await t.tool();
    await expect(tool.restore(input, signal)).rejects.toMatchObject({ code: 'rejected' });
    bad = false;
    await tool.restore(input, signal);
    expect(t.sessions()).toBe(2);
  });

  it('is not used where it does not answer, or where the tool is older than was read', async () => {
    for (const t of [setUp({ session: () => undefined }), setUp({ session: stays, version: '1.8.4' })]) {
      const tool = await t.tool();
      await tool.restore(input, signal);
      await tool.restore(input, signal);
      expect(t.calls.slice(-2)).toEqual(Array.from({ length: 2 }, () => 'iptables-nft-restore --noflush -w 5'));
    }
  });

  it('ends when told to, and after some megabytes', async () => {
    const t = setUp({ session: stays });
    const tool = await t.tool();
    const long = `*nat\n${'-A KUBE-X -j RETURN\n'.repeat(1_500)}COMMIT\n`;
    for (let count = 0; count < 200; count++) await tool.restore(long, signal);
    expect(t.sessions()).toBeGreaterThan(1);
    const before = t.sessions();
    tool.rest();
    await tool.restore(input, signal);
    expect(t.sessions()).toBe(before + 1);
  });
});
