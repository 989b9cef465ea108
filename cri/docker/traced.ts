// Spans of the port's operations on Docker, where tracing is on. One for each operation, by the name that the CRI has for it: the engine
// itself takes no part in traces.
import type { Tracer } from '../../lib/tracing/tracer.ts';
import type { Runtime } from '../runtime.ts';

const operations = {
  version: 'Version',
  status: 'Status',
  updatePodCidr: 'UpdateRuntimeConfig',
  runSandbox: 'RunPodSandbox',
  stopSandbox: 'StopPodSandbox',
  removeSandbox: 'RemovePodSandbox',
  listSandboxes: 'ListPodSandbox',
  sandboxStatus: 'PodSandboxStatus',
  createContainer: 'CreateContainer',
  startContainer: 'StartContainer',
  stopContainer: 'StopContainer',
  removeContainer: 'RemoveContainer',
  listContainers: 'ListContainers',
  inspectContainer: 'ContainerStatus',
  updateContainerResources: 'UpdateContainerResources',
  reopenContainerLog: 'ReopenContainerLog',
  checkpointContainer: 'CheckpointContainer',
  execSync: 'ExecSync',
  exec: 'Exec',
  attach: 'Attach',
  portForward: 'PortForward',
  pullImage: 'PullImage',
  imageStatus: 'ImageStatus',
  listImages: 'ListImages',
  removeImage: 'RemoveImage',
  imageFilesystem: 'ImageFsInfo',
  containerStats: 'ContainerStats',
  listContainerStats: 'ListContainerStats',
} satisfies Record<Exclude<keyof Runtime, 'events' | 'close'>, string>;

export function traced(runtime: Runtime, tracer: Tracer): Runtime {
  const inSpan = <Args extends readonly unknown[], T>(call: string, work: (...args: Args) => Promise<T>) => {
    const options = { kind: 'client', attributes: { 'rpc.system': 'docker', 'rpc.method': call } } as const;
    return (...args: Args): Promise<T> => tracer.run(`docker/${call}`, options, () => work(...args));
  };
  const wrapped = Object.entries(operations).map(([method, call]) => {
    const work = runtime[method as keyof typeof operations] as (...args: unknown[]) => Promise<unknown>;
    return [method, inSpan(call, work)] as const;
  });
  return { ...runtime, ...(Object.fromEntries(wrapped) as Partial<Runtime>) };
}
