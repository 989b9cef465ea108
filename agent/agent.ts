// The kubelet half, put together: node, pods, volumes, images, probes, server. Nothing is decided here; docs/architecture.md draws it.
import { mkdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Runtime } from '../cri/runtime.ts';
import type { KubeClient } from '../kube/client.ts';
import { createEventRecorder } from '../kube/event-recorder.ts';
import { createNoClient } from '../kube/no-client.ts';
import { createObjectCache } from '../kube/object-cache.ts';
import { createReflector } from '../kube/reflector.ts';
import { resources } from '../kube/resources.ts';
import type { Node, Service, Taint } from '../kube/types/core.ts';
import type { Pod, PodStatus } from '../kube/types/pod.ts';
import type { Clock } from '../lib/clock.ts';
import type { Log } from '../lib/log.ts';
import { createRegistry, type MetricsRegistry } from '../lib/metrics.ts';
import type { Tracer } from '../lib/tracing/tracer.ts';
import { preempted } from './admission/admit-pod.ts';
import { createNodeAdmission } from './admission/node-admission.ts';
import type { KubeletConfiguration } from './config.ts';
import { containerHash } from './containers/container-hash.ts';
import { runHook } from './containers/hooks.ts';
import { idsForPods } from './containers/sub-ids.ts';
import { createUserNamespaces } from './containers/user-namespaces.ts';
import { terminationMessage } from './containers/termination-message.ts';
import { imageToken } from './images/image-token.ts';
import { createPodImages, type PodImagesOptions } from './images/pod-images.ts';
import { endAtOnce } from './node/end-at-once.ts';
import { keepBridgeNetwork } from './node/bridge-network.ts';
import { allocatedResourcesStatus, containerDevices } from './node/devices/container-devices.ts';
import { enforcedLimits } from './node/capacity.ts';
import { createDevicePlugins } from './node/devices/device-plugins.ts';
import { servePodResources } from './node/devices/pod-resources-server.ts';
import { readInstanceMetadata } from './node/instance-metadata.ts';
import { applyKernelSettings } from './node/kernel-settings.ts';
import { createNodeAgent, type NodeAgent } from './node/node-agent.ts';
import { createKnownImages } from './observe/known-images.ts';
import { createMeasuredRuntime } from './observe/measured-runtime.ts';
import { createOomKills } from './observe/oom-kills.ts';
import { createPacedRuntime } from './observe/paced-runtime.ts';
import { createObserver } from './observe/observer.ts';
import { createContainerLinks } from './pods/container-links.ts';
import { isEnding } from './pods/desired.ts';
import { createDirectory, type Directory } from './pods/directory.ts';
import { createExecutor } from './pods/execute.ts';
import { orphanPod } from './pods/orphan.ts';
import { createPodMetrics } from './pods/pod-metrics.ts';
import { createPodParts, removePodDirectory } from './pods/parts.ts';
import { createHousekeeping, podLogFolders } from './pods/housekeeping.ts';
import { createPodSources } from './pods/pod-sources.ts';
import { createPodResize } from './pods/pod-resize.ts';
import { createRuntimeHandlers } from './pods/runtime-handlers.ts';
import { createPodStates } from './pods/pod-state.ts';
import { traceExecutor } from './pods/pod-spans.ts';
import { createPodWorkers, type PodWorkers } from './pods/pod-workers.ts';
import { createProbeLink } from './pods/probe-link.ts';
import { restartBackoffUpTo } from './pods/restart.ts';
import { containerExtras } from './pods/status-extras.ts';
import { createServingNotice, type PodServing } from './pods/serving-notice.ts';
import { createStatusWriter } from './pods/status-writer.ts';
import { createProbeMetrics } from './probes/probe-metrics.ts';
import { createProber } from './probes/prober.ts';
import { openPodCgroups } from './resources/open-pod-cgroups.ts';
import { qosOf } from '../kube/scheduling/qos.ts';
import { buildLabels, createKubeletMetrics, imageSizeRange } from './server/kubelet-metrics.ts';
import { createLoggedEvents } from './logged-events.ts';
import { reachRuntime } from './reach-runtime.ts';
import { type AgentTask, runAgent } from './run-agent.ts';
import { startServers } from './servers.ts';
import { createNodeStats } from './stats/node-stats.ts';
import { sandboxImage } from './stats/sandbox-image.ts';
import { volumeUsage } from './stats/volume-usage.ts';
import { createUpkeep } from './upkeep.ts';
import { emptyMemoryVolumes } from './volumes/memory-volumes.ts';
import { createMounter } from './volumes/mounter.ts';
import { createPodVolumes } from './volumes/pod-volumes.ts';
import { shareRoot } from './volumes/shared-root.ts';

