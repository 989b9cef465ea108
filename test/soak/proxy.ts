// `npm run soak:proxy -- [--mode nftables] [--minutes 60] [--services 2000] [--rate 10] [--checkpoint 20] [--seed 1]`: as root. Ends with 1 where
// the kernel's rules did not come to equal the model.
import { parseArgs } from 'node:util';
import { soakProxy } from './proxy-soak.ts';

const { values } = parseArgs({
  options: {
    mode: { type: 'string', default: 'nftables' },
    minutes: { type: 'string', default: '60' },
    services: { type: 'string', default: '2000' },
    rate: { type: 'string', default: '10' },
    checkpoint: { type: 'string', default: '20' },
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
  },
});
if (values.mode !== 'iptables' && values.mode !== 'nftables') throw new Error('--mode is iptables or nftables');

try {
  const result = await soakProxy({
    mode: values.mode,
    services: Number(values.services),
    seconds: Number(values.minutes) * 60,
    rate: Number(values.rate),
    checkpointSeconds: Number(values.checkpoint),
    seed: Number(values.seed),
    report: (line) => console.log(`${new Date().toISOString()} ${line}`),
  });
  const sorted = result.settledMs.toSorted((a, b) => a - b);
  console.log(
    JSON.stringify({
      ...result,
      seed: values.seed,
      settledMs: { p50: sorted[Math.floor(sorted.length / 2)], max: sorted.at(-1) },
    }),
  );
} catch (error) {
  console.error(error);
  process.exitCode = 1;
}
