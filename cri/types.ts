// What a container runtime is told and tells, in the terms of CRI v1 (k8s.io/cri-api/pkg/apis/runtime/v1/api.proto) in camelCase.
// Times are milliseconds since the epoch, sizes are bytes, CPU is in nanoseconds or nanocores.

declare const brand: unique symbol;
export type SandboxId = string & { readonly [brand]?: 'SandboxId' };
export type ContainerId = string & { readonly [brand]?: 'ContainerId' };

export interface RuntimeVersion {
  readonly runtimeName: string;
  readonly runtimeVersion: string;
  readonly runtimeApiVersion: string;
}

export interface RuntimeCondition {
  /** `RuntimeReady`, `NetworkReady` and others. */
  readonly type: string;
  readonly status: boolean;
  readonly reason: string;
  readonly message: string;
}

export interface RuntimeHandler {
  /** Empty for the default handler. */
  readonly name: string;
  readonly recursiveReadOnlyMounts: boolean;
  readonly userNamespaces: boolean;
}

export interface RuntimeStatus {
  readonly conditions: readonly RuntimeCondition[];
  readonly runtimeHandlers: readonly RuntimeHandler[];
  readonly supplementalGroupsPolicy: boolean;
  /** Undefined where the runtime does not tell. */
  readonly cgroupDriver: 'cgroupfs' | 'systemd' | undefined;
  /** The version of Kubernetes that asks more of a runtime than this one can. */
  readonly losingSupport?: string | undefined;
  /** Folders of the runtime's state, where it tells them. */
  readonly snapshotterRoot?: string | undefined;
  /** The image that every sandbox runs, where the runtime tells it: it must not be collected. */
  readonly sandboxImage?: string | undefined;
}

/** Whose namespace a sandbox or container uses. */
export type NamespaceMode = 'pod' | 'container' | 'node' | 'target';

export interface IdMapping {
  readonly hostId: number;
  readonly containerId: number;
  readonly length: number;
}

export interface NamespaceOptions {
  readonly network: NamespaceMode;
  readonly pid: NamespaceMode;
  readonly ipc: NamespaceMode;
  /** With `pid: 'target'`. */
  readonly targetId?: ContainerId;
  readonly userns?: {
    readonly mode: 'pod' | 'node';
    readonly uids: readonly IdMapping[];
    readonly gids: readonly IdMapping[];
  };
}

export interface SecurityProfile {
  readonly type: 'RuntimeDefault' | 'Unconfined' | 'Localhost';
  /** With `Localhost`: the profile's absolute path (seccomp) or name (AppArmor). */
  readonly localhostRef?: string;
}

export interface SELinux {
  readonly user: string;
  readonly role: string;
  readonly type: string;
  readonly level: string;
}

export interface PortMapping {
  readonly protocol: 'TCP' | 'UDP' | 'SCTP';
  readonly containerPort: number;
  readonly hostPort: number;
  readonly hostIp: string;
}

export interface SandboxMetadata {
  readonly name: string;
  readonly uid: string;
  readonly namespace: string;
  readonly attempt: number;
}

export interface SandboxSecurity {
  readonly namespaces: NamespaceOptions;
  readonly selinux?: SELinux;
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
  readonly readonlyRootfs: boolean;
  readonly supplementalGroups: readonly number[];
  readonly supplementalGroupsPolicy: 'Merge' | 'Strict';
  readonly privileged: boolean;
  readonly seccomp?: SecurityProfile;
  readonly apparmor?: SecurityProfile;
}

export interface SandboxConfig {
  readonly metadata: SandboxMetadata;
  /** Empty on the host's network: runc refuses to name a host that is not the pod's own. */
  readonly hostname: string;
  readonly logDirectory: string;
  /** Undefined: the runtime copies the host's resolv.conf. */
  readonly dns?: {
    readonly servers: readonly string[];
    readonly searches: readonly string[];
    readonly options: readonly string[];
  };
  readonly portMappings: readonly PortMapping[];
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly cgroupParent: string;
  readonly sysctls: Readonly<Record<string, string>>;
  readonly security: SandboxSecurity;
  readonly overhead?: LinuxResources;
  readonly resources?: LinuxResources;
}

export type SandboxState = 'ready' | 'notready';

/** What the list calls tell of a sandbox. */
export interface SandboxSummary {
  readonly id: SandboxId;
  readonly metadata: SandboxMetadata;
  readonly state: SandboxState;
  readonly createdAtMs: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly runtimeHandler: string;
}

