// The pause program, run: it waits, and ends when it is told.
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { imageArchitecture } from '../lib/oci-image.ts';
import { pauseExecutable } from './pause.ts';

describe('pause', () => {
  it.each(['SIGTERM', 'SIGINT'] as const)('runs until %s and exits 0', async (signal) => {
    const folder = await mkdtemp(join(tmpdir(), 'sv-pause-'));
    try {
      const path = join(folder, 'pause');
      await writeFile(path, pauseExecutable(imageArchitecture()), { mode: 0o755 });
      const child = spawn(path, { stdio: 'ignore' });
      const ended = new Promise((resolve) => child.on('exit', (code, by) => resolve(code ?? by)));
      await sleep(150);
      expect(child.exitCode).toBeNull();
      child.kill('SIGCHLD');
      await sleep(50);
      expect(child.exitCode).toBeNull();
      child.kill(signal);
      expect(await ended).toBe(0);
    } finally {
      await rm(folder, { recursive: true, force: true });
    }
  });

  it('is an ELF executable of the asked machine, one instruction aligned segment', () => {
    for (const [architecture, machine] of [
      ['amd64', 62],
      ['arm64', 183],
    ] as const) {
      const elf = pauseExecutable(architecture);
      expect(elf.subarray(0, 4).toString('latin1')).toBe('\x7fELF');
      expect(elf.readUInt16LE(18)).toBe(machine);
      expect(elf.readBigUInt64LE(96)).toBe(BigInt(elf.length));
      expect(elf.readBigUInt64LE(elf.length - 8)).toBe(0x14002n);
    }
  });
});
