// The soak of the proxy in short: `npm run soak:proxy` is the long one.
import { expect, it } from 'vitest';
import { soakProxy } from '../soak/proxy-soak.ts';

it.each(['iptables', 'nftables'] as const)(
  '%s: after random changes, restarts and harm by others, the kernel equals the model',
  async (mode) => {
    const result = await soakProxy({
      mode,
      services: 60,
      seconds: 5,
      rate: 40,
      checkpointSeconds: 1,
      seed: 7,
      report: (line) => console.log(line),
    });
    expect(result.changes).toBeGreaterThan(30);
    expect(result.restarts + result.harms).toBeGreaterThan(0);
  },
);
