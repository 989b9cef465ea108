import { Command } from 'commander';
import * as v from 'valibot';
import { describe, expect, it } from 'vitest';
import { createProgram } from '../../cli/program.ts';
import { exec } from '../../lib/exec.ts';
import { bashCompletion } from './bash-completion.ts';
import { commandTree } from './command-tree.ts';
import { fieldRows, goDuration } from './field-rows.ts';
import { manPage, roff } from './man-page.ts';

const commands = commandTree(createProgram());

describe('the man page', () => {
  it.each([
    ['--token', '\\-\\-token'],
    ['.hidden', '\\&.hidden'],
    ['a\\b', 'a\\eb'],
  ])('%s', (text, expected) => expect(roff(text)).toBe(expected));

  it('has every command and every flag', () => {
    const page = manPage(commands, '1.2.3');
    for (const { name, flags } of commands.slice(1)) {
      expect(page).toContain(`.SS "${roff(name)}"`);
      for (const { names } of flags) for (const flag of names) expect(page).toContain(`\\fB${roff(flag)}\\fR`);
    }
    expect(page).toContain('1.2.3');
  });
});

describe('the completion', () => {
  const complete = async (...words: string[]): Promise<string[]> => {
    const script = `${bashCompletion(commands)}\nCOMP_WORDS=("$@")\nCOMP_CWORD=$(($# - 1))\n_stevedore\nprintf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout } = await exec('bash', ['-c', script, 'bash', ...words]);
    return stdout.split('\n').filter(Boolean);
  };

  it('knows commands and flags', async () => {
    expect(await complete('stevedore', 'jo')).toEqual(['join']);
    expect(await complete('stevedore', 'join', '--tok')).toEqual(['--token']);
    expect(await complete('stevedore', 'join', '--token', '')).toEqual([]);
    expect(await complete('stevedore', 'nothing-like-that', '')).toEqual([]);
  });

  it('refuses words that a shell would read', () => {
    const program = new Command('stevedore');
    program.command('x;y');
    expect(() => bashCompletion(commandTree(program))).toThrow('cannot stand in a completion');
  });
});

describe('the reference of the configuration', () => {
  it('reads types and defaults from a schema', () => {
    const duration = v.pipe(
      v.optional(v.string('must be a duration such as "10s"'), '1m'),
      v.transform((): number => 60_000),
    );
    const schema = v.strictObject({
      every: duration,
      mode: v.optional(v.picklist(['a', 'b', '']), 'a'),
      count: v.optional(v.pipe(v.number(), v.minValue(2), v.maxValue(9)), 3),
      inner: v.optional(v.strictObject({ names: v.optional(v.array(v.string()), ['x']) }), {}),
      taints: v.optional(v.array(v.strictObject({ key: v.string() })), []),
      map: v.optional(v.record(v.string(), v.boolean()), {}),
    });
    expect(fieldRows(schema, v.parse(schema, {}))).toEqual([
      { path: 'every', type: 'duration', fallback: '1m' },
      { path: 'mode', type: '`a`, `b`', fallback: 'a' },
      { path: 'count', type: 'number from 2 to 9', fallback: '3' },
      { path: 'inner.names', type: 'list of text', fallback: '["x"]' },
      { path: 'taints', type: 'list of map', fallback: '' },
      { path: 'taints[].key', type: 'text', fallback: '' },
      { path: 'map', type: 'map of true or false', fallback: '' },
    ]);
  });

  it('refuses a kind of schema it has no words for', () => {
    expect(() => fieldRows(v.strictObject({ when: v.date() }), {})).toThrow('no words yet');
  });

  it.each([
    [0, '0s'],
    [250, '250ms'],
    [90_000, '1m30s'],
    [14_400_000, '4h'],
  ])('%i ms is %s', (ms, text) => expect(goDuration(ms)).toBe(text));
});
