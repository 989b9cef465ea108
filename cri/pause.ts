// The process that holds a pod's namespaces open: it sleeps, reaps what is orphaned onto it where the pod shares its process namespace,
// and ends on SIGTERM or SIGINT. Emitted as a static executable of under 300 bytes, so that nothing has to be downloaded or compiled.
import type { ImageArchitecture } from '../lib/oci-image.ts';

// Both programs are the same, with SIGCHLD, SIGTERM and SIGINT blocked so that even process 1 of a namespace has them queued:
//
//     rt_sigprocmask(SIG_BLOCK, &set, NULL, 8)
//   wait:
//     signal = rt_sigtimedwait(&set, NULL, NULL, 8)
//     if (signal == SIGINT || signal == SIGTERM) exit(0)
//   reap:
//     if (wait4(-1, NULL, WNOHANG, NULL) > 0) goto reap
//     goto wait
//   set: .quad 0x14002
const programs: Record<ImageArchitecture, { machine: number; code: string }> = {
  amd64: {
    machine: 62,
    code: `
      b80e000000 31ff 488d3552000000 31d2 41ba08000000 0f05
      b880000000 488d3d3c000000 31f6 31d2 41ba08000000 0f05
      83f802 7421 83f80f 741c
      b83d000000 bfffffffff 31f6 ba01000000 4531d2 0f05 85c0 7fe6 ebc2
      b83c000000 31ff 0f05 90
      0240010000000000`,
  },
  arm64: {
    machine: 183,
    code: `
      e81080d2 000080d2 41030010 020080d2 030180d2 010000d4
      281180d2 a0020010 010080d2 020080d2 030180d2 010000d4
      1f0800f1 80010054 1f3c00f1 40010054
      882080d2 00008092 010080d2 220080d2 030080d2 010000d4 1f0000f1 2cffff54 eeffff17
      a80b80d2 000080d2 010000d4
      0240010000000000`,
  },
};

/** An ELF executable with one segment, read-only and executable, that starts at its first instruction. */
export function pauseExecutable(architecture: ImageArchitecture): Buffer {
  const { machine, code } = programs[architecture];
  const text = Buffer.from(code.replaceAll(/\s/g, ''), 'hex');
  const base = 0x400000n;
  const headers = 64 + 56;
  const elf = Buffer.alloc(headers);
  elf.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]); // magic, 64 bit, little-endian, version 1
  elf.writeUInt16LE(2, 16); // executable
  elf.writeUInt16LE(machine, 18);
  elf.writeUInt32LE(1, 20);
  elf.writeBigUInt64LE(base + BigInt(headers), 24); // entry
  elf.writeBigUInt64LE(64n, 32); // program headers
  elf.writeUInt16LE(64, 52);
  elf.writeUInt16LE(56, 54);
  elf.writeUInt16LE(1, 56);
  elf.writeUInt32LE(1, 64); // PT_LOAD
  elf.writeUInt32LE(5, 68); // readable, executable
  elf.writeBigUInt64LE(0n, 72);
  elf.writeBigUInt64LE(base, 80);
  elf.writeBigUInt64LE(base, 88);
  elf.writeBigUInt64LE(BigInt(headers + text.length), 96);
  elf.writeBigUInt64LE(BigInt(headers + text.length), 104);
  elf.writeBigUInt64LE(0x10000n, 112); // aligned for kernels with pages of 64 KiB too
  return Buffer.concat([elf, text]);
}
