// For tests: the pods' workers with everything about them that decides, on a runtime, an API server and a clock in memory. The agent can be
// killed and started again; what it had under way then never answers it.
import { createFakeClient } from '../../kube/fake-client.ts';
import type { KubeClient } from '../../kube/client.ts';
import { resources } from '../../kube/resources.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { createFakeRuntime } from '../../cri/fake-runtime.ts';
import type { Runtime } from '../../cri/runtime.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { type Log, silentLog } from '../../lib/log.ts';
import type { Tracer } from '../../lib/tracing/tracer.ts';
import { containerConfig, type ContainerFacts } from '../../agent/containers/container-config.ts';
import { containerHash } from '../../agent/containers/container-hash.ts';
import { type SandboxFacts, sandboxConfig } from '../../agent/containers/sandbox-config.ts';
import { createPacedRuntime } from '../../agent/observe/paced-runtime.ts';
import { createObserver } from '../../agent/observe/observer.ts';
import { createApiSource } from '../../agent/pods/api-source.ts';
import { combineSources, type PodSource } from '../../agent/pods/desired.ts';
import { createExecutor } from '../../agent/pods/execute.ts';
import { orphanPod } from '../../agent/pods/orphan.ts';
import { traceExecutor } from '../../agent/pods/pod-spans.ts';
import type { PodParts } from '../../agent/pods/pod-parts.ts';
import { createPodWorkers, type PodWorkersDeps } from '../../agent/pods/pod-workers.ts';
import type { PodState } from '../../agent/pods/pod-state.ts';
import { defaultRestartBackoff } from '../../agent/pods/restart.ts';
import { createStatusWriter } from '../../agent/pods/status-writer.ts';

const facts: ContainerFacts & SandboxFacts = {
  cgroupVersion: 1,
  cpuCfsQuota: true,
  cpuCfsQuotaPeriodUs: 100_000,
  memoryCapacityBytes: 4_000_000_000,
  swap: { available: false, behavior: 'NoSwap', capacityBytes: 0 },
  hugepageSizes: [],
  podLogsDirectory: '/var/log/pods',
  seccompProfileRoot: '/var/lib/kubelet/seccomp',
  seccompDefault: false,
  moreMaskedPaths: [],
};

const never = (): Promise<never> => new Promise<never>(() => undefined);

/** The object as a process sees it that may die: after that nothing it asks is answered. */
function mortal<T extends object>(object: T, dead: () => boolean): T {
  return new Proxy(object, {
    get(target, key) {
      const value = Reflect.get(target, key) as unknown;
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        if (dead()) return never();
        const result = (value as (...inner: unknown[]) => unknown).apply(target, args);
        if (!(result instanceof Promise)) return result;
        return result.then(
          (answer: unknown) => (dead() ? never() : answer),
          (error: unknown) => {
            if (dead()) return never();
            throw error;
          },
        );
      };
    },
  });
}

export interface LabOptions {
  readonly probe?: PodWorkersDeps['probes']['verdict'];
  /** See FakeRuntimeOptions. */
  readonly notesEndAfterMs?: number;
  readonly statics?: PodSource;
  readonly standalone?: boolean;
  readonly parts?: Partial<PodParts>;
  /** Default: all are admitted. */
  readonly admit?: PodWorkersDeps['admit'];
  readonly tracer?: Tracer;
  /** Hears when something else is known of a pod. */
  readonly onSeen?: (uid: string) => void;
  /** How many sandboxes may be begun at once; default: any number. */
  readonly lanes?: number;
  /** What the workers log. Default: nowhere. */
  readonly log?: Log;
}

