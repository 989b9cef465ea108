// 250 pods come and go in bursts, ten times over; ends with 1 where anything of them is left, or the daemon grew. Needs root.
// `npm run soak:pods [-- --pods 250 --times 10 --containerd 1.6|2.x --minutes 10]`; minutes: for each direction of a burst.
import { parseArgs } from 'node:util';
import { startLabNode } from '../lab/node.ts';
import { growth, soakPods } from '../lab/soak-pods.ts';

const { values } = parseArgs({
  options: {
    pods: { type: 'string', default: '250' },
    times: { type: 'string', default: '10' },
    containerd: { type: 'string', default: '1.6' },
    minutes: { type: 'string', default: '10' },
  },
});
const pods = Number(values.pods);

const node = await startLabNode({
  binary: values.containerd as '1.6' | '2.x',
  kubelet: { maxPods: pods + 10, serializeImagePulls: false },
  only: 'agent',
});
try {
  let at = 0;
  const rounds = await soakPods(node, {
    pods,
    times: Number(values.times),
    timeoutMs: Number(values.minutes) * 60_000,
    onRound: ({ upMs, downMs, left, forgotten, residentMiB, anonymousMiB, files, threads }) =>
      process.stdout.write(
        `burst ${String(++at).padStart(2)}: ${pods} ready after ${(upMs / 1000).toFixed(1)} s, gone after ${(downMs / 1000).toFixed(1)} s; ` +
          `daemon ${residentMiB} MiB resident, ${anonymousMiB} anonymous, ${files} files, ${threads} threads; ` +
          `left: ${Object.keys(left).length === 0 ? 'nothing' : JSON.stringify(left)}${forgotten === 0 ? '' : `; shims that containerd itself forgot: ${forgotten}`}\n`,
      ),
  });
  const left = rounds.at(-1)?.left ?? {};
  const grown = growth(rounds, { anonymousMiB: 24, files: 8 });
  for (const what of grown) process.stdout.write(`grew: ${what}\n`);
  if (Object.keys(left).length > 0 || grown.length > 0) {
    process.stdout.write(await node.report());
    process.exitCode = 1;
  }
} finally {
  await node.stop();
}
