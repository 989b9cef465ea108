// The metrics of the kubelet's half, under Kubernetes' own names, labels and buckets. Made once where things are wired; other rooms are
// handed the ones they feed: `Pick<KubeletMetrics, 'runningPods'>`.
import { counter, gauge, histogram, type MetricsRegistry } from '../../lib/metrics.ts';

const defaultBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const podStartBuckets = [
  0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
];
const pullBuckets = [1, 5, 10, 20, 30, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600];
const statusSyncBuckets = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 20, 30, 45, 60];
const resizeBuckets = [10, 50, 100, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000];
const runtimeBuckets = Array.from({ length: 14 }, (_, power) => 0.005 * 2.5 ** power);

export type KubeletMetrics = ReturnType<typeof createKubeletMetrics>;

function podMetrics(r: MetricsRegistry) {
  return {
    nodeName: gauge(r, {
      name: 'kubelet_node_name',
      help: "The node's name. The count is always 1.",
      labels: ['node'],
    }),
    runningPods: gauge(r, { name: 'kubelet_running_pods', help: 'Number of pods that have a running pod sandbox' }),
    runningContainers: gauge(r, {
      name: 'kubelet_running_containers',
      help: 'Number of containers by their state: created, running, exited or unknown',
      labels: ['container_state'],
    }),
    desiredPods: gauge(r, {
      name: 'kubelet_desired_pods',
      help: 'The number of pods the node is told to run',
      labels: ['static'],
    }),
    activePods: gauge(r, {
      name: 'kubelet_active_pods',
      help: 'The number of pods the node considers active',
      labels: ['static'],
    }),
    mirrorPods: gauge(r, {
      name: 'kubelet_mirror_pods',
      help: 'The number of mirror pods the node will try to create',
    }),
    workingPods: gauge(r, {
      name: 'kubelet_working_pods',
      help: 'Number of pods the node is working on, by lifecycle (sync, terminating, terminated), source and whether they are static',
      labels: ['lifecycle', 'config', 'static'],
    }),
    orphanedRuntimePods: counter(r, {
      name: 'kubelet_orphaned_runtime_pods_total',
      help: 'Number of pods found in the runtime that no source knew',
    }),
    restartedPods: counter(r, {
      name: 'kubelet_restarted_pods_total',
      help: 'Number of pods that were deleted and made again with the same UID',
      labels: ['static'],
    }),
    podStart: histogram(r, {
      name: 'kubelet_pod_start_duration_seconds',
      help: 'Seconds from the node seeing a pod for the first time to the pod starting to run',
      buckets: podStartBuckets,
    }),
    podStartSli: histogram(r, {
      name: 'kubelet_pod_start_sli_duration_seconds',
      help: 'Seconds from creation of a pod to all its containers seen started, without image pulls and init containers',
      buckets: podStartBuckets,
    }),
    podStartTotal: histogram(r, {
      name: 'kubelet_pod_start_total_duration_seconds',
      help: 'Seconds from creation of a pod to all its containers seen started, with image pulls and init containers',
      buckets: podStartBuckets,
    }),
    podWorker: histogram(r, {
      name: 'kubelet_pod_worker_duration_seconds',
      help: 'Seconds to sync one pod, by operation: create, update or sync',
      labels: ['operation_type'],
      buckets: defaultBuckets,
    }),
    podWorkerStart: histogram(r, {
      name: 'kubelet_pod_worker_start_duration_seconds',
      help: 'Seconds from seeing a pod to starting its worker',
      buckets: defaultBuckets,
    }),
    podStatusSync: histogram(r, {
      name: 'kubelet_pod_status_sync_duration_seconds',
      help: 'Seconds to write a pod status to the API server',
      buckets: statusSyncBuckets,
    }),
    admissionRejections: counter(r, {
      name: 'kubelet_admission_rejections_total',
      help: 'Number of pods refused at admission on the node',
      labels: ['reason'],
    }),
    preemptions: counter(r, {
      name: 'kubelet_preemptions',
      help: 'Number of pods preempted, by what was short',
      labels: ['preemption_signal'],
    }),
    evictions: counter(r, {
      name: 'kubelet_evictions',
      help: 'Number of pods evicted, by signal',
      labels: ['eviction_signal'],
    }),
    evictionStatsAge: histogram(r, {
      name: 'kubelet_eviction_stats_age_seconds',
      help: 'Seconds between the statistics being taken and the pod being evicted on them, by signal',
      labels: ['eviction_signal'],
      buckets: defaultBuckets,
    }),
    managedEphemeralContainers: gauge(r, {
      name: 'kubelet_managed_ephemeral_containers',
      help: 'Number of ephemeral containers in pods of this node',
    }),
    requestedResizes: counter(r, {
      name: 'kubelet_container_requested_resizes_total',
      help: 'Number of requested resizes of containers',
      labels: ['resource', 'requirement', 'operation'],
    }),
    resizeDuration: histogram(r, {
      name: 'kubelet_pod_resize_duration_milliseconds',
      help: 'Milliseconds to carry out a resize of a pod',
      labels: ['success'],
      buckets: resizeBuckets,
    }),
    pendingResizes: gauge(r, {
      name: 'kubelet_pod_pending_resizes',
      help: 'Number of pending resizes of pods',
      labels: ['reason'],
    }),
    infeasibleResizes: counter(r, {
      name: 'kubelet_pod_infeasible_resizes_total',
      help: 'Number of infeasible resizes of pods',
      labels: ['reason_detail'],
    }),
    inProgressResizes: gauge(r, {
      name: 'kubelet_pod_in_progress_resizes',
      help: 'Number of resizes of pods under way',
    }),
  };
}