export interface SandboxStatus extends SandboxSummary {
  /** The pod's addresses, the primary first; empty under host network. */
  readonly ips: readonly string[];
  readonly namespaces: NamespaceOptions | undefined;
  /** From the verbose answer, where the runtime gives it: the sandbox's process and its network namespace. */
  readonly pid?: number | undefined;
  readonly networkNamespace?: string | undefined;
  /** From the verbose answer too: what the sandbox was made of. */
  readonly image?: string | undefined;
}

export interface LinuxResources {
  readonly cpuPeriod?: number;
  readonly cpuQuota?: number;
  readonly cpuShares?: number;
  readonly memoryLimitInBytes?: number;
  readonly memorySwapLimitInBytes?: number;
  readonly oomScoreAdj?: number;
  readonly cpusetCpus?: string;
  readonly cpusetMems?: string;
  readonly hugepageLimits?: readonly { readonly pageSize: string; readonly limit: number }[];
  readonly unified?: Readonly<Record<string, string>>;
}

export interface Mount {
  readonly containerPath: string;
  readonly hostPath: string;
  readonly readonly: boolean;
  readonly recursiveReadOnly: boolean;
  readonly selinuxRelabel: boolean;
  readonly propagation: 'private' | 'host-to-container' | 'bidirectional';
  /** An image mounted as a volume instead of `hostPath`. */
  readonly image?: ImageSpec;
  readonly imageSubPath?: string;
  readonly uidMappings?: readonly IdMapping[];
  readonly gidMappings?: readonly IdMapping[];
}

export interface Device {
  readonly containerPath: string;
  readonly hostPath: string;
  /** A subset of `rwm`. */
  readonly permissions: string;
}

export interface CdiDevice {
  readonly name: string;
}

export interface ImageSpec {
  readonly image: string;
  readonly annotations?: Readonly<Record<string, string>>;
  /** As the user wrote it in the pod's spec. */
  readonly userSpecifiedImage?: string;
  readonly runtimeHandler?: string;
}

export interface ContainerSecurity {
  readonly capabilities: { readonly add: readonly string[]; readonly drop: readonly string[] };
  readonly privileged: boolean;
  readonly namespaces: NamespaceOptions;
  readonly selinux?: SELinux;
  readonly runAsUser?: number;
  readonly runAsGroup?: number;
  readonly runAsUsername?: string;
  readonly readonlyRootfs: boolean;
  readonly supplementalGroups: readonly number[];
  readonly supplementalGroupsPolicy: 'Merge' | 'Strict';
  readonly noNewPrivs: boolean;
  readonly maskedPaths: readonly string[];
  readonly readonlyPaths: readonly string[];
  readonly seccomp?: SecurityProfile;
  readonly apparmor?: SecurityProfile;
}

export interface ContainerMetadata {
  readonly name: string;
  /** How often the container was created before in this pod: the restart count. */
  readonly attempt: number;
}

export interface ContainerConfig {
  readonly metadata: ContainerMetadata;
  readonly image: ImageSpec;
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly workingDir: string;
  readonly envs: readonly { readonly key: string; readonly value: string }[];
  readonly mounts: readonly Mount[];
  readonly devices: readonly Device[];
  readonly cdiDevices: readonly CdiDevice[];
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  /** Relative to the sandbox's log directory. */
  readonly logPath: string;
  readonly stdin: boolean;
  readonly stdinOnce: boolean;
  readonly tty: boolean;
  readonly resources: LinuxResources;
  readonly security: ContainerSecurity;
  /** For example `SIGUSR1`; undefined: the image's. */
  readonly stopSignal?: string;
}

export type ContainerRuntimeState = 'created' | 'running' | 'exited' | 'unknown';

