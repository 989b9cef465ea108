import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../lib/log.ts';
import { applyKernelSettings } from './kernel-settings.ts';

let procSys = '';
const asWanted = {
  'vm/overcommit_memory': 1,
  'vm/panic_on_oom': 0,
  'kernel/panic': 10,
  'kernel/panic_on_oops': 1,
  'kernel/keys/root_maxkeys': 1_000_000,
  'kernel/keys/root_maxbytes': 25_000_000,
};
const put = async (values: Readonly<Record<string, number>>): Promise<void> => {
  for (const [path, value] of Object.entries(values)) {
    await mkdir(dirname(join(procSys, path)), { recursive: true });
    await writeFile(join(procSys, path), `${value}\n`);
  }
};
const numberIn = async (path: string): Promise<number> => Number(await readFile(join(procSys, path), 'utf8'));

beforeEach(async () => {
  procSys = await mkdtemp(join(tmpdir(), 'kernel-settings-'));
});
afterEach(() => rm(procSys, { recursive: true, force: true }));

const said = () => {
  const lines: string[] = [];
  const note = (message: string, fields?: object): void => void lines.push(`${message} ${JSON.stringify(fields)}`);
  return { lines, log: { ...silentLog, info: note, warn: note } };
};

describe('the settings of the kernel', () => {
  it("become the kubelet's, and each is told of", async () => {
    await put({ ...asWanted, 'vm/overcommit_memory': 0, 'kernel/panic': 0 });
    const { lines, log } = said();
    await applyKernelSettings({ log }, { protect: false, procSys });
    for (const [path, value] of Object.entries(asWanted)) expect(await numberIn(path), path).toBe(value);
    expect(lines).toEqual([
      'a setting of the kernel is that of a node now {"setting":"vm.overcommit_memory","was":0,"is":1}',
      'a setting of the kernel is that of a node now {"setting":"kernel.panic","was":0,"is":10}',
    ]);
    await applyKernelSettings({ log }, { protect: false, procSys });
    expect(lines).toHaveLength(2);
  });

  it('are left alone under protectKernelDefaults, which names what is otherwise', async () => {
    await put({ ...asWanted, 'vm/overcommit_memory': 0, 'kernel/panic_on_oops': 0 });
    await expect(applyKernelSettings({ log: silentLog }, { protect: true, procSys })).rejects.toThrow(
      'vm.overcommit_memory is 0 where 1 is wanted; kernel.panic_on_oops is 0 where 1 is wanted. Set them (sysctl -w vm.overcommit_memory=1 kernel.panic_on_oops=1,',
    );
    expect(await numberIn('vm/overcommit_memory')).toBe(0);
    await put(asWanted);
    await applyKernelSettings({ log: silentLog }, { protect: true, procSys });
  });

  it('that are not there, or cannot be set, keep nobody from running', async () => {
    await put({ 'vm/overcommit_memory': 0 });
    const { lines, log } = said();
    await mkdir(join(procSys, 'kernel'), { recursive: true });
    // One that the kernel lets nobody write.
    await symlink('/proc/sys/kernel/ngroups_max', join(procSys, 'kernel/panic'));
    await applyKernelSettings({ log }, { protect: false, procSys });
    expect(lines).toHaveLength(2);
    expect(lines[1]).toContain('cannot be set here; pods run all the same {"setting":"kernel.panic","is":65536');
    expect(await numberIn('vm/overcommit_memory')).toBe(1);
  });
});