function runtimeMetrics(r: MetricsRegistry) {
  return {
    relist: histogram(r, {
      name: 'kubelet_pleg_relist_duration_seconds',
      help: 'Seconds to list what the runtime runs',
      buckets: defaultBuckets,
    }),
    relistInterval: histogram(r, {
      name: 'kubelet_pleg_relist_interval_seconds',
      help: 'Seconds between two lists of what the runtime runs',
      buckets: defaultBuckets,
    }),
    relistLastSeen: gauge(r, {
      name: 'kubelet_pleg_last_seen_seconds',
      help: 'When the runtime was last listed with success, in seconds since the epoch',
    }),
    discardedEvents: counter(r, {
      name: 'kubelet_pleg_discard_events',
      help: 'Number of times events of the runtime were lost; what it runs is listed then',
    }),
    runtimeOperations: counter(r, {
      name: 'kubelet_runtime_operations_total',
      help: 'Number of calls of the runtime, by operation',
      labels: ['operation_type'],
    }),
    runtimeOperationDuration: histogram(r, {
      name: 'kubelet_runtime_operations_duration_seconds',
      help: 'Seconds a call of the runtime took, by operation',
      labels: ['operation_type'],
      buckets: runtimeBuckets,
    }),
    runtimeOperationErrors: counter(r, {
      name: 'kubelet_runtime_operations_errors_total',
      help: 'Number of calls of the runtime that failed, by operation',
      labels: ['operation_type'],
    }),
    runSandbox: histogram(r, {
      name: 'kubelet_run_podsandbox_duration_seconds',
      help: 'Seconds to run a sandbox, by runtime class handler',
      labels: ['runtime_handler'],
      buckets: defaultBuckets,
    }),
    runSandboxErrors: counter(r, {
      name: 'kubelet_run_podsandbox_errors_total',
      help: 'Number of sandboxes that could not be run, by runtime class handler',
      labels: ['runtime_handler'],
    }),
    startedPods: counter(r, { name: 'kubelet_started_pods_total', help: 'Number of pods started' }),
    startedPodsErrors: counter(r, {
      name: 'kubelet_started_pods_errors_total',
      help: 'Number of errors when starting pods',
    }),
    startedUserNamespacedPods: counter(r, {
      name: 'kubelet_started_user_namespaced_pods_total',
      help: 'Number of pods with a user namespace of their own that were started',
    }),
    startedUserNamespacedPodsErrors: counter(r, {
      name: 'kubelet_started_user_namespaced_pods_errors_total',
      help: 'Number of errors when starting pods with a user namespace of their own',
    }),
    startedContainers: counter(r, {
      name: 'kubelet_started_containers_total',
      help: 'Number of containers started, by type',
      labels: ['container_type'],
    }),
    startedContainersErrors: counter(r, {
      name: 'kubelet_started_containers_errors_total',
      help: 'Number of errors when starting containers, by type and code',
      labels: ['container_type', 'code'],
    }),
    terminatedContainers: counter(r, {
      name: 'kubelet_terminated_containers_total',
      help: 'Number of containers that ended, by type, exit code and reason',
      labels: ['container_type', 'exit_code', 'reason'],
    }),
    imageGarbageCollected: counter(r, {
      name: 'kubelet_image_garbage_collected_total',
      help: 'Number of images removed by garbage collection, by reason: age or space',
      labels: ['reason'],
    }),
    imageRequests: counter(r, {
      name: 'kubelet_image_manager_ensure_image_requests_total',
      help: 'Number of times an image was asked for, by pull policy, whether it was there, and whether it had to be pulled',
      labels: ['pull_policy', 'present_locally', 'pull_required'],
    }),
    imageVolumesRequested: counter(r, {
      name: 'kubelet_image_volume_requested_total',
      help: 'Number of image volumes that containers asked for',
    }),
    imageVolumesMounted: counter(r, {
      name: 'kubelet_image_volume_mounted_succeed_total',
      help: 'Number of image volumes mounted',
    }),
    imageVolumesFailed: counter(r, {
      name: 'kubelet_image_volume_mounted_errors_total',
      help: 'Number of image volumes that could not be mounted',
    }),
    runtimeLosingSupport: gauge(r, {
      name: 'kubelet_cri_losing_support',
      help: 'The version of Kubernetes that no longer works with this runtime as it is',
      labels: ['version'],
    }),
    imagePull: histogram(r, {
      name: 'kubelet_image_pull_duration_seconds',
      help: 'Seconds to pull an image, by its size',
      labels: ['image_size_in_bytes'],
      buckets: pullBuckets,
    }),
    hookHttpFallbacks: counter(r, {
      name: 'kubelet_lifecycle_handler_http_fallbacks_total',
      help: 'Number of times a lifecycle handler fell back from https to http',
    }),
    sleepActionTerminatedEarly: counter(r, {
      name: 'kubelet_sleep_action_terminated_early_total',
      help: 'Number of times a sleep hook ended before its time',
    }),
  };
}

