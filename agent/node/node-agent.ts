// The node as the cluster sees it: registers it, keeps its status and its Lease, watches the own Node object.
//
//   unknown ──facts read──▶ registering ──created or taken over──▶ registered ──Node deleted──▶ registering
//
// Three keys on one queue: `register`, `status`, `lease`. Each re-reads the world; failures back off to 7 s and anything that
// changes wakes `status` at once.
import { createKeyedQueue } from '../../lib/keyed-queue.ts';
import type { Clock } from '../../lib/clock.ts';
import type { Log } from '../../lib/log.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { KubeClient } from '../../kube/client.ts';
import type { EventRecorder, EventTarget } from '../../kube/events.ts';
import { isNotFound } from '../../kube/errors.ts';
import { type CreateReflector, createReflector } from '../../kube/reflector.ts';
import { resources } from '../../kube/resources.ts';
import type { Node, NodeAddress, NodeStatus, Taint } from '../../kube/types/core.ts';
import type { KubeletConfiguration } from '../config.ts';
import { createAddressFinder } from './address-finder.ts';
import { parseNodeIps } from './addresses.ts';
import { type ExtendedResources, nodeResources } from './capacity.ts';
import { type ConditionValue, noPressure, type Pressure, pressureConditions, readyCondition } from './conditions.ts';
import { goArchitecture, type HostFacts, readHostFacts } from './host-facts.ts';
import { createImageList } from './image-list.ts';
import { initialNode, type NodeIdentity, platformLabels, providedIpAnnotation, refusedLabels } from './initial-node.ts';
import type { InstanceMetadata } from './instance-metadata.ts';
import { createNodeLease, type NodeLease } from './lease.ts';
import { registerNode } from './registration.ts';
import { runtimeErrors } from './runtime-state.ts';
import { createRuntimeWatch } from './runtime-watch.ts';
import { computeStatus, statusChanged, statusPatch, transitions } from './status.ts';

export interface NodeAgentDeps {
  /** Absent: the agent runs alone, and the Node is known only here. */
  readonly client?: KubeClient | undefined;
  /** Default: that of kube/reflector.ts. */
  readonly createReflector?: CreateReflector;
  readonly runtime: Pick<Runtime, 'status' | 'version' | 'listImages' | 'updatePodCidr'>;
  readonly clock: Clock;
  readonly log: Log;
  readonly events: EventRecorder;
  /** Unique names of attachable volumes in use; undefined while they are still being found again after a restart. */
  volumesInUse?(): readonly string[] | undefined;
  /** What device plugins have. */
  extendedResources?(): ExtendedResources;
  /** Default: what /proc and /sys say. */
  hostFacts?(): Promise<HostFacts>;
  /** Default: by flag, name and default route. */
  addresses?(present: readonly NodeAddress[]): Promise<readonly NodeAddress[]>;
  /** Of the cloud instance, asked once; undefined where there is none. */
  instanceMetadata?(signal: AbortSignal): Promise<InstanceMetadata | undefined>;
  /** Random number in [0, 1), to spread heartbeats. */
  random?(): number;
}

export interface NodeAgentOptions {
  readonly nodeName: string;
  /** Default: nodeName. */
  readonly hostname?: string;
  /** As the flag `--node-ip` has it; empty: the default route's address. */
  readonly nodeIp: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly taints: readonly Taint[];
  readonly config: KubeletConfiguration;
  readonly rootDir: string;
  /** For example `v1.36.2+stevedore.0.1.0`. */
  readonly kubeletVersion: string;
  readonly externalCloudProvider?: boolean;
  /** Only what is true: the scheduler and the API server rely on it. */
  readonly declaredFeatures?: readonly string[];
  readonly cniConfDir?: string;
}

/** Says what keeps the node from being ready, in words; undefined where nothing does. */
export type ReadySource = () => string | undefined;

export interface NodeAgent {
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
  /** As the API server last showed it; before that, as it will be registered. Undefined before the host was looked at. */
  node(): Node | undefined;
  registered(): boolean;
  /** True where the status says Ready. */
  ready(): boolean;
  /** Told of every change of the own Node; `after` is undefined where it was deleted. Returns a function that ends it. */
  onNode(listener: (after: Node | undefined, before: Node | undefined) => void): () => void;
  /** Something that the status depends on changed: it is computed at once. */
  refresh(): void;
  /** The node is Ready only while every source says undefined. */
  addReadySource(source: ReadySource): () => void;
  /**
   * The same, but only on the way to being Ready: a node that was Ready on this boot, and whose daemon begins again, keeps it. To say no for a
   * second would take every pod of the node out of its Services.
   */
  addStartSource(source: ReadySource): () => void;
  /** Adds to the Ready condition's message without making it False. */
  addWarningSource(source: ReadySource): () => void;
  /** A condition of one's own, beside the kubelet's. */
  addCondition(source: () => ConditionValue): () => void;
  /** Memory, disk and PID pressure; set by eviction. */
  setPressure(pressure: Pressure): void;
  /** Images came or went: they are listed again. */
  imagesChanged(): void;
  /** The target for Events about this node. */
  readonly eventTarget: EventTarget;
}

