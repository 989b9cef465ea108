// The daemon's systemd unit, where there is a systemd.
import { access } from 'node:fs/promises';
import { exec } from '../../lib/exec.ts';

export const unit = 'stevedore.service';

export interface Service {
  /** Undefined where it can be started; else why not, and what to do instead. */
  unavailable(): Promise<string | undefined>;
  /** Enables and starts it. */
  start(signal: AbortSignal): Promise<void>;
  /** Stops and disables it; does nothing where it is not there. */
  stop(): Promise<void>;
}

const there = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

export function createService(): Service {
  const unavailable = async (): Promise<string | undefined> => {
    if (!(await there('/run/systemd/system'))) return 'no systemd runs here';
    const { stdout } = await exec('systemctl', ['list-unit-files', unit, '--no-legend']).catch(() => ({ stdout: '' }));
    return stdout.includes(unit) ? undefined : `systemd knows no ${unit}: install the package, or copy systemd/${unit}`;
  };
  return {
    unavailable,
    async start(signal) {
      await exec('systemctl', ['daemon-reload'], { signal });
      await exec('systemctl', ['enable', unit], { signal });
      await exec('systemctl', ['restart', unit], { signal, timeoutMs: 120_000 });
    },
    async stop() {
      if ((await unavailable()) !== undefined) return;
      await exec('systemctl', ['disable', '--now', unit], { timeoutMs: 120_000 });
    },
  };
}
