// What the daemon takes while there is nothing to do.
import { setTimeout as sleep } from 'node:timers/promises';
import type { World } from './world.ts';

/** Processor time of a minute, and memory at its end. */
export async function idleFigures({ machine }: World): Promise<string> {
  const sample = () =>
    machine.run(
      "pid=$(systemctl show -p MainPID --value stevedore); awk '{print $14 + $15}' /proc/$pid/stat; awk '/VmRSS|RssAnon/ {print $2}' /proc/$pid/status",
    );
  const before = Number((await sample()).split('\n')[0]);
  await sleep(60_000);
  const [ticks = '0', rss = '0', anonymous = '0'] = (await sample()).trim().split('\n');
  return `${((Number(ticks) - before) / 100).toFixed(2)} s of ${machine.kind === 'vm' ? '(emulated) ' : ''}CPU in a minute, ${Math.round(Number(rss) / 1024)} MiB resident, ${Math.round(Number(anonymous) / 1024)} MiB anonymous`;
}

/** A node on which no pod has been; what follows a join (certificates, first listings) has half a minute to end. */
export async function fresh(world: World): Promise<string> {
  await sleep(30_000);
  return idleFigures(world);
}
