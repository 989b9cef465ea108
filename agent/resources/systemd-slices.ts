// systemd's slices, made and set through busctl, which comes with systemd: no D-Bus library is worth having for four calls.
import { ExecError, exec } from '../../lib/exec.ts';
import type { UnitProperty } from './cgroup-files.ts';

export interface SystemdSlices {
  /** Makes the slice, or sets its properties where it is there. Resolves when systemd has taken it on. */
  start(slice: string, description: string, properties: readonly UnitProperty[]): Promise<void>;
  set(slice: string, properties: readonly UnitProperty[]): Promise<void>;
  /** Stopping what is not there succeeds. */
  stop(slice: string): Promise<void>;
}

const manager = ['org.freedesktop.systemd1', '/org/freedesktop/systemd1', 'org.freedesktop.systemd1.Manager'] as const;

const flat = (properties: readonly UnitProperty[]): string[] => [String(properties.length), ...properties.flat()];

const says = (error: unknown, words: RegExp): boolean => error instanceof ExecError && words.test(error.stderr);

export function createSystemdSlices(run: typeof exec = exec): SystemdSlices {
  const call = async (method: string, signature: string, args: readonly string[]): Promise<void> => {
    // `--` comes first: a slice's name may begin with a dash.
    await run('busctl', ['--', 'call', ...manager, method, signature, ...args], { timeoutMs: 30_000 });
  };
  const slices: SystemdSlices = {
    async start(slice, description, properties) {
      const all: UnitProperty[] = [
        ['Description', 's', description],
        ['DefaultDependencies', 'b', 'false'],
        ['CPUAccounting', 'b', 'true'],
        ['MemoryAccounting', 'b', 'true'],
        ['TasksAccounting', 'b', 'true'],
        ['IOAccounting', 'b', 'true'],
        ...properties,
      ];
      try {
        await call('StartTransientUnit', 'ssa(sv)a(sa(sv))', [slice, 'replace', ...flat(all), '0']);
      } catch (error) {
        if (!says(error, /already (exists|loaded)|already has|fragment file/i)) throw error;
        await slices.set(slice, properties);
        await call('StartUnit', 'ss', [slice, 'replace']);
      }
    },
    async set(slice, properties) {
      if (properties.length > 0) await call('SetUnitProperties', 'sba(sv)', [slice, 'true', ...flat(properties)]);
    },
    async stop(slice) {
      try {
        await call('StopUnit', 'ss', [slice, 'replace']);
      } catch (error) {
        if (!says(error, /not loaded|no such unit|not found/i)) throw error;
      }
    },
  };
  return slices;
}