function hostMetrics(r: MetricsRegistry) {
  return {
    cgroupOperations: histogram(r, {
      name: 'kubelet_cgroup_manager_duration_seconds',
      help: 'Seconds a cgroup operation took, by operation',
      labels: ['operation_type'],
      buckets: defaultBuckets,
    }),
    cgroupVersion: gauge(r, { name: 'kubelet_cgroup_version', help: 'The version of cgroups on the host' }),
    shutdownStart: gauge(r, {
      name: 'kubelet_graceful_shutdown_start_time_seconds',
      help: 'When the last graceful shutdown began, in seconds since the epoch',
    }),
    shutdownEnd: gauge(r, {
      name: 'kubelet_graceful_shutdown_end_time_seconds',
      help: 'When the last graceful shutdown ended, in seconds since the epoch',
    }),
    devicePluginRegistrations: counter(r, {
      name: 'kubelet_device_plugin_registration_total',
      help: 'Number of registrations of device plugins, by resource',
      labels: ['resource_name'],
    }),
    deviceAllocation: histogram(r, {
      name: 'kubelet_device_plugin_alloc_duration_seconds',
      help: 'Seconds to allocate devices, by resource',
      labels: ['resource_name'],
      buckets: defaultBuckets,
    }),
    podResourcesRequests: counter(r, {
      name: 'kubelet_pod_resources_endpoint_requests_total',
      help: 'Number of requests to the PodResources API, by version of the API',
      labels: ['server_api_version'],
    }),
    podResourcesLists: counter(r, {
      name: 'kubelet_pod_resources_endpoint_requests_list',
      help: 'Number of requests to the List method of the PodResources API, by version of the API',
      labels: ['server_api_version'],
    }),
    podResourcesAllocatables: counter(r, {
      name: 'kubelet_pod_resources_endpoint_requests_get_allocatable',
      help: 'Number of requests to the GetAllocatableResources method of the PodResources API, by version of the API',
      labels: ['server_api_version'],
    }),
    podResourcesGets: counter(r, {
      name: 'kubelet_pod_resources_endpoint_requests_get',
      help: 'Number of requests to the Get method of the PodResources API, by version of the API',
      labels: ['server_api_version'],
    }),
    podResourcesListErrors: counter(r, {
      name: 'kubelet_pod_resources_endpoint_errors_list',
      help: 'Number of requests to the List method of the PodResources API that failed, by version of the API',
      labels: ['server_api_version'],
    }),
    podResourcesAllocatableErrors: counter(r, {
      name: 'kubelet_pod_resources_endpoint_errors_get_allocatable',
      help: 'Number of requests to the GetAllocatableResources method of the PodResources API that failed, by version of the API',
      labels: ['server_api_version'],
    }),
    podResourcesGetErrors: counter(r, {
      name: 'kubelet_pod_resources_endpoint_errors_get',
      help: 'Number of requests to the Get method of the PodResources API that failed, by version of the API',
      labels: ['server_api_version'],
    }),
    orphanedVolumesCleaned: gauge(r, {
      name: 'kubelet_orphan_pod_cleaned_volumes',
      help: 'The number of orphaned pod volumes cleaned in the last round',
    }),
    orphanedVolumesErrors: gauge(r, {
      name: 'kubelet_orphan_pod_cleaned_volumes_errors',
      help: 'The number of orphaned pods whose volumes could not be cleaned in the last round',
    }),
    storageOperations: histogram(r, {
      name: 'storage_operation_duration_seconds',
      help: 'Seconds a storage operation took',
      labels: ['volume_plugin', 'operation_name', 'status', 'migrated'],
      buckets: [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600],
    }),
    managedVolumes: gauge(r, {
      name: 'volume_manager_total_volumes',
      help: 'Number of volumes, by plugin and by state: desired_state_of_world or actual_state_of_world',
      labels: ['plugin_name', 'state'],
    }),
  };
}

