// The tools at the edge of the process: child programs, files, log lines, supervised tasks.
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ExecError, exec } from './exec.ts';
import { readFileIfThere, writeFileAtomic } from './files.ts';
import { createLog, describeError, silentLog } from './log.ts';
import { supervise } from './supervise.ts';

const failure = async (work: Promise<unknown>): Promise<ExecError> => {
  const error = await work.catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(ExecError);
  return error as ExecError;
};

describe('exec', () => {
  it('feeds input and environment and collects both outputs', async () => {
    const result = await exec('/bin/sh', ['-c', 'cat; echo $X >&2'], { input: 'in', env: { X: 'x' } });
    expect(result).toEqual({ stdout: 'in', stderr: 'x\n' });
  });

  it('says what failed and what it printed', async () => {
    const error = await failure(exec('/bin/sh', ['-c', 'echo out; echo why >&2; exit 3']));
    expect(error).toMatchObject({ code: 'failed', exitCode: 3, stdout: 'out\n', message: '/bin/sh: exit 3: why' });
    expect(await failure(exec('no-such-program', []))).toMatchObject({ code: 'not-found' });
    expect(await failure(exec('/bin/sh', ['-c', 'kill -9 $$']))).toMatchObject({
      code: 'failed',
      message: expect.stringContaining('SIGKILL'),
    });
  });

  it('ends what takes too long, also where its children hold the output open', async () => {
    const startedAt = performance.now();
    const error = await failure(exec('/bin/sh', ['-c', 'sleep 5 & sleep 5'], { timeoutMs: 100 }));
    expect(error.code).toBe('timeout');
    expect(performance.now() - startedAt).toBeLessThan(3000);
  });

  it('ends what the program started too, where asked', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'sv-group-'));
    const file = join(dir, 'pid');
    const script = `(sleep 1; touch ${dir}/late) & echo $! > ${file}; wait`;
    const error = await failure(exec('/bin/sh', ['-c', script], { timeoutMs: 200, group: true }));
    expect(error.code).toBe('timeout');
    const child = Number(readFileSync(file, 'utf8'));
    await expect
      .poll(() => {
        try {
          // One that has ended and that nobody has reaped yet still has an id.
          return readFileSync(`/proc/${child}/stat`, 'utf8').split(' ')[2];
        } catch {
          return 'Z';
        }
      })
      .toBe('Z');
    rmSync(dir, { recursive: true });
  });

  it('ends what prints too much, or when asked', async () => {
    expect(await failure(exec('/bin/sh', ['-c', 'yes'], { maxOutputBytes: 1000 }))).toMatchObject({
      code: 'output-too-large',
    });
    const controller = new AbortController();
    const running = failure(exec('/bin/sleep', ['5'], { signal: controller.signal }));
    controller.abort();
    expect(await running).toMatchObject({ code: 'aborted' });
    expect(await failure(exec('/bin/true', [], { signal: controller.signal }))).toMatchObject({ code: 'aborted' });
  });
});

describe('exec, from a shell that stays', () => {
  it('says every word as it is, and starts nothing else', async () => {
    const words = ["it's", '$HOME', '`id`', 'a b', '', '-n', '\\n', 'ä\n"', ';ls', '*'];
    const script = 'for each; do printf "%s|" "$each"; done';
    const { stdout } = await exec('/bin/sh', ['-c', script, 'sh', ...words], { env: { Y: "it's $X" } });
    expect(stdout).toBe(`${words.join('|')}|`);
    expect((await exec('/bin/sh', ['-c', 'printf %s "$Y"'], { env: { Y: "it's $X" } })).stdout).toBe("it's $X");
    const input = "line $HOME `id`\nit's \\ done\n";
    expect((await exec('cat', [], { input })).stdout).toBe(input);
    expect((await exec('cat', [])).stdout).toBe('');
  });

  it('keeps what runs side by side apart, whatever is printed and however large', async () => {
    const many = Array.from({ length: 20 }, (_, at) => at);
    const said = await Promise.all(
      many.map((at) => exec('/bin/sh', ['-c', `head -c ${at * 20_000} /dev/zero | tr '\\0' x; echo ${at} >&2`])),
    );
    expect(said.map(({ stdout }) => stdout.length)).toEqual(many.map((at) => at * 20_000));
    expect(said.map(({ stderr }) => stderr)).toEqual(many.map((at) => `${at}\n`));
  });

  const children = (): number =>
    readdirSync('/proc/self/task')
      .map((task) => readFileSync(`/proc/self/task/${task}/children`, 'utf8').split(' ').length - 1)
      .reduce((sum, count) => sum + count, 0);

  it('serves a crowd from a few shells', async () => {
    let most = 0;
    const crowd = Array.from({ length: 100 }, async () => {
      await exec('sleep', ['0.02']);
      most = Math.max(most, children());
    });
    await Promise.all(crowd);
    expect(most).toBeGreaterThan(0);
    expect(most).toBeLessThan(30);
  });

  it('keeps nobody waiting for programs that take their time', async () => {
    const slow = Array.from({ length: 6 }, () => exec('sleep', ['3']));
    let over = false;
    void Promise.all(slow).then(() => {
      over = true;
    });
    expect((await exec('echo', ['by the way'])).stdout).toBe('by the way\n');
    expect(over).toBe(false);
    await Promise.all(slow);
  });

  it('does not start what was cancelled while it waited for its turn', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'turn-'));
    const file = join(folder, 'made');
    try {
      const busy = Array.from({ length: 4 }, () => exec('sleep', ['0.3']));
      const controller = new AbortController();
      const late = failure(exec('touch', [file], { signal: controller.signal }));
      controller.abort();
      expect(await late).toMatchObject({ code: 'aborted' });
      await Promise.all(busy);
      expect(readdirSync(folder)).toEqual([]);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  it('tells the process id, and is of use again after one was ended', async () => {
    let pid = 0;
    const onSpawn = (id: number): void => {
      pid = id;
    };
    const running = failure(exec('sleep', ['30'], { onSpawn, timeoutMs: 300 }));
    expect((await running).code).toBe('timeout');
    expect(pid).toBeGreaterThan(1);
    expect((await exec('echo', ['again'])).stdout).toBe('again\n');
    expect(() => process.kill(pid, 0)).toThrow();
  });
});

