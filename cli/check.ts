// `stevedore check`: whether this host can be a node, without changing anything.
import { hostname } from 'node:os';
import type { Command } from 'commander';
import { defaultEndpoint, endpointOf } from './join.ts';
import { createHostReader } from './join/host-reader.ts';
import { inventoryText, readInventory } from './join/inventory.ts';
import { blocking, findingsText, runPreflight } from './join/preflight.ts';

interface CheckFlags {
  nodeName?: string;
  criSocket?: string;
  only?: string;
  json?: boolean;
}

export function registerCheck(program: Command): void {
  program
    .command('check')
    .description('whether this host can be a node; changes nothing')
    .option('--node-name <name>', 'name of the node, instead of the host name')
    .option('--cri-socket <socket>', 'socket of the container runtime', defaultEndpoint)
    .option('--only <half>', 'agent: leave the Service proxy out')
    .option('--json', 'print JSON')
    .action(async (flags: CheckFlags) => {
      const findings = await runPreflight(createHostReader(), {
        nodeName: (flags.nodeName ?? hostname()).trim().toLowerCase(),
        runtimeEndpoint: endpointOf(flags.criSocket),
        failSwapOn: true,
        failCgroupV1: false,
        agentPort: 10_250,
        withProxy: flags.only !== 'agent',
        cniConfDir: '/etc/cni/net.d',
        kubeconfig: '',
      });
      const inventory = await readInventory();
      const wrong = blocking(findings, []);
      const verdict =
        wrong.length === 0 ? 'this host can be a node\n' : `${wrong.length} things are to be put right first\n`;
      process.stdout.write(
        flags.json
          ? `${JSON.stringify({ host: inventory, findings }, null, 2)}\n`
          : inventoryText(inventory) + findingsText(findings) + verdict,
      );
      process.exitCode = wrong.length === 0 ? 0 : 1;
    });
}