function serverMetrics(r: MetricsRegistry) {
  return {
    httpRequests: counter(r, {
      name: 'kubelet_http_requests_total',
      help: 'Number of HTTP requests received',
      labels: ['long_running', 'method', 'path', 'server_type'],
    }),
    httpDuration: histogram(r, {
      name: 'kubelet_http_requests_duration_seconds',
      help: 'Seconds to serve HTTP requests',
      labels: ['long_running', 'method', 'path', 'server_type'],
      buckets: defaultBuckets,
    }),
    httpInflight: gauge(r, {
      name: 'kubelet_http_inflight_requests',
      help: 'Number of HTTP requests being served',
      labels: ['long_running', 'method', 'path', 'server_type'],
    }),
    webSocketStreams: counter(r, {
      name: 'kubelet_websocket_streaming_requests_total',
      help: 'Number of streams (exec, attach, portforward) asked for by WebSocket (version 5, or a tunnel of SPDY)',
      labels: ['subresource'],
    }),
    buildInfo: gauge(r, {
      name: 'kubernetes_build_info',
      help: 'A metric with a constant 1, labelled by what was built',
      labels: [
        'git_version',
        'platform',
        'go_version',
        'major',
        'minor',
        'git_commit',
        'git_tree_state',
        'build_date',
        'compiler',
      ],
    }),
  };
}

const mebibyte = 1024 * 1024;
const sizeRanges: readonly (readonly [aboveMebibytes: number, label: string])[] = [
  [100 * 1024, 'GT100GB'],
  [60 * 1024, '60GB-100GB'],
  [40 * 1024, '40GB-60GB'],
  [30 * 1024, '30GB-40GB'],
  [20 * 1024, '20GB-30GB'],
  [10 * 1024, '10GB-20GB'],
  [5 * 1024, '5GB-10GB'],
  [1024, '1GB-5GB'],
  [500, '500MB-1GB'],
  [100, '100MB-500MB'],
  [10, '10MB-100MB'],
  [0, '0-10MB'],
];

/** The label of an image's size; an unknown size is 0. */
export const imageSizeRange = (bytes: number): string =>
  sizeRanges.find(([above]) => bytes > above * mebibyte)?.[1] ?? 'N/A';

/** Of kubernetes_build_info, from a version as `v1.36.2+stevedore.0.1.0`. */
export function buildLabels(version: string) {
  const [, major = '', minor = ''] = /^v(\d+)\.(\d+)/.exec(version) ?? [];
  return {
    git_version: version,
    platform: `${process.platform}/${process.arch === 'x64' ? 'amd64' : process.arch}`,
    go_version: '',
    major,
    minor,
    git_commit: '',
    git_tree_state: '',
    build_date: '',
    compiler: '',
  };
}

export function createKubeletMetrics(registry: MetricsRegistry) {
  return {
    ...podMetrics(registry),
    ...runtimeMetrics(registry),
    ...hostMetrics(registry),
    ...serverMetrics(registry),
  };
}
