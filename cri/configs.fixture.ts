// The least that a runtime can be asked for, for tests and benchmarks: each names what it is about, and no more.
import type { ContainerConfig, SandboxConfig } from './types.ts';

/** A sandbox with a network and no labels. */
export const leastSandbox = (over: Partial<SandboxConfig> = {}): SandboxConfig => ({
  metadata: { name: 'pod', uid: 'uid-1', namespace: 'default', attempt: 0 },
  hostname: over.metadata?.name ?? 'pod',
  logDirectory: '',
  portMappings: [],
  labels: {},
  annotations: {},
  cgroupParent: '',
  sysctls: {},
  security: {
    namespaces: { network: 'pod', pid: 'container', ipc: 'pod' },
    readonlyRootfs: false,
    supplementalGroups: [],
    supplementalGroupsPolicy: 'Merge',
    privileged: false,
  },
  ...over,
});

/** A container of the image's own command where `command` is empty, in the namespaces that its sandbox gives it. */
export const leastContainer = (
  image: string,
  command: readonly string[],
  over: Partial<ContainerConfig> = {},
): ContainerConfig => ({
  metadata: { name: 'main', attempt: 0 },
  image: { image },
  command,
  args: [],
  workingDir: '',
  envs: [],
  mounts: [],
  devices: [],
  cdiDevices: [],
  labels: {},
  annotations: {},
  logPath: '',
  stdin: false,
  stdinOnce: false,
  tty: false,
  resources: {},
  security: {
    capabilities: { add: [], drop: [] },
    privileged: false,
    namespaces: { network: 'pod', pid: 'container', ipc: 'pod' },
    readonlyRootfs: false,
    supplementalGroups: [],
    supplementalGroupsPolicy: 'Merge',
    noNewPrivs: false,
    maskedPaths: [],
    readonlyPaths: [],
  },
  ...over,
});