export function createPodLab(options: LabOptions = {}) {
  const clock = createFakeClock();
  const runtime = createFakeRuntime({ clock }, { images: ['i'], notesEndAfterMs: options.notesEndAfterMs ?? 0 });
  const client = createFakeClient({ clock });
  const states = new Map<string, PodState>();
  const events: string[] = [];
  const restartCounts = new Map<string, number>();
  const complaints: string[] = [];

  const begin = () => {
    let dead = false;
    const gone = new AbortController();
    const seenRuntime: Runtime = {
      ...mortal(runtime as Runtime, () => dead),
      events: (signal) => runtime.events(AbortSignal.any([signal, gone.signal])),
    };
    for (const key of Object.keys(runtime) as (keyof Runtime)[])
      if (key !== 'events')
        (seenRuntime as unknown as Record<string, unknown>)[key] = mortal(runtime as Runtime, () => dead)[key];
    const seenClient: KubeClient = {
      get: (...args) => mortal(client as KubeClient, () => dead).get(...args),
      list: (...args) => mortal(client as KubeClient, () => dead).list(...args),
      watch: (resource, watchOptions) =>
        client.watch(resource, { ...watchOptions, signal: AbortSignal.any([watchOptions.signal, gone.signal]) }),
      create: (...args) => mortal(client as KubeClient, () => dead).create(...args),
      update: (...args) => mortal(client as KubeClient, () => dead).update(...args),
      patch: (...args) => mortal(client as KubeClient, () => dead).patch(...args),
      delete: (...args) => mortal(client as KubeClient, () => dead).delete(...args),
      raw: (...args) => mortal(client as KubeClient, () => dead).raw(...args),
      close: async () => undefined,
    };
    const recorder = {
      record: (_about: unknown, _type: string, reason: string, message: string) => {
        if (!dead) events.push(`${reason}: ${message}`);
      },
    };
    const deps = { client: seenClient, clock, log: silentLog };
    const api = createApiSource(
      { ...deps, onChange: (uid) => workers.wake(uid), onSync: () => workers.wakeAll() },
      { nodeName: 'node' },
    );
    const observer = createObserver({
      runtime: seenRuntime,
      clock,
      log: silentLog,
      terminationMessage: async () => undefined,
      onChange: (uid) => workers.wake(uid),
      onSeen: (uid) => options.onSeen?.(uid),
    });
    const sandbox = (pod: Pod, attempt: number) =>
      sandboxConfig(
        {
          pod,
          attempt,
          seen: { source: 'api', atMs: 0 },
          name: { hostname: pod.metadata.name, domain: '' },
          dns: { servers: [], searches: [], options: [] },
          cgroupParent: '/',
          volumeGroups: [],
        },
        facts,
      );
    const parts: PodParts = {
      prepare: async () => undefined,
      sandbox: async (pod, attempt) => ({ config: sandbox(pod, attempt), runtimeHandler: '' }),
      container: async ({ pod, container, attempt, sandbox: status, image }) => ({
        config: containerConfig(
          {
            pod,
            container,
            restartCount: attempt,
            imageRef: image.imageRef,
            imageUser: {},
            runtimeHandler: '',
            env: {},
            mounts: [],
            devices: [],
            volumeGroups: [],
          },
          facts,
        ),
        sandboxConfig: sandbox(pod, status.metadata.attempt),
      }),
      image: async () => ({ imageRef: 'i', uid: undefined, username: '' }),
      setUpVolumes: async () => undefined,
      tearDownVolumes: async () => undefined,
      removeCgroup: async () => undefined,
      removeFiles: async () => undefined,
      hook: async () => undefined,
      created: () => undefined,
      started: () => undefined,
      removed: async () => undefined,
      resize: async () => undefined,
      ...options.parts,
    };
    const statusWriter = createStatusWriter({
      ...deps,
      current: (uid) => api.get(uid),
      onWritten: (uid) => workers.wake(uid),
    });
    const workers = createPodWorkers(
      {
        clock,
        log: options.log ?? silentLog,
        events: recorder,
        pods: combineSources([...(options.statics ? [options.statics] : []), api]),
        observer,
        tracer: options.tracer,
        executor: traceExecutor(
          createExecutor({
            runtime: options.lanes ? createPacedRuntime(seenRuntime, { clock }, { width: options.lanes }) : seenRuntime,
            client: seenClient,
            clock,
            log: silentLog,
            events: recorder,
            parts,
          }),
          options.tracer,
        ),
        statusWriter,
        probes: {
          verdict: options.probe ?? (() => ({ started: true, failed: undefined, ready: true })),
          sync: () => undefined,
          forget: () => undefined,
        },
        admit: options.admit ?? (async () => ({ admitted: true })),
        orphan: orphanPod,
        hashOf: containerHash,
        standalone: options.standalone ?? false,
        states: {
          get: (uid) => states.get(uid),
          put: (uid, state) => {
            if (!dead) states.set(uid, structuredClone(state));
          },
          remove: (uid) => {
            if (!dead) states.delete(uid);
          },
        },
        statusFacts: () => ({ hostIps: ['10.0.0.1'], qosClass: 'BestEffort', runtimeName: 'fake', extras: () => ({}) }),
        release: () => undefined,
        onStatus(pod, status) {
          if (dead) return;
          for (const each of [...(status.containerStatuses ?? []), ...(status.initContainerStatuses ?? [])]) {
            const key = `${pod.metadata.uid}/${each.name}`;
            const before = restartCounts.get(key) ?? 0;
            if (each.restartCount < before)
              complaints.push(`${key}: restartCount ${before} became ${each.restartCount}`);
            restartCounts.set(key, each.restartCount);
          }
        },
      },
      { restartBackoff: defaultRestartBackoff },
    );
    const stopping = new AbortController();
    // As the agent does: the runtime is listed before the first pod is looked at.
    const running = (async () => {
      for (;;) {
        try {
          await observer.relist();
          break;
        } catch {
          await clock.sleep(1_000, stopping.signal);
        }
      }
      await Promise.all([observer.run(stopping.signal), api.run(stopping.signal)]);
    })().catch(() => undefined);
    return {
      workers,
      observer,
      kill() {
        dead = true;
        gone.abort();
        stopping.abort();
      },
      async stop() {
        dead = true;
        gone.abort();
        stopping.abort();
        await Promise.race([running, Promise.resolve()]);
      },
    };
  };

  let agent = begin();
  return {
    clock,
    runtime,
    client,
    events,
    complaints,
    states,
    agent: () => agent,
    /** The agent dies and is started again. */
    restart() {
      agent.kill();
      agent = begin();
    },
    stop: () => agent.stop(),
    pod: (name: string): Pod | undefined => client.find(resources.pods, { namespace: 'n', name }),
    /** Binds a pod to the node. */
    bind(name: string, spec: Partial<Pod['spec']>, metadata: Partial<Pod['metadata']> = {}): Pod {
      const [made] = client.seed(resources.pods, {
        metadata: { name, namespace: 'n', uid: `uid-${name}`, ...metadata },
        spec: { containers: [], nodeName: 'node', terminationGracePeriodSeconds: 5, ...spec },
      });
      return made!;
    },
    async delete(name: string, gracePeriodSeconds: number) {
      await client.delete(resources.pods, { namespace: 'n', name }, { gracePeriodSeconds }).catch(() => undefined);
    },
    running: (name: string) =>
      runtime
        .containers()
        .filter((each) => runtime.runs(each) && each.config.labels['io.kubernetes.pod.name'] === name)
        .map((each) => each.config.metadata.name)
        .sort(),
  };
}
