// The runtime port with its calls counted and timed, under the names that the kubelet gives them.
import type { Runtime } from '../../cri/runtime.ts';
import type { Clock } from '../../lib/clock.ts';
import type { KubeletMetrics } from '../server/kubelet-metrics.ts';

const names: Readonly<Record<Exclude<keyof Runtime, 'events' | 'close'>, string>> = {
  version: 'version',
  status: 'status',
  updatePodCidr: 'update_runtime_config',
  runSandbox: 'run_podsandbox',
  stopSandbox: 'stop_podsandbox',
  removeSandbox: 'remove_podsandbox',
  listSandboxes: 'list_podsandbox',
  sandboxStatus: 'podsandbox_status',
  createContainer: 'create_container',
  startContainer: 'start_container',
  stopContainer: 'stop_container',
  removeContainer: 'remove_container',
  listContainers: 'list_containers',
  inspectContainer: 'container_status',
  updateContainerResources: 'update_container',
  reopenContainerLog: 'reopen_container_log',
  checkpointContainer: 'checkpoint_container',
  execSync: 'exec_sync',
  exec: 'exec',
  attach: 'attach',
  portForward: 'port_forward',
  pullImage: 'pull_image',
  imageStatus: 'image_status',
  listImages: 'list_images',
  removeImage: 'remove_image',
  imageFilesystem: 'image_fs_info',
  containerStats: 'container_stats',
  listContainerStats: 'list_container_stats',
};

type Metrics = Pick<
  KubeletMetrics,
  | 'runtimeOperations'
  | 'runtimeOperationDuration'
  | 'runtimeOperationErrors'
  | 'runSandbox'
  | 'runSandboxErrors'
  | 'startedPods'
  | 'startedPodsErrors'
>;

export function createMeasuredRuntime(
  runtime: Runtime,
  deps: { readonly clock: Clock; readonly metrics: Metrics },
): Runtime {
  const { clock, metrics } = deps;

  const measured =
    <Args extends unknown[], Result>(name: string, call: (...args: Args) => Promise<Result>) =>
    async (...args: Args): Promise<Result> => {
      const begunMs = clock.monotonicMs();
      const labels = { operation_type: name };
      metrics.runtimeOperations.inc(labels);
      try {
        return await call(...args);
      } catch (error) {
        metrics.runtimeOperationErrors.inc(labels);
        throw error;
      } finally {
        metrics.runtimeOperationDuration.observe(labels, (clock.monotonicMs() - begunMs) / 1000);
      }
    };

  const calls = Object.fromEntries(
    Object.entries(names).map(([key, name]) => {
      const call = runtime[key as keyof typeof names] as (...args: unknown[]) => Promise<unknown>;
      return [key, measured(name, (...args: unknown[]) => call.apply(runtime, args))];
    }),
  ) as unknown as Pick<Runtime, keyof typeof names>;

  return {
    ...calls,
    async runSandbox(config, runtimeHandler, options) {
      const begunMs = clock.monotonicMs();
      const labels = { runtime_handler: runtimeHandler };
      metrics.startedPods.inc();
      try {
        return await calls.runSandbox(config, runtimeHandler, options);
      } catch (error) {
        metrics.runSandboxErrors.inc(labels);
        metrics.startedPodsErrors.inc();
        throw error;
      } finally {
        metrics.runSandbox.observe(labels, (clock.monotonicMs() - begunMs) / 1000);
      }
    },
    events: (signal) => runtime.events(signal),
    close: () => runtime.close(),
  };
}
