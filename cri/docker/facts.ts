// What the daemon says of itself, asked once for each connection: another version may answer after it was away.
import type Docker from 'dockerode';
import type { RuntimeError } from '../errors.ts';
import type { CallOptions } from '../runtime.ts';
import type { DockerConnection } from './connection.ts';
import { readHostLimits } from './host-limits.ts';
import type { HostLimits } from './resources.ts';

export interface DaemonFacts {
  readonly version: Docker.DockerVersion;
  readonly cgroupDriver: 'cgroupfs' | 'systemd';
  /** Names of OCI runtimes, the default's first. */
  readonly runtimes: readonly string[];
  readonly rootDir: string;
  readonly memoryBytes: number;
  readonly limits: HostLimits;
  readonly tellsNonRecursive: boolean;
}

interface Info {
  readonly CgroupDriver?: string;
  readonly Runtimes?: Readonly<Record<string, unknown>>;
  readonly DefaultRuntime?: string;
  readonly DockerRootDir?: string;
  readonly MemTotal?: number;
}

export interface Facts {
  get(options?: CallOptions): Promise<DaemonFacts>;
  /** What is known is forgotten where the error says that the daemon was away. */
  doubt(error: RuntimeError): void;
}

const atLeast = (version: string, major: number, minor: number): boolean => {
  const [first = 0, second = 0] = version.split('.').map(Number);
  return first > major || (first === major && second >= minor);
};

/** Docker before 23 refuses the newest capabilities by name. */
const newest = ['PERFMON', 'BPF', 'CHECKPOINT_RESTORE'];
const knows = (version: string, name: string): boolean => atLeast(version, 1, 42) || !newest.includes(name);

export function createFacts(connection: DockerConnection): Facts {
  let known: Promise<DaemonFacts> | undefined;
  async function read(options: CallOptions | undefined): Promise<DaemonFacts> {
    const [info, version, limits] = await connection.call('Status', options, 30_000, (abortSignal) =>
      Promise.all([
        connection.daemon.info({ abortSignal }) as Promise<Info>,
        connection.daemon.version({ abortSignal }),
        readHostLimits(),
      ]),
    );
    const first = info.DefaultRuntime ?? 'runc';
    return {
      version,
      cgroupDriver: info.CgroupDriver === 'systemd' ? 'systemd' : 'cgroupfs',
      runtimes: [first, ...Object.keys(info.Runtimes ?? {}).filter((name) => name !== first)],
      rootDir: info.DockerRootDir ?? '/var/lib/docker',
      memoryBytes: info.MemTotal ?? 0,
      limits: { ...limits, capabilities: limits.capabilities?.filter((name) => knows(version.ApiVersion, name)) },
      tellsNonRecursive: atLeast(version.ApiVersion, 1, 44),
    };
  }
  return {
    get(options) {
      known ??= read(options);
      const asked = known;
      asked.catch(() => {
        if (known === asked) known = undefined;
      });
      return asked;
    },
    doubt(error) {
      if (error.code === 'unavailable' || error.code === 'deadline') known = undefined;
    },
  };
}
