// What a pod is made of, brought together from the rooms that know: folders and cgroup, sandbox and container configuration, image,
// volumes, hooks.
import { mkdir, readdir, readFile, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { ContainerId, Mount, SandboxStatus } from '../../cri/types.ts';
import { type EventRecorder, podTarget } from '../../kube/events.ts';
import type { ObjectCache } from '../../kube/object-cache.ts';
import { resources } from '../../kube/resources.ts';
import type { RuntimeClass, Service } from '../../kube/types/core.ts';
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import type { Clock } from '../../lib/clock.ts';
import { createFileReader } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import { type ContainerFacts, containerConfig } from '../containers/container-config.ts';
import { ConfigError } from '../containers/config-error.ts';
import { podDns } from '../containers/dns.ts';
import { readEnvFile } from '../containers/env-file.ts';
import { containerEnv } from '../containers/env.ts';
import { podHostname } from '../containers/hostname.ts';
import { hostsFile, hostsMount, wantsHostsFile, writeHostsFile } from '../containers/hosts-file.ts';
import { containerLogDirectory, podLogDirectory, restartCountOfLogs } from '../containers/log-path.ts';
import type { UserNamespace } from '../containers/namespaces.ts';
import type { ContainerDevices } from '../node/devices/container-devices.ts';
import { type SandboxFacts, sandboxConfig } from '../containers/sandbox-config.ts';
import { createTerminationLog } from '../containers/termination-message.ts';
import { isStaticPod } from '../resources/critical.ts';
import type { PodVolumes } from '../volumes/pod-volumes.ts';
import type { ContainerLinks } from './container-links.ts';
import type { PodParts } from './pod-parts.ts';
import type { ReadyImage } from './memory.ts';
import { isHostNetwork, newestOf, type ObservedPod } from './observed.ts';

export interface PodCgroupsPart {
  ensure(pod: Pod): Promise<void>;
  parentFor(pod: Pod): string;
  /** False where it could not be removed yet. */
  remove(uid: string): Promise<boolean>;
}

export interface PodPartsDeps {
  readonly clock: Clock;
  readonly events: EventRecorder;
  readonly volumes: PodVolumes;
  readonly cgroups: PodCgroupsPart;
  /** Absent on a node without an API server. */
  readonly objects: ObjectCache | undefined;
  image(pod: Pod, container: Container, signal: AbortSignal): Promise<ReadyImage>;
  /** What device plugins want done for the container; undefined where it has no devices. */
  devices(uid: string, container: string): Promise<ContainerDevices | undefined>;
  runtimeClass(name: string, signal?: AbortSignal): Promise<RuntimeClass | undefined>;
  /** Undefined until Services have been listed once. */
  services(): Iterable<Service> | undefined;
  hostIps(): readonly string[];
  allocatable(): Readonly<ResourceList>;
  hook: PodParts['hook'];
  created: PodParts['created'];
  readonly links: ContainerLinks;
  /** For a metric. */
  countStart?(pod: Pod, container: string): void;
  readonly log: Log;
  resize: PodParts['resize'];
  /** A resize is under way: the pod's cgroup may not have room yet for a container made now. */
  resizing(uid: string): boolean;
  /** The user namespace of a pod with hostUsers: false. */
  userns(pod: Pod, runtimeHandler: string): Promise<UserNamespace | undefined>;
  source(uid: string): { readonly source: 'api' | 'file' | 'http'; readonly atMs: number };
}

export interface PodPartsOptions {
  readonly rootDir: string;
  readonly clusterDns: readonly string[];
  readonly clusterDomain: string;
  /** Path of the host's resolv.conf; empty: none. */
  readonly resolvConf: string;
  readonly facts: ContainerFacts & SandboxFacts;
}

const configFailed = (error: unknown): never => {
  if (!(error instanceof ConfigError)) throw error;
  throw Object.assign(new Error(error.message, { cause: error }), { reason: 'CreateContainerConfigError' });
};

export function createPodParts(deps: PodPartsDeps, options: PodPartsOptions): PodParts {
  const { volumes, cgroups, events } = deps;
  const { facts } = options;
  const podDirectory = (uid: string): string => join(options.rootDir, 'pods', uid);

  const runtimeHandler = async (pod: Pod): Promise<string> => {
    const name = pod.spec.runtimeClassName;
    if (!name) return '';
    const runtimeClass = await deps.runtimeClass(name);
    if (!runtimeClass)
      throw new ConfigError(`failed to get sandbox runtime: runtimeclass.node.k8s.io "${name}" not found`);
    return runtimeClass.handler;
  };

  const readResolvConf = options.resolvConf === '' ? undefined : createFileReader(options.resolvConf);
  const dnsOf = async (pod: Pod) => {
    const hostResolvConf = await readResolvConf?.().catch(() => '');
    const made = podDns(pod, {
      clusterDns: options.clusterDns,
      clusterDomain: options.clusterDomain,
      hostResolvConf,
      nodeIps: deps.hostIps(),
    });
    for (const { reason, message } of made.events) events.record(podTarget(pod), 'Warning', reason, message);
    return made.dns;
  };

  const sandboxOf = async (pod: Pod, attempt: number) => {
    const handler = await runtimeHandler(pod);
    const config = sandboxConfig(
      {
        pod,
        attempt,
        seen: deps.source(pod.metadata.uid ?? ''),
        name: podHostname(pod, options.clusterDomain),
        dns: await dnsOf(pod),
        cgroupParent: cgroups.parentFor(pod),
        userns: await deps.userns(pod, handler),
        volumeGroups: volumes.supplementalGroups(pod),
      },
      facts,
    );
    return { config, runtimeHandler: handler };
  };

  const podIpsOf = (pod: Pod, sandbox: SandboxStatus): readonly string[] =>
    isHostNetwork(pod) ? deps.hostIps() : sandbox.ips;

  const envOf = (pod: Pod, container: Container, podIps: readonly string[], signal: AbortSignal) => {
    const holder = pod.metadata.uid ?? '';
    return containerEnv(
      {
        configMap: async (namespace, name, inner) =>
          deps.objects?.get(resources.configMaps, { namespace, name }, holder, inner),
        secret: async (namespace, name, inner) =>
          deps.objects?.get(resources.secrets, { namespace, name }, holder, inner),
        services: deps.services,
        fileKey: async (_pod, volume, path, key) =>
          readEnvFile(join(podDirectory(holder), 'volumes', 'kubernetes.io~empty-dir', volume), path, key),
      },
      pod,
      container,
      { hostIps: deps.hostIps(), podIps, allocatable: deps.allocatable(), isStatic: isStaticPod(pod) },
      signal,
    );
  };

  /** A runtime that has forgotten its containers must not make the restart count fall. Makes the folder of the logs. */
  const restartCountOf = async (
    pod: Pod,
    container: Container,
    attempt: number,
    observed: ObservedPod,
  ): Promise<number> => {
    const logs = containerLogDirectory(facts.podLogsDirectory, pod, container.name);
    if (newestOf(observed, container.name)) return attempt;
    await mkdir(logs, { recursive: true, mode: 0o755 });
    return Math.max(attempt, restartCountOfLogs(await readdir(logs)));
  };

  const hostsOf = async (pod: Pod, container: Container, podIps: readonly string[]): Promise<Mount | undefined> => {
    if (!wantsHostsFile(pod, container, podIps)) return undefined;
    const directory = podDirectory(pod.metadata.uid ?? '');
    const hostFile = isHostNetwork(pod) ? await readFile('/etc/hosts', 'utf8').catch(() => '') : '';
    await writeHostsFile(directory, hostsFile(pod, podHostname(pod, options.clusterDomain), podIps, hostFile));
    return hostsMount(directory, false);
  };

  return {
    async prepare(pod) {
      const uid = pod.metadata.uid ?? '';
      await Promise.all([
        mkdir(join(podDirectory(uid), 'volumes'), { recursive: true, mode: 0o750 }),
        mkdir(podLogDirectory(facts.podLogsDirectory, pod), { recursive: true, mode: 0o755 }),
        cgroups.ensure(pod),
      ]);
    },

    sandbox: sandboxOf,

    async container({ pod, container, attempt, sandbox, observed, image }, signal) {
      const uid = pod.metadata.uid ?? '';
      const directory = podDirectory(uid);
      const podIps = podIpsOf(pod, sandbox);
      if (deps.resizing(uid)) await deps.resize(pod, observed);
      try {
        const insideOf = async () => {
          const [podEnv, plugged] = await Promise.all([
            envOf(pod, container, podIps, signal),
            deps.devices(uid, container.name),
          ]);
          const env = { ...plugged?.envs, ...podEnv };
          const [made, terminationLog] = await Promise.all([
            volumes.mountsFor(pod, container, env, signal),
            createTerminationLog(directory, container, false),
          ]);
          return { plugged, env, ...made, terminationLog };
        };
        const [inside, { config: sandboxConfig }, handler, restartCount, hosts] = await Promise.all([
          insideOf(),
          sandboxOf(pod, sandbox.metadata.attempt),
          runtimeHandler(pod),
          restartCountOf(pod, container, attempt, observed),
          hostsOf(pod, container, podIps),
        ]);
        const { plugged, env, mounts, devices, terminationLog } = inside;
        const own = [...mounts, ...(terminationLog ? [terminationLog] : []), ...(hosts ? [hosts] : [])];
        const targetName = pod.spec.ephemeralContainers?.find(
          (each) => each.name === container.name,
        )?.targetContainerName;
        const config = containerConfig(
          {
            pod,
            container,
            restartCount,
            imageRef: image.imageRef,
            imageUser: { uid: image.uid, username: image.username },
            runtimeHandler: handler,
            env,
            mounts: [...own, ...(plugged?.mounts ?? [])],
            devices: [...devices, ...(plugged?.devices ?? [])],
            ...(plugged ? { cdiDevices: plugged.cdiDevices, annotations: plugged.annotations } : {}),
            volumeGroups: volumes.supplementalGroups(pod),
            userns: await deps.userns(pod, handler),
            target: targetName === undefined ? undefined : targetId(observed, targetName),
          },
          facts,
        );
        return { config, sandboxConfig };
      } catch (error) {
        return configFailed(error);
      }
    },

    image: (pod, container, signal) => deps.image(pod, container, signal),
    setUpVolumes: (pod, signal) => volumes.setUp(pod, signal),
    tearDownVolumes: (uid, signal) => volumes.tearDown(uid, signal),
    async removeCgroup(uid) {
      if (!(await cgroups.remove(uid))) throw new Error('the pod’s cgroup is still in use');
    },

    async removeFiles(uid, pod) {
      await rm(podLogDirectory(facts.podLogsDirectory, pod), { recursive: true, force: true });
      await removePodDirectory(podDirectory(uid), () => volumes.held(uid));
    },

    hook: deps.hook,
    created: deps.created,
    started(pod, container, id, logPath) {
      deps.countStart?.(pod, container.name);
      deps.links
        .add(pod, container.name, id, logPath)
        .catch((error: unknown) => deps.log.warn('a log has no link in the older place', { logPath, error }));
    },
    removed: (pod, { metadata, id, logPath }) => deps.links.remove(pod, metadata.name, id, logPath),
    resize: deps.resize,
  };
}

function targetId(observed: Parameters<typeof newestOf>[0], name: string): ContainerId | undefined {
  const target = newestOf(observed, name);
  return target?.state === 'running' ? target.id : undefined;
}

/**
 * Removes a pod's folder, what we made in it and nothing else: volumes were taken down before, and a folder that still has something in
 * it, a mount say, is left and said. What only leads to hidden mounts was told of with the volumes: it stays until they have gone.
 */
export async function removePodDirectory(directory: string, hidden: () => Promise<readonly string[]>): Promise<void> {
  await rm(join(directory, 'etc-hosts'), { force: true });
  await rm(join(directory, 'containers'), { recursive: true, force: true });
  for (const name of ['volumes', 'volume-subpaths', 'volumeDevices', 'plugins', '']) {
    const path = join(directory, name);
    try {
      for (const child of await readdir(path)) if (name !== '') await rmdir(join(path, child)).catch(() => undefined);
      await rmdir(path);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      if ((await hidden()).some((point) => `${point}/`.startsWith(join(path, '/')))) continue;
      throw new Error(
        `removing the folder ${path} of a pod that is gone: ${(error as Error).message}; it is tried again`,
        { cause: error },
      );
    }
  }
}
