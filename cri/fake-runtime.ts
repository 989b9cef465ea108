// The runtime port in memory, for tests: sandboxes and containers that live and die by script and by the clock, images, exec, events
// that can be lost or doubled, and faults in every call.
//
//   container:  created ──start──▶ running ──exit, stop, kill──▶ exited ──remove──▶ gone
//                  └──────────stop───────────────────────────────▲
import type { Clock, Timer } from '../lib/clock.ts';
import { RuntimeError } from './errors.ts';
import { createEventBuffer, type EventBuffer } from './event-buffer.ts';
import { createFaults, type Faults } from './fake-faults.ts';
import { createFakeImages, fakeHex, type FakeImages } from './fake-images.ts';
import type { Runtime } from './runtime.ts';
import type * as t from './types.ts';

/** What a container does once it is started. */
export interface ContainerBehaviour {
  /** Exits by itself after this long; undefined: runs until it is stopped. */
  readonly exitAfterMs?: number;
  /** Of an exit by itself. Default 0. */
  readonly exitCode?: number;
  /** The end by itself is the kernel's, for want of memory: reason OOMKilled, code 137. */
  readonly oomKilled?: boolean;
  /** On the stop signal: after this long with this code, or `ignore` until it is killed. Default: at once, 0. */
  readonly onStop?: 'ignore' | { readonly afterMs?: number; readonly exitCode?: number };
  /** Creating or starting fails with these words. */
  readonly failCreate?: string;
  readonly failStart?: string;
  /** Result of commands run inside. Default: exit 0, no output. */
  exec?(command: readonly string[]): FakeExec;
}

export interface FakeExec {
  readonly stdout?: string;
  readonly stderr?: string;
  readonly exitCode?: number;
  readonly afterMs?: number;
}

export interface FakeContainer {
  readonly id: t.ContainerId;
  readonly sandboxId: t.SandboxId;
  readonly config: t.ContainerConfig;
  readonly createdAtMs: number;
  readonly imageId: string;
  state: t.ContainerRuntimeState;
  startedAtMs: number;
  finishedAtMs: number;
  exitCode: number;
  reason: string;
  message: string;
  resources: t.LinuxResources;
}

export interface FakeSandbox {
  readonly id: t.SandboxId;
  readonly config: t.SandboxConfig;
  readonly createdAtMs: number;
  readonly runtimeHandler: string;
  readonly ip: string;
  state: t.SandboxState;
}

export interface FakeRuntime extends Runtime {
  readonly images: FakeImages;
  readonly faults: Faults;
  /** What went wrong that must never: the same container of a pod running twice at once, one started that was not created. */
  readonly violations: string[];
  sandboxes(): FakeSandbox[];
  containers(): FakeContainer[];
  /** For containers of an image, or those a function picks; the latest that fits counts. */
  behave(
    which: string | ((config: t.ContainerConfig, sandbox: FakeSandbox) => boolean),
    behaviour: ContainerBehaviour,
  ): void;
  /** Ends a running container from outside. */
  kill(id: t.ContainerId, exitCode?: number, reason?: string): void;
  /**
   * Processes of the container may run. Not so of one that has ended without being noted yet, where the kernel ends all with the first: in a
   * process namespace of its own.
   */
  runs(container: FakeContainer): boolean;
  /** Ends a sandbox's own process, and with it what shares its life. */
  crashSandbox(id: t.SandboxId): void;
  /** What becomes of each event: none, one or several in its place. Default: itself. */
  mapEvents(map: ((event: t.RuntimeEvent) => readonly t.RuntimeEvent[]) | undefined): void;
  /** While down every call is `unavailable` and no event comes; coming up again says `lost`. Containers go on. */
  setDown(down: boolean): void;
  setCondition(type: string, status: boolean, reason?: string, message?: string): void;
  setHandlers(handlers: readonly t.RuntimeHandler[]): void;
}

export interface FakeRuntimeOptions {
  readonly cgroupDriver?: t.RuntimeStatus['cgroupDriver'];
  /** Images that are present from the start. */
  readonly images?: readonly string[];
  /** How long after the end of a container's process it is noted; the event `ending` comes before. Default 0: at once, without one. */
  readonly notesEndAfterMs?: number;
}

const quickMs = 30_000;
const requestMs = 120_000;
const podUidLabel = 'io.kubernetes.pod.uid';

