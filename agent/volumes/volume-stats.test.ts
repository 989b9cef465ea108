// Statistics of volumes whose file system or driver is slow, or dead.
import { expect, it } from 'vitest';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import type { DriverStats, MountedVolume, VolumeHost } from './volume-driver.ts';
import { createVolumeStats } from './volume-stats.ts';

const sizes = (capacityBytes: number): DriverStats => ({ capacityBytes }) as DriverStats;
const volume = (path: string): MountedVolume =>
  ({ plugin: 'kubernetes.io/csi', path, readOnly: false, managed: false, measure: 'driver' }) as MountedVolume;

it('shows the others in time, and what answers late from then on; of one that died what it last said', async () => {
  const clock = createFakeClock();
  const asked = new Map<string, PromiseWithResolvers<DriverStats>>();
  const csi = {
    stats: ({ path = '' }: MountedVolume) => {
      const answer = Promise.withResolvers<DriverStats>();
      asked.set(path, answer);
      return answer.promise;
    },
  } as unknown as VolumeHost['csi'];
  const reader = createVolumeStats({ clock, csi, log: silentLog });
  const volumes = new Map([
    ['alive', volume('alive')],
    ['slow', volume('slow')],
  ]);
  const look = async (): Promise<Record<string, number | undefined>> => {
    const looking = reader.of('uid', volumes);
    // Reading alone starts the questions.
    await clock.advance(0);
    asked.get('alive')?.resolve(sizes(1));
    await clock.advance(2_000);
    return Object.fromEntries((await looking).map(({ name, capacityBytes }) => [name, capacityBytes]));
  };

  expect(await look()).toEqual({ alive: 1 });
  asked.get('slow')!.resolve(sizes(7));
  await clock.advance(0);
  expect(await look()).toEqual({ alive: 1, slow: 7 });

  // A minute later it is asked again, and is dead: its last figures stand, and it is asked once a minute only.
  await clock.advance(61_000);
  expect(await look()).toEqual({ alive: 1, slow: 7 });
  asked.clear();
  expect(await look()).toEqual({ alive: 1, slow: 7 });
  expect(asked.size).toBe(0);

  reader.forget('uid');
  expect(await look()).toEqual({ alive: 1 });
});