/** What the list calls tell of a container. */
export interface ContainerSummary {
  readonly id: ContainerId;
  readonly sandboxId: SandboxId;
  readonly metadata: ContainerMetadata;
  readonly image: string;
  readonly imageRef: string;
  readonly imageId: string;
  readonly state: ContainerRuntimeState;
  readonly createdAtMs: number;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

export interface ContainerInspection {
  readonly id: ContainerId;
  readonly metadata: ContainerMetadata;
  readonly state: ContainerRuntimeState;
  readonly createdAtMs: number;
  /** 0 where it did not start. */
  readonly startedAtMs: number;
  /** 0 where it did not end. */
  readonly finishedAtMs: number;
  readonly exitCode: number;
  readonly image: string;
  readonly imageRef: string;
  readonly imageId: string;
  /** For example `Completed`, `Error`, `OOMKilled`. */
  readonly reason: string;
  readonly message: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly mounts: readonly Mount[];
  /** Absolute path of the log file; empty where there is none. */
  readonly logPath: string;
  readonly resources?: LinuxResources | undefined;
  readonly user?:
    | { readonly uid: number; readonly gid: number; readonly supplementalGroups: readonly number[] }
    | undefined;
  readonly stopSignal?: string | undefined;
  /** From the verbose answer, where the runtime gives it. */
  readonly pid?: number | undefined;
}

export interface Image {
  readonly id: string;
  readonly repoTags: readonly string[];
  readonly repoDigests: readonly string[];
  readonly sizeBytes: number;
  /** The image's user where it is a number. */
  readonly uid?: number | undefined;
  readonly username: string;
  readonly pinned: boolean;
}

export interface RegistryAuth {
  readonly username?: string;
  readonly password?: string;
  /** base64 of `username:password`. */
  readonly auth?: string;
  readonly serverAddress?: string;
  readonly identityToken?: string;
  readonly registryToken?: string;
}

export interface FilesystemUsage {
  readonly timestampMs: number;
  readonly mountpoint: string;
  readonly usedBytes: number;
  readonly inodesUsed: number;
}

export interface ContainerStats {
  readonly id: ContainerId;
  readonly metadata: ContainerMetadata;
  readonly labels: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
  readonly cpu?:
    | {
        readonly timestampMs: number;
        readonly usageCoreNanoSeconds: number;
        readonly usageNanoCores?: number | undefined;
      }
    | undefined;
  readonly memory?:
    | {
        readonly timestampMs: number;
        readonly workingSetBytes: number;
        readonly availableBytes?: number | undefined;
        readonly usageBytes?: number | undefined;
        readonly rssBytes?: number | undefined;
        readonly pageFaults?: number | undefined;
        readonly majorPageFaults?: number | undefined;
      }
    | undefined;
  readonly writableLayer?: FilesystemUsage | undefined;
  readonly swap?:
    | { readonly timestampMs: number; readonly availableBytes: number; readonly usageBytes: number }
    | undefined;
}

export interface ExecSyncResult {
  readonly stdout: Uint8Array;
  readonly stderr: Uint8Array;
  readonly exitCode: number;
}

/** Where the bytes of a stream go: a CRI runtime gives a URL to connect to, Docker hands over the connection itself. */
export type StreamEndpoint =
  | { readonly kind: 'url'; readonly url: string }
  | { readonly kind: 'duplex'; readonly open: StreamOpener };

export interface StreamChannels {
  readonly stdin: ReadableStream<Uint8Array> | undefined;
  readonly stdout: WritableStream<Uint8Array> | undefined;
  readonly stderr: WritableStream<Uint8Array> | undefined;
  readonly resize: AsyncIterable<{ width: number; height: number }>;
}

/** Runs the stream to its end; resolves with the exit code of an exec, 0 of an attach. */
export type StreamOpener = (channels: StreamChannels, signal: AbortSignal) => Promise<number>;

/** Connects to a port inside a sandbox. */
export type PortOpener = (
  port: number,
  signal: AbortSignal,
) => Promise<{ readable: ReadableStream<Uint8Array>; writable: WritableStream<Uint8Array> }>;

export type PortForwardEndpoint =
  | { readonly kind: 'url'; readonly url: string }
  | { readonly kind: 'duplex'; readonly open: PortOpener };

export interface ExecRequest {
  readonly containerId: ContainerId;
  readonly command: readonly string[];
  readonly tty: boolean;
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
}

export type AttachRequest = Omit<ExecRequest, 'command'>;

/** Something happened to a container or sandbox; a hint to look again, no more. `lost` means events may have been missed. */
export type RuntimeEvent = ContainerEvent | EndingEvent | ImagesEvent | { readonly kind: 'lost' };

/** Images, or their names, may have changed. Not all runtimes tell. */
export interface ImagesEvent {
  readonly kind: 'images';
  /** From now on each change is told of, until an event says otherwise: `lost` does. */
  readonly told: boolean;
}

export interface ContainerEvent {
  readonly kind: 'created' | 'started' | 'stopped' | 'deleted' | 'oom';
  readonly containerId: string;
  readonly sandboxId: SandboxId | undefined;
  readonly podUid: string | undefined;
  /** Of a container that has started or stopped, where its inspection came with the news. */
  readonly inspection?: ContainerInspection | undefined;
}

/** The process of a container or sandbox has ended, and the runtime has not noted it yet: `stopped` follows when it has. Not all runtimes tell. */
export interface EndingEvent extends ContainerEnding {
  readonly kind: 'ending';
  readonly containerId: string;
}

export interface ContainerEnding {
  readonly exitCode: number;
  readonly finishedAtMs: number;
}

export interface SandboxFilter {
  readonly id?: SandboxId;
  readonly podUid?: string;
}

export interface ContainerFilter {
  readonly id?: ContainerId;
  readonly sandboxId?: SandboxId;
  readonly podUid?: string;
}