export function createFakeRuntime(deps: { readonly clock: Clock }, options: FakeRuntimeOptions = {}): FakeRuntime {
  const { clock } = deps;
  const faults = createFaults(clock);
  const images = createFakeImages(clock);
  for (const name of options.images ?? []) images.add({ name });
  const sandboxes = new Map<t.SandboxId, FakeSandbox>();
  const containers = new Map<t.ContainerId, FakeContainer>();
  const timers = new Map<t.ContainerId, Timer[]>();
  const ended = new Map<t.ContainerId, (() => void)[]>();
  const scripts: { fits(config: t.ContainerConfig, sandbox: FakeSandbox): boolean; behaviour: ContainerBehaviour }[] =
    [];
  const exits = new Map<t.ContainerId, { exitCode: number; reason: string | undefined; finishedAtMs: number }>();
  const readers = new Set<EventBuffer>();
  const violations: string[] = [];
  const conditions = new Map<string, t.RuntimeCondition>();
  let handlers: readonly t.RuntimeHandler[] = [{ name: '', recursiveReadOnlyMounts: true, userNamespaces: true }];
  let mapEvent: (event: t.RuntimeEvent) => readonly t.RuntimeEvent[] = (event) => [event];
  let down = false;
  let count = 0;
  for (const type of ['RuntimeReady', 'NetworkReady'])
    conditions.set(type, { type, status: true, reason: '', message: '' });

  const emit = (
    kind: 'created' | 'started' | 'stopped' | 'deleted' | 'oom',
    id: string,
    sandbox: FakeSandbox,
  ): void => {
    tell({ kind, containerId: id, sandboxId: sandbox.id, podUid: sandbox.config.metadata.uid });
  };
  const tell = (event: t.RuntimeEvent): void => {
    if (down) return;
    for (const mapped of mapEvent(event)) for (const reader of readers) reader.push(mapped);
  };
  const behaviourOf = (config: t.ContainerConfig, sandbox: FakeSandbox): ContainerBehaviour =>
    scripts.findLast(({ fits }) => fits(config, sandbox))?.behaviour ?? {};
  const sandboxOf = (call: string, id: t.SandboxId): FakeSandbox => {
    const sandbox = sandboxes.get(id);
    if (!sandbox)
      throw new RuntimeError('not-found', call, `an error occurred when try to find sandbox "${id}": not found`);
    return sandbox;
  };
  const containerOf = (call: string, id: t.ContainerId): FakeContainer => {
    const container = containers.get(id);
    if (!container)
      throw new RuntimeError('not-found', call, `an error occurred when try to find container "${id}": not found`);
    return container;
  };
  const running = (call: string, id: t.ContainerId): FakeContainer => {
    const container = containerOf(call, id);
    if (container.state !== 'running')
      throw new RuntimeError('unknown', call, `container is in CONTAINER_${container.state.toUpperCase()} state`);
    return container;
  };

  /** The process has ended by itself or was killed. */
  function exit(container: FakeContainer, exitCode: number, reason?: string): void {
    const { notesEndAfterMs = 0 } = options;
    if (notesEndAfterMs === 0) {
      end(container, exitCode, reason);
      return;
    }
    if (container.state !== 'running' || exits.has(container.id)) return;
    const finishedAtMs = clock.now();
    exits.set(container.id, { exitCode, finishedAtMs, reason });
    tell({ kind: 'ending', containerId: container.id, exitCode, finishedAtMs });
    schedule(container, notesEndAfterMs, () => end(container, exitCode, reason));
  }

  function end(container: FakeContainer, code: number, why?: string): void {
    if (container.state === 'exited') return;
    const earlier = exits.get(container.id);
    exits.delete(container.id);
    const { exitCode, reason, finishedAtMs } = earlier ?? { exitCode: code, reason: why, finishedAtMs: clock.now() };
    for (const timer of timers.get(container.id) ?? []) timer.cancel();
    timers.delete(container.id);
    container.state = 'exited';
    container.exitCode = exitCode;
    container.finishedAtMs = finishedAtMs;
    container.reason = reason ?? (exitCode === 0 ? 'Completed' : 'Error');
    for (const wake of ended.get(container.id) ?? []) wake();
    ended.delete(container.id);
    const sandbox = sandboxes.get(container.sandboxId);
    if (!sandbox) return;
    if (container.reason === 'OOMKilled') emit('oom', container.id, sandbox);
    emit('stopped', container.id, sandbox);
  }

  const runs = ({ id, state, config }: FakeContainer): boolean =>
    state === 'running' && !(exits.has(id) && config.security.namespaces.pid === 'container');

  const schedule = (container: FakeContainer, ms: number, fire: () => void): void => {
    timers.set(container.id, [...(timers.get(container.id) ?? []), clock.setTimer(ms, fire)]);
  };
  const endOf = (container: FakeContainer): Promise<void> =>
    container.state === 'exited'
      ? Promise.resolve()
      : new Promise((resolve) => ended.set(container.id, [...(ended.get(container.id) ?? []), resolve]));

  function stopSandboxNow(sandbox: FakeSandbox): void {
    for (const container of containers.values())
      if (container.sandboxId === sandbox.id && container.state !== 'exited') end(container, 137);
    if (sandbox.state === 'notready') return;
    sandbox.state = 'notready';
    emit('stopped', sandbox.id, sandbox);
  }

  function removeContainerNow(container: FakeContainer): void {
    if (container.state === 'running') end(container, 137);
    containers.delete(container.id);
    const sandbox = sandboxes.get(container.sandboxId);
    if (sandbox) emit('deleted', container.id, sandbox);
  }

  const summaryOfSandbox = (sandbox: FakeSandbox): t.SandboxSummary => ({
    id: sandbox.id,
    metadata: sandbox.config.metadata,
    state: sandbox.state,
    createdAtMs: sandbox.createdAtMs,
    labels: sandbox.config.labels,
    annotations: sandbox.config.annotations,
    runtimeHandler: sandbox.runtimeHandler,
  });
  const summaryOf = (container: FakeContainer): t.ContainerSummary => ({
    id: container.id,
    sandboxId: container.sandboxId,
    metadata: container.config.metadata,
    image: container.config.image.userSpecifiedImage ?? container.config.image.image,
    imageRef: container.imageId,
    imageId: container.imageId,
    state: container.state,
    createdAtMs: container.createdAtMs,
    labels: container.config.labels,
    annotations: container.config.annotations,
  });
  const statsOf = (container: FakeContainer): t.ContainerStats => ({
    id: container.id,
    metadata: container.config.metadata,
    labels: container.config.labels,
    annotations: container.config.annotations,
    cpu: {
      timestampMs: clock.now(),
      usageCoreNanoSeconds: (clock.now() - container.startedAtMs) * 1_000_000,
      usageNanoCores: 1_000_000,
    },
    memory: { timestampMs: clock.now(), workingSetBytes: 1_000_000, usageBytes: 1_200_000, rssBytes: 900_000 },
    writableLayer: { timestampMs: clock.now(), mountpoint: '/fake', usedBytes: 4096, inodesUsed: 1 },
  });
  const inFilter = (container: FakeContainer, filter: t.ContainerFilter | undefined): boolean =>
    (filter?.id === undefined || container.id === filter.id) &&
    (filter?.sandboxId === undefined || container.sandboxId === filter.sandboxId) &&
    (filter?.podUid === undefined || container.config.labels[podUidLabel] === filter.podUid);

  const run: Faults['run'] = (call, subject, callOptions, timeoutMs, apply) =>
    faults.run(call, subject, callOptions, timeoutMs, (signal) => {
      if (down) throw new RuntimeError('unavailable', call, 'the runtime’s socket refuses connections');
      return apply(signal);
    });

  return {
    images,
    faults,
    violations,
    sandboxes: () => [...sandboxes.values()],
    containers: () => [...containers.values()],
    behave(which, behaviour) {
      const fits = typeof which === 'string' ? (config: t.ContainerConfig) => imageOf(config) === which : which;
      scripts.push({ fits, behaviour });
    },
    kill(id, exitCode = 137, reason) {
      exit(running('kill', id), exitCode, reason);
    },
    runs,
    crashSandbox(id) {
      const sandbox = sandboxOf('kill', id);
      // Only in a shared process namespace does the sandbox's process take the containers with it.
      if (sandbox.config.security.namespaces.pid === 'pod') stopSandboxNow(sandbox);
      else if (sandbox.state === 'ready') {
        sandbox.state = 'notready';
        emit('stopped', id, sandbox);
      }
    },
    mapEvents(map) {
      mapEvent = map ?? ((event) => [event]);
    },
    setDown(next) {
      if (down && !next) for (const reader of readers) reader.push({ kind: 'lost' });
      down = next;
    },
    setCondition(type, status, reason = '', message = '') {
      conditions.set(type, { type, status, reason, message });
    },
    setHandlers(next) {
      handlers = next;
    },

    version: (call) =>
      run('version', '', call, quickMs, () => ({
        runtimeName: 'fake',
        runtimeVersion: '1.0.0',
        runtimeApiVersion: 'v1',
      })),
    status: (call) =>
      run('status', '', call, quickMs, () => ({
        conditions: [...conditions.values()],
        runtimeHandlers: handlers,
        supplementalGroupsPolicy: true,
        cgroupDriver: options.cgroupDriver ?? 'cgroupfs',
      })),
    updatePodCidr: (podCidr, call) => run('updatePodCidr', podCidr, call, quickMs, () => undefined),

    runSandbox: (config, runtimeHandler, call) =>
      run('runSandbox', config.metadata.name, call, 2 * requestMs, () => {
        const { name, namespace, uid, attempt } = config.metadata;
        const key = `${name}_${namespace}_${uid}_${attempt}`;
        for (const other of sandboxes.values()) {
          const { metadata } = other.config;
          if (`${metadata.name}_${metadata.namespace}_${metadata.uid}_${metadata.attempt}` === key)
            throw new RuntimeError(
              'already-exists',
              'RunPodSandbox',
              `failed to reserve sandbox name "${key}": name "${key}" is reserved for "${other.id}"`,
            );
        }
        if (runtimeHandler !== '' && !handlers.some((handler) => handler.name === runtimeHandler))
          throw new RuntimeError('unknown', 'RunPodSandbox', `no runtime for "${runtimeHandler}" is configured`);
        const network = conditions.get('NetworkReady');
        if (network && !network.status && config.security.namespaces.network !== 'node')
          throw new RuntimeError('unknown', 'RunPodSandbox', `failed to setup network for sandbox: ${network.message}`);
        count++;
        const id = fakeHex(`sandbox ${count} ${key}`) as t.SandboxId;
        const sandbox: FakeSandbox = {
          id,
          config,
          createdAtMs: clock.now(),
          runtimeHandler,
          ip: `10.88.${Math.floor(count / 250) % 250}.${(count % 250) + 2}`,
          state: 'ready',
        };
        sandboxes.set(id, sandbox);
        emit('created', id, sandbox);
        emit('started', id, sandbox);
        return id;
      }),
    stopSandbox: (id, call) =>
      run('stopSandbox', id, call, requestMs, () => {
        const sandbox = sandboxes.get(id);
        if (sandbox) stopSandboxNow(sandbox);
      }),
    removeSandbox: (id, call) =>
      run('removeSandbox', id, call, requestMs, () => {
        const sandbox = sandboxes.get(id);
        if (!sandbox) return;
        stopSandboxNow(sandbox);
        for (const container of [...containers.values()]) if (container.sandboxId === id) removeContainerNow(container);
        emit('deleted', id, sandbox);
        sandboxes.delete(id);
      }),
    listSandboxes: (filter, call) =>
      run('listSandboxes', '', call, quickMs, () =>
        [...sandboxes.values()]
          .filter((sandbox) => filter?.id === undefined || sandbox.id === filter.id)
          .filter((sandbox) => filter?.podUid === undefined || sandbox.config.labels[podUidLabel] === filter.podUid)
          .map(summaryOfSandbox),
      ),
    sandboxStatus: (id, call) =>
      run('sandboxStatus', id, call, quickMs, () => {
        const sandbox = sandboxOf('PodSandboxStatus', id);
        const onHost = sandbox.config.security.namespaces.network === 'node';
        return {
          ...summaryOfSandbox(sandbox),
          ips: onHost || sandbox.state === 'notready' ? [] : [sandbox.ip],
          namespaces: sandbox.config.security.namespaces,
          ...(call?.verbose && sandbox.state === 'ready'
            ? { pid: 1_000_000 + count, networkNamespace: onHost ? undefined : `/fake/netns/${id}` }
            : {}),
        };
      }),

    createContainer: (sandboxId, config, _sandboxConfig, call) =>
      run('createContainer', config.metadata.name, call, requestMs, () => {
        const sandbox = sandboxOf('CreateContainer', sandboxId);
        const { name, attempt } = config.metadata;
        const pod = sandbox.config.metadata;
        const key = `${name}_${pod.name}_${pod.namespace}_${pod.uid}_${attempt}`;
        const same = [...containers.values()].find((other) => {
          const owner = sandboxes.get(other.sandboxId);
          return (
            other.config.metadata.name === name &&
            other.config.metadata.attempt === attempt &&
            owner?.config.metadata.uid === pod.uid
          );
        });
        if (same)
          throw new RuntimeError(
            'already-exists',
            'CreateContainer',
            `failed to reserve container name "${key}": name "${key}" is reserved for "${same.id}"`,
          );
        if (sandbox.state !== 'ready')
          throw new RuntimeError('unknown', 'CreateContainer', `sandbox container "${sandboxId}" is not running`);
        const image = images.find(config.image.image);
        if (!image) throw new RuntimeError('not-found', 'CreateContainer', `image "${config.image.image}": not found`);
        const { failCreate } = behaviourOf(config, sandbox);
        if (failCreate !== undefined) throw new RuntimeError('unknown', 'CreateContainer', failCreate);
        count++;
        const id = fakeHex(`container ${count} ${key}`) as t.ContainerId;
        containers.set(id, {
          id,
          sandboxId,
          config,
          createdAtMs: clock.now(),
          imageId: image.id,
          state: 'created',
          startedAtMs: 0,
          finishedAtMs: 0,
          exitCode: 0,
          reason: '',
          message: '',
          resources: config.resources,
        });
        emit('created', id, sandbox);
        return id;
      }),
    startContainer: (id, call) =>
      run('startContainer', id, call, requestMs, () => {
        const container = containerOf('StartContainer', id);
        const sandbox = sandboxOf('StartContainer', container.sandboxId);
        if (container.state !== 'created')
          throw new RuntimeError(
            'unknown',
            'StartContainer',
            `failed to set starting state for container "${id}": container is in CONTAINER_${container.state.toUpperCase()} state`,
          );
        const behaviour = behaviourOf(container.config, sandbox);
        if (behaviour.failStart !== undefined) {
          container.message = behaviour.failStart;
          end(container, 128, 'StartError');
          throw new RuntimeError('unknown', 'StartContainer', behaviour.failStart);
        }
        if (sandbox.state !== 'ready')
          throw new RuntimeError('unknown', 'StartContainer', `sandbox container "${sandbox.id}" is not running`);
        const { name } = container.config.metadata;
        const twin = [...containers.values()].find(
          (other) =>
            runs(other) &&
            other.config.metadata.name === name &&
            sandboxes.get(other.sandboxId)?.config.metadata.uid === sandbox.config.metadata.uid,
        );
        if (twin)
          violations.push(`container ${name} of pod ${sandbox.config.metadata.uid} runs twice: ${twin.id}, ${id}`);
        container.state = 'running';
        container.startedAtMs = clock.now();
        emit('started', id, sandbox);
        const { exitAfterMs, exitCode = 0, oomKilled = false } = behaviour;
        if (exitAfterMs !== undefined)
          schedule(container, exitAfterMs, () =>
            exit(container, oomKilled ? 137 : exitCode, oomKilled ? 'OOMKilled' : undefined),
          );
      }),
    stopContainer: (id, graceSeconds, call) =>
      run('stopContainer', id, call, requestMs + graceSeconds * 1000, async () => {
        const container = containers.get(id);
        if (!container || container.state === 'exited') return;
        const sandbox = sandboxes.get(container.sandboxId);
        const onStop = sandbox ? (behaviourOf(container.config, sandbox).onStop ?? {}) : {};
        const graceMs = Math.max(0, graceSeconds) * 1000;
        const afterMs = onStop === 'ignore' ? Number.POSITIVE_INFINITY : (onStop.afterMs ?? 0);
        const exitCode = onStop === 'ignore' ? 137 : (onStop.exitCode ?? 0);
        if (container.state === 'created') end(container, 0);
        else if (graceMs === 0) end(container, 137);
        else if (afterMs === 0) end(container, exitCode);
        else if (afterMs < graceMs) schedule(container, afterMs, () => end(container, exitCode));
        else schedule(container, graceMs, () => end(container, 137));
        await endOf(container);
      }),
    removeContainer: (id, call) =>
      run('removeContainer', id, call, requestMs, () => {
        const container = containers.get(id);
        if (container) removeContainerNow(container);
      }),
    listContainers: (filter, call) =>
      run('listContainers', '', call, quickMs, () =>
        [...containers.values()].filter((container) => inFilter(container, filter)).map(summaryOf),
      ),
    inspectContainer: (id, call) =>
      run('inspectContainer', id, call, quickMs, () => {
        const container = containerOf('ContainerStatus', id);
        const { config } = container;
        const logDirectory = sandboxes.get(container.sandboxId)?.config.logDirectory ?? '';
        return {
          ...summaryOf(container),
          startedAtMs: container.startedAtMs,
          finishedAtMs: container.finishedAtMs,
          exitCode: container.exitCode,
          reason: container.reason,
          message: container.message,
          mounts: config.mounts,
          logPath: config.logPath === '' ? '' : `${logDirectory}/${config.logPath}`,
          resources: container.resources,
          user: { uid: config.security.runAsUser ?? 0, gid: config.security.runAsGroup ?? 0, supplementalGroups: [] },
          stopSignal: config.stopSignal,
          ...(call?.verbose && container.state === 'running' ? { pid: 2_000_000 } : {}),
        };
      }),
    updateContainerResources: (id, resources, call) =>
      run('updateContainerResources', id, call, requestMs, () => {
        const container = containerOf('UpdateContainerResources', id);
        if (container.state !== 'running' && container.state !== 'created')
          throw new RuntimeError('unknown', 'UpdateContainerResources', 'container is not running');
        container.resources = { ...container.resources, ...resources };
      }),
    reopenContainerLog: (id, call) =>
      run('reopenContainerLog', id, call, requestMs, () => void running('ReopenContainerLog', id)),
    checkpointContainer: (id, _location, call) =>
      run('checkpointContainer', id, call, requestMs, () => {
        throw new RuntimeError('unimplemented', 'CheckpointContainer', 'the fake makes no checkpoints');
      }),

    execSync: (id, command, call) =>
      run('execSync', id, call, call?.timeoutMs ?? 0, async (signal) => {
        const container = running('ExecSync', id);
        const sandbox = sandboxOf('ExecSync', container.sandboxId);
        const result = behaviourOf(container.config, sandbox).exec?.(command) ?? {};
        if (result.afterMs) await clock.sleep(result.afterMs, signal);
        if (container.state !== 'running')
          throw new RuntimeError('unknown', 'ExecSync', 'the container ended while the command ran');
        return {
          stdout: Buffer.from(result.stdout ?? ''),
          stderr: Buffer.from(result.stderr ?? ''),
          exitCode: result.exitCode ?? 0,
        };
      }),
    exec: (request, call) =>
      run('exec', request.containerId, call, requestMs, () => {
        running('Exec', request.containerId);
        return { kind: 'url', url: `http://127.0.0.1:1/exec/${request.containerId}` };
      }),
    attach: (request, call) =>
      run('attach', request.containerId, call, requestMs, () => {
        running('Attach', request.containerId);
        return { kind: 'url', url: `http://127.0.0.1:1/attach/${request.containerId}` };
      }),
    portForward: (id, _ports, call) =>
      run('portForward', id, call, requestMs, () => {
        if (sandboxOf('PortForward', id).state !== 'ready')
          throw new RuntimeError('unknown', 'PortForward', `sandbox container "${id}" is not running`);
        return { kind: 'url', url: `http://127.0.0.1:1/portforward/${id}` };
      }),

    pullImage: (image, auth, _config, call) =>
      run('pullImage', image.image, call, 0, (signal) => images.pull(image, auth, signal)),
    imageStatus: (image, call) => run('imageStatus', image.image, call, quickMs, () => images.find(image.image)),
    listImages: (call) => run('listImages', '', call, quickMs, () => images.list()),
    removeImage: (image, call) => run('removeImage', image.image, call, requestMs, () => images.remove(image.image)),
    imageFilesystem: (call) =>
      run('imageFilesystem', '', call, quickMs, () => {
        const usedBytes = images.list().reduce((total, image) => total + image.sizeBytes, 0);
        return {
          image: [{ timestampMs: clock.now(), mountpoint: '/fake', usedBytes, inodesUsed: images.list().length }],
          container: [],
        };
      }),

    containerStats: (id, call) =>
      run('containerStats', id, call, quickMs, () => statsOf(containerOf('ContainerStats', id))),
    listContainerStats: (filter, call) =>
      run('listContainerStats', '', call, quickMs, () =>
        [...containers.values()]
          .filter((container) => container.state === 'running' && inFilter(container, filter))
          .map(statsOf),
      ),

    async *events(signal) {
      const reader = createEventBuffer();
      reader.push({ kind: 'lost' });
      readers.add(reader);
      const onAbort = (): void => reader.end();
      signal.addEventListener('abort', onAbort, { once: true });
      if (signal.aborted) reader.end();
      try {
        yield* reader.drain();
      } finally {
        readers.delete(reader);
        signal.removeEventListener('abort', onAbort);
      }
    },
    async close() {
      for (const reader of readers) reader.end();
    },
  };
}

const imageOf = (config: t.ContainerConfig): string => config.image.userSpecifiedImage ?? config.image.image;