export interface AgentDeps {
  /** Undefined: the node runs alone, with static pods only. */
  readonly client: KubeClient | undefined;
  readonly runtime: Runtime;
  readonly clock: Clock;
  readonly log: Log;
  readonly registry: MetricsRegistry;
  /** Called once the runtime answers, before anything of it is used; rejects where another agent has it. */
  claimRuntime?(): Promise<void>;
  /** Where tracing is switched on. */
  readonly tracer?: Tracer | undefined;
  /** A task that must not end has ended. */
  onFault(task: string, error: unknown): void;
  /** A pod has stopped being ready, is ready again, or is going; its status in the API follows. */
  onServing?(podUid: string, serving: PodServing): void;
}

export interface AgentOptions {
  readonly nodeName: string;
  readonly nodeIp: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly taints: readonly Taint[];
  readonly config: KubeletConfiguration;
  readonly rootDir: string;
  readonly certDir: string;
  readonly kubeletVersion: string;
  readonly externalCloudProvider: boolean;
  readonly cniConfDir: string;
  /** Writes a bridge network where cniConfDir has none. */
  readonly writeBridge: boolean;
  /** Asks the cloud for zone and provider id, where this is a cloud instance. */
  readonly instanceMetadata: boolean;
  /** Sets the host's kernel as a kubelet does; with protectKernelDefaults it is looked at all the same. */
  readonly kernelSettings: boolean;
  readonly imageCredentials: PodImagesOptions;
  /** The command line's flags as they hold, by name, for /flagz. */
  readonly flags?: Readonly<Record<string, string>>;
}

export interface Agent {
  readonly node: NodeAgent;
  readonly workers: PodWorkers;
  readonly directory: Directory;
  /** Runs until the signal aborts; pods go on without it. */
  run(signal: AbortSignal): Promise<void>;
}

