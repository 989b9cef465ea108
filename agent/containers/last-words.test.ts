import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { RuntimeError } from '../../cri/errors.ts';
import type { ContainerInspection } from '../../cri/types.ts';
import type { LifecycleHandler, Pod } from '../../kube/types/pod.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { HookError, runHook } from './hooks.ts';
import { containerAnnotations, containerLabels } from './labels.ts';
import {
  createTerminationLog,
  lastWords,
  messageBytesPerContainer,
  terminationMessage,
  textOfLog,
} from './termination-message.ts';

const directory = mkdtempSync(join(tmpdir(), 'last-words-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));
const pod: Pod = { metadata: { name: 'p', namespace: 'n', uid: 'u' }, spec: { containers: [] } };
const path = '/dev/termination-log';
const stamp = '2026-01-01T00:00:00.000000000Z';

describe('the termination message', () => {
  const ended = (
    policy: 'File' | 'FallbackToLogsOnError',
    file: string | undefined,
    log: string,
    more: Partial<ContainerInspection> = {},
  ): ContainerInspection => {
    const container = { name: 'c', terminationMessagePath: path, terminationMessagePolicy: policy };
    const hostPath = join(directory, 'message');
    rmSync(hostPath, { force: true });
    if (file !== undefined) writeFileSync(hostPath, file);
    const logPath = join(directory, '0.log');
    writeFileSync(logPath, log);
    return {
      id: 'id',
      metadata: { name: 'c', attempt: 0 },
      state: 'exited',
      createdAtMs: 0,
      startedAtMs: 0,
      finishedAtMs: 0,
      exitCode: 1,
      image: '',
      imageRef: '',
      imageId: '',
      reason: 'Error',
      message: '',
      labels: containerLabels(pod, container),
      annotations: containerAnnotations(pod, container, 0),
      mounts: [
        {
          containerPath: path,
          hostPath,
          readonly: false,
          recursiveReadOnly: false,
          selinuxRelabel: false,
          propagation: 'private',
        },
      ],
      logPath,
      ...more,
    };
  };
  const log = `${stamp} stdout F one\n${stamp} stderr P tw\n${stamp} stderr F o\n`;

  it.each<[string, ContainerInspection, string]>([
    ['the file', ended('File', 'DONE', log), 'DONE'],
    ['no file', ended('File', undefined, log), ''],
    ['the log after an error', ended('FallbackToLogsOnError', '', log), 'one\ntwo\n'],
    ['the file before the log', ended('FallbackToLogsOnError', 'DONE', log), 'DONE'],
    ['not the log after a success', ended('FallbackToLogsOnError', '', log, { exitCode: 0 }), ''],
    [
      'not the log of what could not start',
      ended('FallbackToLogsOnError', '', log, { reason: 'ContainerCannotRun' }),
      '',
    ],
    ["after the runtime's words", ended('File', 'DONE', log, { message: 'killed' }), 'killed: DONE'],
  ])('%s', async (_name, container, expected) => {
    // Each row's files were written over by the next one's: write them again.
    const again = expected.includes('DONE') ? 'DONE' : '';
    writeFileSync(join(directory, 'message'), again);
    writeFileSync(join(directory, '0.log'), log);
    expect(await terminationMessage(container)).toBe(expected);
  });

  it('is the end of the file, 4096 bytes of it', async () => {
    expect(await terminationMessage(ended('File', `${'x'.repeat(5000)}END`, ''))).toBe(`${'x'.repeat(4093)}END`);
  });

  it('says what it cannot read', async () => {
    const container = ended('FallbackToLogsOnError', 'x', log);
    const broken = { ...container, mounts: container.mounts.map((mount) => ({ ...mount, hostPath: directory })) };
    expect(await terminationMessage(broken)).toMatch(/^Error on reading termination log .*EISDIR/);
  });

  it('is at most 80 lines and 2048 bytes of a log', () => {
    const lines = Array.from({ length: 100 }, (_, index) => `line ${index}`);
    const kept = lastWords(`${lines.join('\n')}\n`);
    expect(kept.split('\n')).toHaveLength(81);
    expect(kept.startsWith('line 20\n')).toBe(true);
    expect(lastWords('y'.repeat(3000))).toHaveLength(2048);
    expect(textOfLog('not a CRI line\n')).toBe('');
  });

  it('shares 12 KiB among the containers of a pod', () => {
    expect([1, 3, 12].map(messageBytesPerContainer)).toEqual([12_288, 4096, 1024]);
  });

  it('has a file of its own for each instance, which any user may write', async () => {
    const container = { name: 'c', terminationMessagePath: path };
    const [one, two] = [
      await createTerminationLog(directory, container, false),
      await createTerminationLog(directory, container, false),
    ];
    expect(one?.containerPath).toBe(path);
    expect(one?.hostPath).not.toBe(two?.hostPath);
    expect(statSync(one!.hostPath).mode & 0o777).toBe(0o666);
    expect(readdirSync(join(directory, 'containers/c'))).toHaveLength(2);
    expect(await createTerminationLog(directory, { name: 'c' }, false)).toBeUndefined();
  });
});

describe('hooks', () => {
  const run = (
    handler: LifecycleHandler,
    exec: () => Promise<{ exitCode: number; stderr?: string }>,
    kind: 'postStart' | 'preStop' = 'preStop',
  ) => {
    const events: string[] = [];
    const clock = createFakeClock();
    const abort = new AbortController();
    const calls: { command: readonly string[]; timeoutMs: number | undefined }[] = [];
    const counted = { http: 0, short: 0 };
    const done = runHook(
      {
        runtime: {
          execSync: async (_id, command, options) => {
            calls.push({ command, timeoutMs: options?.timeoutMs });
            const { exitCode, stderr = '' } = await exec();
            return { exitCode, stdout: new Uint8Array(), stderr: Buffer.from(stderr) };
          },
        },
        clock,
        log: silentLog,
        counted: { fellBackToHttp: () => void counted.http++, sleepCutShort: () => void counted.short++ },
        events: {
          record: (about, type, reason, message) => events.push(`${about.fieldPath} ${type} ${reason} ${message}`),
        },
      },
      {
        kind,
        pod: { ...pod, spec: { containers: [{ name: 'c' }] } },
        container: { name: 'c' },
        containerId: 'id',
        podIp: '',
        handler,
      },
      abort.signal,
    );
    done.catch(() => undefined);
    return { done, events, clock, abort, calls, counted };
  };
  const ok = async () => ({ exitCode: 0 });

  it('exec, without a time limit of its own', async () => {
    const { done, events, calls } = run({ exec: { command: ['a', 'b'] } }, ok);
    await done;
    expect(calls[0]?.command).toEqual(['a', 'b']);
    expect(calls[0]?.timeoutMs).toBeGreaterThan(3600_000);
    expect(events).toEqual([]);
  });

  it.each([
    ['postStart', 'spec.containers{c} Warning FailedPostStartHook PostStartHook failed'],
    ['preStop', 'spec.containers{c} Warning FailedPreStopHook PreStopHook failed'],
  ] as const)('a %s hook that fails says so, and keeps its words to the log', async (kind, event) => {
    const { done, events } = run(
      { exec: { command: ['a', 'b'] } },
      async () => ({ exitCode: 3, stderr: 'secret' }),
      kind,
    );
    await expect(done).rejects.toThrow(
      `Exec lifecycle hook ([a b]) for Container "c" in Pod "p_n(u)" failed - error: command 'a b' exited with 3: secret, message: "secret"`,
    );
    expect(events).toEqual([event]);
  });

  it('a runtime that does not answer', async () => {
    const broken = run({ exec: { command: ['a'] } }, async () =>
      Promise.reject(new RuntimeError('unavailable', 'ExecSync', 'gone')),
    );
    await expect(broken.done).rejects.toBeInstanceOf(HookError);
  });

  it('sleep, which can be cut short', async () => {
    const whole = run({ sleep: { seconds: 2 } }, ok);
    await whole.clock.advance(2000);
    await whole.done;
    expect(whole.counted.short).toBe(0);
    const cut = run({ sleep: { seconds: 2 } }, ok);
    cut.abort.abort(new Error('grace is over'));
    await expect(cut.done).rejects.toThrow('grace is over');
    expect(cut.events).toEqual([]);
    expect(cut.counted.short).toBe(1);
  });

  it('HTTPS to a server that speaks HTTP only, which is counted', async () => {
    const server = createServer((_request, response) => void response.end('ok'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    try {
      const hook = run({ httpGet: { scheme: 'HTTPS', host: '127.0.0.1', port, path: '/' } }, ok);
      await hook.done;
      expect(hook.counted.http).toBe(1);
      expect(hook.events[0]).toContain('LifecycleHTTPFallback');
    } finally {
      server.close();
    }
  });

  it.each<[LifecycleHandler, string]>([
    [{ tcpSocket: { port: 1 } }, 'Cannot run handler: invalid handler'],
    [
      { httpGet: { port: 80, path: '/x' } },
      'HTTP lifecycle hook (/x) for Container "c" in Pod "p_n(u)" failed - error: failed to find networking container',
    ],
  ])('%j cannot run', async (handler, message) => {
    await expect(run(handler, ok).done).rejects.toThrow(message);
  });
});
