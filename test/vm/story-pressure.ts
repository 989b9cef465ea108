// The host runs out of memory, then out of disk: who took it is evicted with Kubernetes' reasons, the others go on, and the pressure is over.
import { diskHog, memoryHog } from './manifests.ts';
import { expect, type Report } from './report.ts';
import { nodeName, type World } from './world.ts';

const minutes = 60_000;

interface Hog {
  readonly name: string;
  readonly manifest: object;
  readonly condition: 'MemoryPressure' | 'DiskPressure';
  /** What the pod's message has to say. */
  readonly message: RegExp;
}

/** One hog is evicted; all that ran before runs on under the same process ids. */
async function evicts(world: World, { name, manifest, condition, message }: Hog): Promise<string> {
  const { apply, kubectl, until, containers, restarts, callService } = world;
  const [idsBefore, restartsBefore] = [await containers(), await restarts()];
  const is = (status: string, limitMs: number) =>
    until(
      `${condition} is ${status}`,
      limitMs,
      () => kubectl('get', 'node', nodeName, '-o', `jsonpath={.status.conditions[?(@.type=="${condition}")].status}`),
      (answer) => answer === status,
    );
  await apply(manifest);
  await is('True', 15 * minutes);
  const text = await until(
    'the pod that took it is evicted',
    5 * minutes,
    () => kubectl('get', 'pod', name, '-o', 'jsonpath={.status.phase}|{.status.reason}|{.status.message}'),
    (answer) => answer.startsWith('Failed|'),
  );
  const [, reason, said = ''] = text.split('|');
  expect(reason === 'Evicted' && message.test(said), `the pod says ${text}`);
  const disrupted = await kubectl(
    ...['get', 'pod', name, '-o'],
    'jsonpath={.status.conditions[?(@.type=="DisruptionTarget")].reason}',
  );
  expect(disrupted === 'TerminationByKubelet', `the pod's condition DisruptionTarget says "${disrupted}"`);
  const startedMs = performance.now();
  await is('False', 10 * minutes);
  const seconds = Math.round((performance.now() - startedMs) / 1000);
  await kubectl('delete', 'pod', name, '--wait=true', '--timeout=300s');
  await until(
    'the node may be scheduled on again',
    3 * minutes,
    () => kubectl('get', 'node', nodeName, '-o', 'jsonpath={.spec.taints}'),
    (answer) => answer.trim() === '',
  );
  const idsAfter = await containers();
  expect(idsAfter === idsBefore, `containers before:\n${idsBefore}\nafter:\n${idsAfter}`);
  expect((await restarts()) === restartsBefore, 'a container was restarted');
  const answers = await callService(2);
  expect(
    answers.every((answer) => answer.startsWith('web-')),
    `the Service answered: ${answers.join(', ')}`,
  );
  return `${condition}, ${reason}: ${said.trim()} Over ${seconds} s later; the other pods go on`;
}

async function disk(world: World): Promise<string> {
  // Between the hard threshold of 10 % and a disk that is really full.
  const total = Number(await world.machine.run("df -m / | awk 'END { print $2 }'"));
  const hog = diskHog(Math.round(total * 0.05));
  const low = /The node was low on resource: ephemeral-storage\. Threshold quantity: /;
  return evicts(world, { name: 'disk-hog', manifest: hog, condition: 'DiskPressure', message: low });
}

export async function underPressure(world: World, report: Report): Promise<void> {
  // A container's memory is that of the host it is on.
  if (world.machine.kind === 'vm')
    await report.step('memory filled', () =>
      evicts(world, {
        name: 'memory-hog',
        manifest: memoryHog,
        condition: 'MemoryPressure',
        message: /The node was low on resource: memory\. Threshold quantity: 100Mi, available: /,
      }),
    );
  await report.step('disk filled', () => disk(world));
}