export async function createAgent(given: AgentDeps, options: AgentOptions, signal: AbortSignal): Promise<Agent> {
  const { clock, log, registry } = given;
  const metrics = createKubeletMetrics(registry);
  metrics.buildInfo.set(buildLabels(options.kubeletVersion), 1);
  const knownImages = createKnownImages(createMeasuredRuntime(given.runtime, { clock, metrics }));
  const runtime = createPacedRuntime(
    knownImages.runtime,
    { clock },
    { width: Math.max(4, 3 * availableParallelism()) },
  );
  const standalone = given.client === undefined;
  const client = given.client ?? createNoClient();
  const deps = { ...given, client, runtime };
  const { config, nodeName, rootDir } = options;
  await mkdir(rootDir, { recursive: true, mode: 0o750 });
  const runtimeStatus = await reachRuntime(deps, signal);
  await deps.claimRuntime?.();
  if (options.kernelSettings || config.protectKernelDefaults)
    await applyKernelSettings({ log }, { protect: config.protectKernelDefaults });
  await shareRoot({ mounter: createMounter(), log }, rootDir, signal);
  const { runtimeName } = await runtime.version();
  const events = standalone
    ? createLoggedEvents(log)
    : createEventRecorder({ client, clock, log }, { component: 'kubelet', host: nodeName });
  const objects = createObjectCache({ client, clock, log });
  const services = createReflector<Service>(deps, { resource: resources.services });
  const sources = createPodSources(
    {
      client,
      clock,
      log,
      node: () => (node.registered() ? node.node() : undefined),
      running: (uid) => workers.get(uid),
      allRunning: () => workers.list(),
      onChange: (uid) => workers.wake(uid),
      onSync: () => workers.wakeAll(),
    },
    { config, nodeName, standalone },
  );
  const { pods } = sources;

  const devices = await createDevicePlugins(
    {
      clock,
      log,
      onChange(holders) {
        node.refresh();
        for (const uid of holders) {
          workers.nudge(uid);
          // The health of devices is part of their pods' status.
          workers.wake(uid);
        }
      },
      metrics,
      active: (uid) => {
        const phase = pods.get(uid)?.pod.status?.phase;
        return workers.holdsResources(uid) || (phase !== undefined && phase !== 'Succeeded' && phase !== 'Failed');
      },
    },
    { rootDir },
  );
  const node: NodeAgent = createNodeAgent(
    {
      ...deps,
      client: given.client,
      createReflector,
      events,
      volumesInUse: () => volumes.volumesInUse(),
      extendedResources: () => devices.extendedResources(),
      ...(options.instanceMetadata
        ? { instanceMetadata: (inner: AbortSignal) => readInstanceMetadata({ clock, log }, inner) }
        : {}),
    },
    {
      ...options,
      // What the API server and the scheduler ask a node for before they let a pod use it.
      declaredFeatures: [
        'InPlacePodLevelResourcesVerticalScaling',
        'InPlacePodVerticalScalingInitContainers',
        'RestartAllContainersOnContainerExits',
      ],
    },
  );
  const hostIps = (): string[] =>
    (node.node()?.status?.addresses ?? []).filter(({ type }) => type === 'InternalIP').map(({ address }) => address);
  const allocatable = () => node.node()?.status?.allocatable ?? {};

  metrics.nodeName.set({ node: nodeName }, 1);
  const probeRegistry = createRegistry();
  const images = await createPodImages(
    {
      ...deps,
      events,
      serviceAccount: (namespace, name, inner) =>
        objects.get(resources.serviceAccounts, { namespace, name }, 'image-credentials', inner),
      serviceAccountToken: (pod, serviceAccount, audience, inner) =>
        imageToken(client, pod, serviceAccount, audience, inner),
      secret: (namespace, name, holder, inner) => objects.get(resources.secrets, { namespace, name }, holder, inner),
      onAsked: (policy, present, mustPull) =>
        metrics.imageRequests.inc({
          pull_policy: policy.toLowerCase(),
          present_locally: String(present ?? 'unknown'),
          pull_required: String(mustPull ?? 'unknown'),
        }),
      onPulled: (sizeBytes, tookMs) =>
        metrics.imagePull.observe({ image_size_in_bytes: imageSizeRange(sizeBytes) }, tookMs / 1000),
    },
    config,
    options.imageCredentials,
  );
  const handlers = createRuntimeHandlers({
    get: (name, inner) => objects.get(resources.runtimeClasses, { name }, 'runtime-classes', inner),
    node: () => node.node(),
  });
  const volumes = createPodVolumes(
    {
      ...deps,
      events,
      objects,
      node: () => node.node(),
      volumesInUseChanged: () => node.refresh(),
      wake: (uid) => workers.nudge(uid),
      ending: (uid) => isEnding(pods, uid),
      ensureImage: images.ensureVolumeImage,
      supportsRecursiveReadOnly: (pod) => handlers.recursiveReadOnly(pod),
      operated: (operation, plugin, tookMs, error) =>
        metrics.storageOperations.observe(
          {
            volume_plugin: plugin,
            operation_name: operation,
            status: error === undefined ? 'success' : 'fail-unknown',
            migrated: 'false',
          },
          tookMs / 1000,
        ),
    },
    { rootDir, nodeName },
  );
  const cgroups = await openPodCgroups(
    {
      clock,
      log,
      took: (operation, tookMs) => metrics.cgroupOperations.observe({ operation_type: operation }, tookMs / 1000),
    },
    { config, driver: runtimeStatus.cgroupDriver ?? config.cgroupDriver, rootDir },
  );

  metrics.cgroupVersion.set(cgroups.facts.cgroupVersion);
  if (runtimeStatus.losingSupport !== undefined)
    metrics.runtimeLosingSupport.set({ version: runtimeStatus.losingSupport }, 1);

  const states = createPodStates({ log }, { rootDir });
  await states.load();
  const resize = createPodResize(
    { runtime, clock, metrics, cgroups: cgroups.pods, events, allocatable, kept: (uid) => states.get(uid) },
    cgroups.facts,
  );

  const links = createContainerLinks({ podLogsDir: config.podLogsDir });
  const userNamespaces = createUserNamespaces(
    { handlers: async () => (await runtime.status()).runtimeHandlers, log },
    {
      rootDir,
      ids: await idsForPods(),
      maxPods: config.maxPods,
      ...(config.userNamespaces.idsPerPod ? { idsPerPod: config.userNamespaces.idsPerPod } : {}),
    },
  );
  await userNamespaces.load();

  const prober = createProber({
    runtime,
    clock,
    log,
    events,
    metrics: createProbeMetrics(probeRegistry),
    onChange: (uid) => workers.wake(uid),
  });

  const oomKills = createOomKills({
    log,
    podFolder(uid) {
      const pod = cgroups.facts.cgroupVersion === 2 ? workers.get(uid) : undefined;
      return pod && cgroups.memory(cgroups.pods.parentFor(pod))?.folder;
    },
  });
  const observer = createObserver({
    runtime,
    clock,
    log,
    terminationMessage: (container) => terminationMessage(container),
    onRelist: (error, tookMs) => podMetrics.relisted(error, tookMs),
    oomKills,
    onLost: () => metrics.discardedEvents.inc(),
    onImages: knownImages.changed,
    onChange: (uid) => workers.wake(uid),
    onSeen: (uid) => directory.changed(uid),
  });

  const parts = createPodParts(
    {
      clock,
      events,
      volumes,
      cgroups: cgroups.pods,
      objects,
      image: images.ensure,
      devices: async (uid, container) => {
        const prepared = await devices.prepare(uid, container);
        return prepared && containerDevices(prepared);
      },
      runtimeClass: handlers.runtimeClass,
      services: () => (standalone ? [] : services.synced ? services.store.list() : undefined),
      hostIps,
      allocatable,
      hook: async (kind, { pod, container, id, podIp }, inner) => {
        const handler = container.lifecycle?.[kind];
        if (handler)
          await runHook(
            {
              runtime,
              clock,
              events,
              log,
              counted: {
                fellBackToHttp: () => metrics.hookHttpFallbacks.inc(),
                sleepCutShort: () => metrics.sleepActionTerminatedEarly.inc(),
              },
            },
            { kind, pod, container, containerId: id, podIp: podIp ?? '', handler },
            inner,
          );
      },
      created: resize.created,
      links,
      log,
      countStart: (pod, container) => podMetrics.started(pod, container),
      resize: resize.actuate,
      resizing: (uid) => resize.conditions(uid).some(({ type }) => type === 'PodResizeInProgress'),
      userns: (pod, handler) => userNamespaces.of(pod, handler),
      source: (uid) => ({ source: pods.get(uid)?.source ?? 'api', atMs: sources.seenAtMs(uid) ?? clock.now() }),
    },
    {
      rootDir,
      clusterDns: config.clusterDNS,
      clusterDomain: config.clusterDomain,
      resolvConf: config.resolvConf,
      facts: cgroups.facts,
    },
  );

  const statusWriter = createStatusWriter({
    client,
    clock,
    log,
    current: sources.shownAs,
    onWritten: (uid) => workers.wake(uid),
    patched: (tookMs) => metrics.podStatusSync.observe(tookMs / 1000),
  });

  const stats = createNodeStats(
    {
      clock,
      log,
      runtime,
      pods: {
        pods: () => workers.list(),
        container: (uid, name) => directory.container(uid, name),
        sandbox: (uid) => directory.sandbox(uid),
        cgroup: (pod) => cgroups.pods.parentFor(pod),
      },
      volumes: async (pod) => (await volumes.stats(pod)).map(volumeUsage),
      sandboxImage: (one) => sandboxImage(runtime, one),
    },
    {
      nodeName,
      rootFolder: rootDir,
      podLogsFolder: config.podLogsDir,
      podsCgroup: cgroups.pods.podsPath,
      qosCgroups: cgroups.pods.qosPaths,
    },
  );
  const upkeep = await createUpkeep(
    {
      ...{ clock, log, events, metrics, runtime, images, node, observer, stats, workers: () => workers },
      endAtOnce: (pod, inner) =>
        endAtOnce(
          {
            clock,
            killProcesses: (uid) => cgroups.pods.killProcesses(uid),
            freeMemory: (of) => emptyMemoryVolumes(rootDir, of),
          },
          pod,
          inner,
        ),
    },
    {
      config,
      rootDir,
      memoryBytes: cgroups.facts.memoryCapacityBytes,
      podsMemory: cgroups.memory(cgroups.pods.podsPath),
    },
  );
  const admission = createNodeAdmission(
    {
      node: () => node.node(),
      allocatable: (pod) => devices.allocatableFor(pod, allocatable()),
      async preempt(victim, _forPod, resource) {
        metrics.preemptions.inc({ preemption_signal: resource });
        const uid = victim.metadata.uid ?? '';
        workers.evict(uid, { ...preempted, graceSeconds: victim.spec.terminationGracePeriodSeconds ?? 30 });
        while (workers.holdsResources(uid)) await clock.sleep(50, signal);
      },
    },
    config,
  );

  const serving = createServingNotice((uid, now) => deps.onServing?.(uid, now));
  const workers: PodWorkers = createPodWorkers(
    {
      clock,
      log,
      events,
      pods,
      observer,
      tracer: deps.tracer,
      executor: traceExecutor(
        createExecutor({
          runtime,
          client: given.client,
          clock,
          log,
          events,
          parts,
          count: (pod, what) => podMetrics.sandbox(pod, what),
          refused: (reason) => metrics.admissionRejections.inc({ reason }),
          startFailed: (pod, container, reason, message) => podMetrics.startFailed(pod, container, reason, message),
        }),
        deps.tracer,
      ),
      statusWriter,
      probes: createProbeLink(prober, { hostIps }),
      admit: async (pod, others) => {
        // Devices come before the node's amounts: what is handed out already counts there.
        const refusal = upkeep.refuse(pod) ?? (await devices.admit(pod));
        const decided = refusal ? { admitted: false as const, ...refusal } : await admission.admit(pod, others);
        if (!decided.admitted) await devices.release(pod.metadata.uid ?? '');
        if (!decided.admitted) metrics.admissionRejections.inc({ reason: decided.reason });
        return decided;
      },
      orphan(uid, observed) {
        const found = orphanPod(uid, observed);
        if (found) metrics.orphanedRuntimePods.inc();
        return found;
      },
      hashOf: containerHash,
      resize,
      states,
      standalone,
      reconciled(operation, tookMs, uid) {
        metrics.podWorker.observe({ operation_type: operation }, tookMs / 1000);
        const seenMs = operation === 'create' ? sources.seenAtMs(uid) : undefined;
        if (seenMs !== undefined) metrics.podWorkerStart.observe(Math.max(0, clock.now() - seenMs - tookMs) / 1000);
      },
      onStatus: (pod, status, before) => {
        podMetrics.status(pod, status, before);
        serving.status(pod, status);
        const ended = (each: PodStatus | undefined): boolean => each?.phase === 'Succeeded' || each?.phase === 'Failed';
        if (!before || ended(status) !== ended(before)) housekeeping.podsChanged();
      },
      statusFacts: (pod: Pod) => ({
        hostIps: hostIps(),
        qosClass: qosOf(pod),
        runtimeName,
        conditions: resize.conditions(pod.metadata.uid ?? ''),
        podExtras: resize.podShown(pod),
        extras: (container, observed) => ({
          ...containerExtras(container, observed, { recursiveReadOnly: handlers.recursiveReadOnly(pod) }),
          ...healthOf(pod, container.name),
          ...(observed ? resize.shown(pod, container, observed.id) : {}),
        }),
      }),
      release: (uid) => {
        // Deleted and made again with the same uid while it ended.
        const again = pods.get(uid);
        if (again && !again.pod.metadata.deletionTimestamp)
          metrics.restartedPods.inc({ static: again.source === 'api' ? '' : 'true' });
        objects.release(uid);
        serving.forget(uid);
        images.forget(uid);
        devices.release(uid).catch((error: unknown) =>
          log.warn('the record of handed-out devices was not written; their pod is gone all the same', {
            uid,
            error,
          }),
        );
        sources.forget(uid);
        resize.forget(uid);
        housekeeping.podsChanged();
        podMetrics.changed();
        userNamespaces
          .release(uid)
          .catch((error: unknown) => log.warn('a user namespace is not given back', { uid, error }));
      },
    },
    { restartBackoff: restartBackoffUpTo(config.crashLoopBackOff.maxContainerRestartPeriod) },
  );

  const healthOf = (pod: Pod, container: string) => {
    const allocatedStatus = allocatedResourcesStatus(devices, pod.metadata.uid ?? '', container);
    return allocatedStatus ? { allocatedResourcesStatus: allocatedStatus } : {};
  };

  const podMetrics = createPodMetrics({
    clock,
    metrics,
    observer,
    desired: () => sources.list(),
    pods: () => workers.list(),
    lifecycles: () => workers.lifecycles(),
    volumes: () => volumes.counts(),
    seenAtMs: sources.seenAtMs,
    pulledForMs: (uid) =>
      Math.max(
        0,
        ...(workers.account(uid)?.timeline ?? [])
          .filter(({ what }) => what.startsWith('pull-image'))
          .map(({ tookMs = 0 }) => tookMs),
      ),
  });
  const housekeeping = createHousekeeping({
    clock,
    log,
    synced: () => pods.synced,
    alive: (uid) =>
      workers.get(uid) !== undefined || pods.get(uid) !== undefined || observer.last(uid).sandboxes.length > 0,
    kept: [
      {
        what: 'folders and volumes',
        uids: () => volumes.known(),
        async remove(uid, inner) {
          await volumes.tearDown(uid, inner);
          await removePodDirectory(join(rootDir, 'pods', uid), () => volumes.held(uid));
        },
        stays: async (uid) => (await volumes.held(uid)).length > 0,
        cleaned(removed, failed) {
          metrics.orphanedVolumesCleaned.set(removed);
          metrics.orphanedVolumesErrors.set(failed);
        },
      },
      {
        what: 'cgroups',
        uids: () => cgroups.pods.list(),
        remove: async (uid) => void (await cgroups.pods.remove(uid)),
      },
      podLogFolders(config.podLogsDir, clock),
      { what: 'user namespace', uids: () => userNamespaces.uids(), remove: (uid) => userNamespaces.release(uid) },
      { what: 'state', uids: () => states.uids(), remove: (uid) => states.remove(uid) },
    ],
    links,
    cgroups: cgroups.pods,
    activePods: () =>
      workers.list().filter(({ status }) => status?.phase !== 'Succeeded' && status?.phase !== 'Failed'),
  });

  const directory = createDirectory({ workers, observer, byName: sources.byName });
  const unsubscribe = objects.subscribe((holder) => workers.nudge(holder));

  const task = (name: string, run: AgentTask['run']): AgentTask => ({ name, run });
  const running = {
    clock,
    log,
    onFault: deps.onFault,
    relist: () => observer.relist(),
    node: () => node.node(),
    onNode: (listener: () => void) => node.onNode(listener),
    tasks: [
      task('node', (inner) => node.run(inner)),
      ...(standalone ? [] : [task('services', (inner) => services.run(inner))]),
      task('volumes', (inner) => volumes.run(inner)),
      ...upkeep.tasks,
      task('device plugins', (inner) => devices.run(inner)),
      ...(options.writeBridge
        ? [task('bridge network', (inner) => keepBridgeNetwork({ log, node }, { confDir: options.cniConfDir }, inner))]
        : []),
      task('runtime events', (inner) => observer.run(inner)),
    ],
    async listen(start: (task: AgentTask) => void) {
      const servers = await startServers(
        {
          ...deps,
          pods: directory,
          node,
          hostIps,
          figures: { metrics: registry, probeMetrics: probeRegistry, stats },
          counts: metrics,
        },
        options,
      );
      start(task('servers', servers.run));
      const podResources = await servePodResources(
        {
          plugins: devices,
          activePods: () => workers.list().filter(({ metadata }) => workers.holdsResources(metadata.uid ?? '')),
          metrics,
        },
        rootDir,
      );
      return () => podResources.close();
    },
    async limit(of: Node) {
      const { problem } = await cgroups.pods.prepare(enforcedLimits(of.status?.capacity ?? {}, config));
      if (problem) events.record(node.eventTarget, 'Warning', 'FailedNodeAllocatableEnforcement', problem);
      return problem === undefined;
    },
    podTasks: [task('housekeeping', (inner) => housekeeping.run(inner)), ...sources.tasks],
    closing: [
      () => workers.stop(),
      () => sources.stop(),
      () => states.flush(),
      () => statusWriter.stop(),
      unsubscribe,
      () => objects.stop(),
      () => prober.close(),
      () => oomKills.close(),
    ],
  };
  return {
    node,
    workers,
    directory,
    run: (runSignal) => runAgent(running, runSignal),
  };
}