describe('files', () => {
  it('are written whole, with their mode, and leave nothing beside', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'files-'));
    try {
      const path = join(folder, 'deep', 'a');
      await writeFileAtomic(path, 'one', 0o600);
      await writeFileAtomic(path, 'two', 0o600);
      expect(readFileSync(path, 'utf8')).toBe('two');
      expect(statSync(path).mode & 0o777).toBe(0o600);
      await expect(writeFileAtomic(join(path, 'below'), 'x')).rejects.toThrow();
      expect(readdirSync(join(folder, 'deep'))).toEqual(['a']);
      expect(await readFileIfThere(path)).toBe('two');
      expect(await readFileIfThere(join(folder, 'none'))).toBeUndefined();
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('the log', () => {
  const lines = (format: 'json' | 'text'): [string[], ReturnType<typeof createLog>] => {
    const written: string[] = [];
    return [written, createLog({ level: 'info', format, write: (line) => void written.push(line) })];
  };

  it('writes one JSON object a line, with the fields of its parents and the chain of errors', () => {
    const [written, log] = lines('json');
    const error = new Error('outer', { cause: new Error('inner') });
    log.with({ pod: 'a' }).with({ uid: 'u' }).warn('it broke', { error });
    log.debug('not this');
    expect(written).toHaveLength(1);
    expect(JSON.parse(written[0]!)).toMatchObject({
      level: 'warn',
      msg: 'it broke',
      pod: 'a',
      uid: 'u',
      error: 'outer: inner',
    });
  });

  it('writes text for people', () => {
    const [written, log] = lines('text');
    log.with({ pod: 'a' }).info('hello', { count: 2 });
    expect(written[0]).toMatch(/^\S+ INFO {2}hello {2}pod="a" count=2\n$/);
  });

  it('describes errors without repeating, and those that hide others', () => {
    expect(describeError(new Error('a: b', { cause: new Error('b') }))).toBe('a: b');
    expect(describeError(new AggregateError([new Error('refused 1'), new Error('refused 2')]))).toBe(
      'refused 1, refused 2',
    );
    expect(describeError('text')).toBe('text');
  });
});

describe('supervision', () => {
  it('ends tasks in the reverse order of their start, and tells of those that end by themselves', async () => {
    const ended: string[] = [];
    const faults: [string, unknown][] = [];
    const supervisor = supervise({ log: silentLog, onFault: (name, error) => void faults.push([name, error]) });
    for (const name of ['first', 'second'])
      supervisor.start(name, async (signal) => {
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        ended.push(name);
      });
    const broken = new Error('broken');
    supervisor.start('throws', () => Promise.reject(broken));
    supervisor.start('returns', async () => undefined);
    await new Promise((resolve) => setImmediate(resolve));
    expect(faults).toEqual(
      expect.arrayContaining([
        ['throws', broken],
        ['returns', undefined],
      ]),
    );
    await supervisor.stop();
    expect(ended).toEqual(['second', 'first']);
    expect(faults).toHaveLength(2);
  });
});
