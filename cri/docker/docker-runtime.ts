// The runtime port on Docker Engine: one daemon, no cri-dockerd beside it. What the CRI has and Docker lacks (pod networks, annotations,
// logs in CRI's format) is kept by us: in labels, and in the state folder.
import { join } from 'node:path';
import type { Clock } from '../../lib/clock.ts';
import { describeError, type Log } from '../../lib/log.ts';
import type { Tracer } from '../../lib/tracing/tracer.ts';
import { RuntimeError } from '../errors.ts';
import { pauseImageName } from '../local-images.ts';
import type { Runtime } from '../runtime.ts';
import type { RuntimeCondition } from '../types.ts';
import { createCni } from './cni.ts';
import { createCommands } from './commands.ts';
import { openDocker } from './connection.ts';
import { createContainers } from './containers.ts';
import { dockerEvents } from './events.ts';
import { createFacts } from './facts.ts';
import { createImages } from './images.ts';
import { createLayers } from './layers.ts';
import { createContainerLogs } from './logs.ts';
import { createMaking } from './making.ts';
import { createPortForwards } from './port-forward.ts';
import { createSandboxes } from './sandboxes.ts';
import { traced } from './traced.ts';

export interface DockerRuntimeDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** Where tracing is switched on. */
  readonly tracer?: Tracer | undefined;
}

export interface DockerRuntimeOptions {
  readonly socketPath: string;
  /** Folder of CNI network configurations. Undefined: pods are put on Docker's own bridge. */
  readonly cniConfDir: string | undefined;
  /** Folders of CNI plugins, the first first. */
  readonly cniBinDirs: readonly string[];
  /** Where what Docker cannot remember is kept: networks and how far logs were copied. Must outlive the agent. */
  readonly stateDir: string;
  /** Image of sandboxes. Default: our own, which is made where it is missing. */
  readonly sandboxImage?: string;
  /** Copied into sandboxes that are told no DNS. Default /etc/resolv.conf. */
  readonly resolvConf?: string;
}

export function createDockerRuntime(deps: DockerRuntimeDeps, options: DockerRuntimeOptions): Runtime {
  const { clock, log } = deps;
  const sandboxImage = options.sandboxImage ?? pauseImageName;
  const plain = openDocker(clock, options.socketPath);
  const connection: typeof plain = {
    ...plain,
    async call(...args) {
      try {
        return await plain.call(...args);
      } catch (error) {
        if (error instanceof RuntimeError) facts.doubt(error);
        throw error;
      }
    },
  };
  const facts = createFacts(connection);
  const making = createMaking(connection);
  const logs = createContainerLogs({ connection, clock, log }, options.stateDir);
  const forwards = createPortForwards({ clock });
  const cni =
    options.cniConfDir === undefined
      ? undefined
      : createCni({ log }, { confDir: options.cniConfDir, binDirs: options.cniBinDirs, stateDir: options.stateDir });
  let podCidr = '';
  const layers = createLayers({ connection, clock, log });
  const containers = createContainers({ connection, clock, facts, making, logs, layers });
  const sandboxes = createSandboxes(
    {
      connection,
      clock,
      log,
      facts,
      making,
      cni,
      podCidr: () => podCidr,
      released: forwards.release,
      removeContainer: containers.removeContainer,
    },
    { sandboxImage, resolvConf: options.resolvConf ?? '/etc/resolv.conf' },
  );
  const images = createImages({ connection, clock, dockerRoot: async () => (await facts.get()).rootDir });
  const commands = createCommands({ connection, clock });

  const closing = new AbortController();
  let adopted: Promise<void> | undefined;

  /** Takes up what an earlier process left, as soon as the daemon answers. Who listens to events is the node's agent; others only look. */
  async function adopt(signal: AbortSignal): Promise<void> {
    for (let delayMs = 100; !signal.aborted; delayMs = Math.min(2_000, delayMs * 2)) {
      try {
        await containers.adopt(signal);
        await sandboxes.adopt(signal);
        return;
      } catch (error) {
        log.debug('taking up Docker’s containers failed; it is tried again', { error: describeError(error) });
      }
      await clock.sleep(delayMs, signal).catch(() => undefined);
    }
  }

  async function networkReady(): Promise<RuntimeCondition> {
    const trouble = cni ? await cni.trouble() : await bridgeTrouble();
    const ready = trouble === undefined;
    return {
      type: 'NetworkReady',
      status: ready,
      reason: ready ? '' : 'NetworkPluginNotReady',
      message: ready ? '' : `docker: network plugin is not ready: ${trouble}`,
    };
  }

  async function bridgeTrouble(): Promise<string | undefined> {
    const found = await connection.call('Status', undefined, 30_000, (abortSignal) =>
      connection.docker.listNetworks({ filters: { name: ['bridge'] }, abortSignal }),
    );
    return found.some(({ Name, Driver }) => Name === 'bridge' && Driver === 'bridge')
      ? undefined
      : 'no CNI configuration folder is named, and the daemon has no bridge (it runs with --bridge none)';
  }

  const runtime: Runtime = {
    async version(call) {
      const { version } = await facts.get(call);
      return { runtimeName: 'docker', runtimeVersion: version.Version, runtimeApiVersion: version.ApiVersion };
    },

    async status(call) {
      const { cgroupDriver, rootDir, runtimes } = await facts.get(call);
      // The facts may be old: this asks whether it answers now.
      await connection.call('Status', call, 30_000, (abortSignal) => connection.daemon.ping({ abortSignal }));
      const handlers = ['', ...runtimes];
      return {
        conditions: [{ type: 'RuntimeReady', status: true, reason: '', message: '' }, await networkReady()],
        runtimeHandlers: handlers.map((name) => ({ name, recursiveReadOnlyMounts: false, userNamespaces: false })),
        supplementalGroupsPolicy: false,
        cgroupDriver,
        snapshotterRoot: join(rootDir),
        sandboxImage,
      };
    },

    async updatePodCidr(cidr) {
      podCidr = cidr;
    },

    ...withoutAdopt(sandboxes),
    ...withoutAdopt(containers),
    ...images,
    ...commands,

    reopenContainerLog: (id) => logs.reopen(id),

    async checkpointContainer() {
      throw new RuntimeError(
        'unimplemented',
        'CheckpointContainer',
        'Docker cannot do this: checkpoints that Kubernetes can read',
      );
    },

    async portForward(sandbox) {
      const pidOf = async (): Promise<number> => {
        const { pid } = await sandboxes.sandboxStatus(sandbox, { verbose: true });
        if (!pid) throw new RuntimeError('invalid', 'PortForward', `sandbox ${sandbox} is not running`);
        return pid;
      };
      await pidOf();
      return { kind: 'duplex', open: forwards.opener(sandbox, pidOf) };
    },

    events(signal) {
      adopted ??= adopt(closing.signal);
      const settled = (id: string): Promise<void> => logs.drained(id, 2_000);
      return dockerEvents({ connection, clock, log, settled }, signal);
    },

    async close() {
      closing.abort(new Error('closed'));
      forwards.close();
      await logs.close();
      await adopted;
    },
  };
  return deps.tracer ? traced(runtime, deps.tracer) : runtime;
}

function withoutAdopt<T extends { adopt: unknown }>(part: T): Omit<T, 'adopt'> {
  const { adopt: _, ...rest } = part;
  return rest;
}
