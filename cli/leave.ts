// `stevedore leave`: undoes `stevedore join`.
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import type { Command } from 'commander';
import { removeIptablesMarks } from '../agent/node/iptables-chains.ts';
import { createMounter } from '../agent/volumes/mounter.ts';
import { createKubeClient } from '../kube/http-client.ts';
import { systemClock as clock } from '../lib/clock.ts';
import { exec } from '../lib/exec.ts';
import { createLog, describeError } from '../lib/log.ts';
import { cleanupProxy } from '../proxy/cleanup.ts';
import { parseDocuments } from './config/documents.ts';
import { combineConfiguration } from './config/load.ts';
import { leaveNode } from './join/leave-node.ts';
import { removePodCgroups } from './join/remove-cgroups.ts';
import { createService } from './join/service.ts';
import { configFile, endpointOf, kubernetesDir } from './join.ts';
import { openRuntime } from './open-runtime.ts';

interface LeaveFlags {
  nodeName?: string;
  criSocket?: string;
  force?: boolean;
}

export function registerLeave(program: Command): void {
  program
    .command('leave')
    .description('undo `join`: stop the daemon, end its pods, remove its rules and files')
    .option('--node-name <name>', 'name of the node, instead of the configured one')
    .option('--cri-socket <socket>', 'socket of the container runtime, instead of the configured one')
    .option('-f, --force', 'leave although pods run here that could be moved first')
    .action(async (flags: LeaveFlags) => {
      process.exitCode = await leave(flags);
    });
}

async function leave(flags: LeaveFlags): Promise<number> {
  const say = (text: string): void => void process.stdout.write(text);
  const log = createLog({ level: 'warn', format: 'text' });
  const stopping = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stopping.abort(new Error(signal)));
  // A host whose configuration is gone or broken can leave all the same, by flags and defaults.
  const known = await readFile(configFile, 'utf8')
    .then((text) => combineConfiguration(parseDocuments(configFile, text), [], []))
    .catch(() => undefined);
  const endpoint = flags.criSocket
    ? endpointOf(flags.criSocket)
    : (known?.kubelet.containerRuntimeEndpoint ?? endpointOf(undefined));
  const rootDir = known?.stevedore.rootDir ?? '/var/lib/kubelet';
  const cni = known?.stevedore.cni ?? { confDir: '/etc/cni/net.d', binDir: '/opt/cni/bin' };
  const runtime = await openRuntime({ clock, log }, { endpoint, rootDir, cni });
  try {
    await leaveNode(
      {
        service: createService(),
        runtime,
        mounter: createMounter(),
        log,
        connect: (config) => createKubeClient({ clock, log }, config),
        removeCgroups: () => removePodCgroups({ clock }, { cgroupRoot: known?.kubelet.cgroupRoot ?? '' }),
        reloadLogind: async () =>
          void (await exec('systemctl', ['kill', '--signal=HUP', 'systemd-logind.service']).catch(() => undefined)),
        async removeRules(signal) {
          await removeIptablesMarks(exec, signal);
          return cleanupProxy({ exec, clock, log }, { kubeProxy: false }, signal);
        },
        say,
      },
      {
        nodeName: (flags.nodeName ?? (known?.stevedore.hostnameOverride || hostname())).trim().toLowerCase(),
        force: flags.force ?? false,
        kubernetesDir,
        configFile,
        rootDir,
      },
      stopping.signal,
    );
    return 0;
  } catch (error) {
    process.stderr.write(`stevedore: ${describeError(error)}\n`);
    return 1;
  } finally {
    await runtime.close();
  }
}
