// `stevedore dev`: a cluster of this one machine in one command.
import type { Command } from 'commander';
import type { DevFlags } from './dev/dev-cluster.ts';

export function registerDev(program: Command): void {
  program
    .command('dev')
    .description('a control plane, a node and a demo on this machine')
    .option('--exit', 'end and clean up once the demo has answered')
    .option('--no-demo', 'start the cluster alone')
    .option('--data-dir <folder>', 'images, logs, certificates', '/var/lib/stevedore-dev')
    .option('--run-dir <folder>', 'sockets and state that need not outlive a reboot', '/run/stevedore-dev')
    .option('--container-runtime-endpoint <url>', 'use this runtime instead of starting a containerd')
    .option('--port <port>', 'port of the API server, on the address of the pods’ bridge', '6443')
    .option('--pod-cidr <range>', 'addresses of pods', '10.244.0.0/16')
    .option('--service-cidr <range>', 'addresses of Services', '10.96.0.0/16')
    .option('--hostname-override <name>', 'name of the Node, instead of the host name')
    .option('--verbose', 'show the control plane’s log')
    .action(async (flags: DevFlags) => {
      // Loaded only here: a node needs no control plane in memory.
      const { dev } = await import('./dev/dev-cluster.ts');
      process.exitCode = await dev(flags);
    });
}