type Key = 'register' | 'status' | 'lease';

const clockJumpMs = 10_000;
/** How long a stop waits for the API server to take one more renewal of the lease. */
const lastRenewalMs = 1_000;

export function createNodeAgent(deps: NodeAgentDeps, options: NodeAgentOptions): NodeAgent {
  const { client, clock, log, events } = deps;
  const { nodeName, config } = options;
  const hostname = options.hostname ?? nodeName;
  const nodeIps = parseNodeIps(options.nodeIp);
  const refused = refusedLabels(options.labels);
  if (refused.length > 0)
    throw new Error(
      `node labels ${refused.join(', ')}: a node may not give itself labels of kubernetes.io or k8s.io other than the known ones and those below kubelet.kubernetes.io and node.kubernetes.io`,
    );
  const externalCloudProvider = options.externalCloudProvider ?? false;
  // The kubelet's Events about its node carry the node's name as uid; those who look for them rely on it.
  const eventTarget: EventTarget = { apiVersion: 'v1', kind: 'Node', name: nodeName, uid: nodeName };

  const listeners = new Set<(after: Node | undefined, before: Node | undefined) => void>();
  const readySources = new Set<ReadySource>();
  const startSources = new Set<ReadySource>();
  const warningSources = new Set<ReadySource>();
  const conditionSources = new Set<() => ConditionValue>();
  let latest: Node | undefined;
  let registered = false;
  let facts: HostFacts | undefined;
  let instance: InstanceMetadata | undefined;
  let pressure: Pressure = noPressure;
  let reported: { readonly atMs: number; readonly everyMs: number } | undefined;
  let podCidr: string | undefined;
  let wall: { readonly now: number; readonly monotonic: number } | undefined;

  const tell = (after: Node | undefined): void => {
    const before = latest;
    latest = after;
    for (const listener of listeners) listener(after, before);
  };

  // Our own writes and the watch both bring the Node; what is older than what is known is dropped.
  const learn = (node: Node): void => {
    const [have, got] = [Number(latest?.metadata.resourceVersion), Number(node.metadata.resourceVersion)];
    if (latest?.metadata.uid === node.metadata.uid && got < have) return;
    const unschedulable = latest?.metadata.uid !== undefined && (latest.spec.unschedulable ?? false);
    const now = node.spec.unschedulable ?? false;
    if (latest?.metadata.uid !== undefined && unschedulable !== now)
      announce(now ? 'NodeNotSchedulable' : 'NodeSchedulable');
    tell(node);
  };

  const announce = (event: string): void =>
    events.record(eventTarget, 'Normal', event, `Node ${nodeName} status is now: ${event}`);

  const addresses = createAddressFinder(
    { clock, log, addresses: deps.addresses },
    { hostname, nodeIps, externalCloudProvider },
  );
  const images = createImageList({ runtime: deps.runtime, clock, log });
  const runtime = createRuntimeWatch(
    { runtime: deps.runtime, clock, log, onChange: () => queue.wake('status') },
    { cniConfDir: options.cniConfDir },
  );

  const identity = (): NodeIdentity => ({
    nodeName,
    hostname,
    architecture: facts?.architecture ?? goArchitecture(),
    labels: options.labels,
    taints: options.taints,
    providerId: config.providerID || (instance?.providerId ?? ''),
    externalCloudProvider,
    instanceLabels: instance?.labels ?? {},
  });

  const said = (sources: Iterable<ReadySource>): string[] =>
    [...sources].map((source) => source()).filter((text) => text !== undefined);

  const wasReady = (before: NodeStatus): boolean =>
    before.nodeInfo?.bootID === facts?.bootId &&
    before.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') === true;

  const conditions = (before: NodeStatus): ConditionValue[] => [
    ...pressureConditions(pressure),
    ...[...conditionSources].map((source) => source()),
    readyCondition(
      [
        ...runtimeErrors(runtime.state(), clock.monotonicMs()),
        ...said([addresses.error]),
        ...said(readySources),
        ...(wasReady(before) ? [] : said(startSources)),
      ],
      said(warningSources),
    ),
  ];

  const compute = async (before: NodeStatus, signal: AbortSignal) => {
    facts = deps.hostFacts ? await deps.hostFacts() : await readHostFacts({ rootDir: options.rootDir });
    await addresses.find(latest?.status?.addresses ?? []);
    const values = conditions(before);
    const status = computeStatus(
      before,
      {
        facts,
        resources: nodeResources(facts, config, deps.extendedResources?.()),
        addresses: addresses.found() ?? before.addresses ?? [],
        runtime: runtime.state(),
        kubeletVersion: options.kubeletVersion,
        port: config.port,
        images: await images.list(signal),
        maxImages: config.nodeStatusMaxImages,
        volumesInUse: deps.volumesInUse?.(),
        declaredFeatures: options.declaredFeatures ?? [],
        conditions: values,
      },
      new Date(Math.floor(clock.now() / 1000) * 1000).toISOString().replace('.000Z', 'Z'),
    );
    return { status, values };
  };

  const annotations = (): Record<string, string> =>
    externalCloudProvider && nodeIps.some((address) => address !== '0.0.0.0' && address !== '::')
      ? { [providedIpAnnotation]: nodeIps.join(',') }
      : {};

  const noteReboot = (before: NodeStatus): void => {
    const boot = before.nodeInfo?.bootID;
    if (boot && facts && boot !== facts.bootId)
      events.record(eventTarget, 'Warning', 'Rebooted', `Node ${nodeName} has been rebooted, boot id: ${facts.bootId}`);
  };

  const register = async (signal: AbortSignal): Promise<void> => {
    const { status, values } = await compute({}, signal);
    const wanted = initialNode(identity(), status, annotations());
    if (!client) {
      if (!registered) for (const { event } of values) if (event) announce(event);
      registered = true;
      tell(wanted);
      queue.wakeAfter('status', config.nodeStatusUpdateFrequency);
      return;
    }
    if (registered) return;
    // Pods of a manifest folder run before the API server is reached: their admission needs a Node.
    if (latest === undefined) tell(wanted);
    if (!config.registerNode) {
      learn(await client.get(resources.nodes, { name: nodeName }, { signal }));
      registered = true;
    } else {
      const { node, created } = await registerNode({ client, log }, identity(), wanted, signal);
      if (created) {
        reported = { atMs: clock.monotonicMs(), everyMs: reportEvery() };
        for (const { event } of values) if (event) announce(event);
      } else noteReboot(node.status ?? {});
      registered = true;
      learn(node);
    }
    queue.wake('lease');
    queue.wake('status');
  };

  // Spread, so that all nodes of a cluster do not write in the same second after the control plane came back.
  const reportEvery = (): number => config.nodeStatusReportFrequency * (0.5 + (deps.random ?? Math.random)());

  const usePodCidr = async (node: Node): Promise<void> => {
    const wanted = (node.spec.podCIDRs ?? (node.spec.podCIDR ? [node.spec.podCIDR] : [])).join(',');
    if (wanted === '' || wanted === podCidr) return;
    await deps.runtime.updatePodCidr(wanted);
    podCidr = wanted;
    log.info('the runtime was told the pod range', { podCidr });
  };

  const noticeClock = (): void => {
    const now = { now: clock.now(), monotonic: clock.monotonicMs() };
    const jump = wall ? now.now - wall.now - (now.monotonic - wall.monotonic) : 0;
    wall = now;
    if (Math.abs(jump) < clockJumpMs) return;
    log.warn('the clock jumped, or the host slept; the node reports at once', { byMs: Math.round(jump) });
    reported = undefined;
    queue.wake('lease');
  };

  const report = async (signal: AbortSignal): Promise<void> => {
    noticeClock();
    if (!client || !registered || !latest) {
      if (!client) await register(signal);
      return;
    }
    const base = latest;
    const before = base.status ?? {};
    const { status, values } = await compute(before, signal);
    await usePodCidr(base).catch((error: unknown) => log.warn('the runtime was not told the pod range', { error }));
    const labels = platformLabels(base, identity());
    const relabelled = Object.keys(labels).length > 0;
    const changed = statusChanged(before, status) || relabelled;
    const due = !reported || clock.monotonicMs() - reported.atMs >= reported.everyMs;
    if (changed || due) {
      try {
        const node = await client.patch(
          resources.nodes,
          { name: nodeName },
          {
            metadata: { uid: base.metadata.uid, ...(relabelled ? { labels } : {}) },
            status: statusPatch(before, status),
          },
          { type: 'strategic', subresource: 'status', signal },
        );
        const everyMs = changed || !reported ? reportEvery() : config.nodeStatusReportFrequency;
        reported = { atMs: clock.monotonicMs(), everyMs };
        for (const { event } of transitions(before, values)) if (event) announce(event);
        learn(node);
      } catch (error) {
        if (isNotFound(error)) lost();
        throw error;
      }
    }
    queue.wakeAfter('status', config.nodeStatusUpdateFrequency);
  };

  const lost = (): void => {
    if (!registered) return;
    registered = false;
    reported = undefined;
    log.warn('the Node object was deleted; registering again', { node: nodeName });
    queue.wake('register');
  };

  const lease = client
    ? createNodeLease(
        { client, clock, node: () => (registered ? latest : undefined) },
        { nodeName, durationSeconds: config.nodeLeaseDurationSeconds },
      )
    : undefined;

  // Until what the host and the runtime are is known, seconds pass, and on a slow host a minute: the control plane need not take the node for
  // lost. What fails here comes again with the registration, which says why.
  const renewEarly = ({ renewIfThere }: NodeLease, signal: AbortSignal): Promise<void> =>
    renewIfThere(signal).catch((error: unknown) => {
      signal.throwIfAborted();
      log.debug("the node's lease cannot be renewed before the node is registered", { node: nodeName, error });
    });

  // Pods go on without the agent: an upgrade has the whole of the lease to come back in before the control plane takes them for lost.
  const renewLast = async (): Promise<void> => {
    if (registered) await lease?.renew(AbortSignal.timeout(lastRenewalMs)).catch(() => undefined);
  };

  const queue = createKeyedQueue<Key>(
    {
      clock,
      async reconcile(key, signal) {
        switch (key) {
          case 'register':
            return register(signal);
          case 'status':
            return report(signal);
          case 'lease':
            if (!lease) return undefined;
            await (registered ? lease.renew(signal) : renewEarly(lease, signal));
            queue.wakeAfter(
              'lease',
              config.nodeLeaseDurationSeconds * 250 * (1 + 0.04 * (deps.random ?? Math.random)()),
            );
            return undefined;
        }
      },
      onError(key, error, retryInMs) {
        const what = {
          register: 'the node cannot be registered',
          status: "the node's status cannot be written",
          lease: "the node's lease cannot be renewed",
        }[key];
        log.warn(`${what}; trying again`, { node: nodeName, error, retryInMs: Math.round(retryInMs) });
      },
    },
    { backoff: { initialMs: 100, maxMs: 7000 } },
  );

  const watchNode = async (signal: AbortSignal): Promise<void> => {
    if (!client) return;
    const reflector = (deps.createReflector ?? createReflector)(
      { client, clock, log },
      {
        resource: resources.nodes,
        selection: { fieldSelector: `metadata.name=${nodeName}` },
        onChange({ before, after }) {
          if (after) {
            const replaced = before !== undefined && before.metadata.uid !== after.metadata.uid;
            learn(after);
            if (replaced) queue.wake('lease');
          } else if (registered && latest?.metadata.uid === before?.metadata.uid) {
            tell(undefined);
            lost();
          }
        },
        // The API server is back, perhaps after a long time: what could not be written is tried at once.
        onSync() {
          queue.wake(registered ? 'status' : 'register');
          queue.wake('lease');
        },
      },
    );
    await reflector.run(signal);
  };

  const source =
    <T>(set: Set<T>) =>
    (item: T): (() => void) => {
      set.add(item);
      queue.wake('status');
      return () => {
        set.delete(item);
        queue.wake('status');
      };
    };

  return {
    eventTarget,
    node: () => latest,
    registered: () => registered,
    ready: () => latest?.status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True',
    onNode(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    refresh: () => queue.wake('status'),
    addReadySource: source(readySources),
    addStartSource: source(startSources),
    addWarningSource: source(warningSources),
    addCondition: source(conditionSources),
    setPressure(next) {
      if (next.memory === pressure.memory && next.disk === pressure.disk && next.pid === pressure.pid) return;
      pressure = next;
      queue.wake('status');
    },
    imagesChanged() {
      images.changed();
      queue.wake('status');
    },
    async run(signal) {
      events.record(eventTarget, 'Normal', 'Starting', 'Starting kubelet.');
      queue.wake('lease');
      const [metadata] = await Promise.all([deps.instanceMetadata?.(signal), runtime.ask(signal)]);
      instance = metadata;
      queue.wake('register');
      try {
        await Promise.all([runtime.run(signal), watchNode(signal)]);
      } finally {
        await queue.stop();
        await renewLast();
      }
    },
  };
}
