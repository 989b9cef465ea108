// A small CSI driver for tests: volumes are folders (or files) of its own, staged and published by bind mounts, over the real gRPC interface.
// Its faults are switched on by the test.
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Server, ServerCredentials, status, type sendUnaryData, type ServerUnaryCall } from '@grpc/grpc-js';
import * as csi from '../../agent/volumes/csi/gen/csi.ts';
import * as registration from '../../agent/volumes/csi/gen/plugin-registration.ts';
import { readMountTable } from '../../agent/volumes/mount-table.ts';

const run = promisify(execFile);

export interface CsiCall {
  readonly method: string;
  readonly request: Record<string, unknown>;
}

/** `fail`: answers with this gRPC status. `late`: does the work, then answers so. `hang`: never answers. */
export type CsiFault = { readonly fail: number } | { readonly late: number } | { readonly hang: true };

export interface CsiTestDriver {
  readonly name: string;
  readonly calls: CsiCall[];
  /** Answers to NotifyRegistrationStatus. */
  readonly notices: registration.RegistrationStatus[];
  /** Set or unset by the test, by method name. */
  readonly faults: Map<string, CsiFault>;
  /** Where the data of a volume lies. */
  dataOf(handle: string): string;
  stop(): Promise<void>;
}

export interface CsiTestDriverOptions {
  readonly name: string;
  /** Data and sockets of the driver. */
  readonly folder: string;
  /** `plugins_registry` of the agent. */
  readonly registry: string;
  /** Numbers of NodeServiceCapability.RPC. Default: stage, stats, expand, condition. */
  readonly capabilities?: readonly number[];
  readonly topology?: Readonly<Record<string, string>>;
  readonly versions?: readonly string[];
}

interface Codec<T> {
  encode(message: T): { finish(): Uint8Array };
  decode(bytes: Uint8Array): T;
}

// mountpoint(1) takes what another mount hides for mounted.
const isMounted = async (path: string): Promise<boolean> => (await readMountTable()).at(path) !== undefined;

export async function startCsiDriver(options: CsiTestDriverOptions): Promise<CsiTestDriver> {
  const { name, folder, registry, capabilities = [1, 2, 3, 4], topology = {}, versions = ['1.0.0'] } = options;
  const calls: CsiCall[] = [];
  const notices: registration.RegistrationStatus[] = [];
  const faults = new Map<string, CsiFault>();
  const server = new Server();
  const dataOf = (handle: string): string => join(folder, 'data', handle);

  const method = <Request, Response>(
    path: string,
    request: Codec<Request>,
    response: Codec<Response>,
    work: (message: Request) => Promise<Response> | Response,
  ): void => {
    const [service = '', call = ''] = path.split('/').slice(1);
    server.addService(
      {
        [call]: {
          path: `/${service}/${call}`,
          requestStream: false,
          responseStream: false,
          requestSerialize: (message: Request) => Buffer.from(request.encode(message).finish()),
          requestDeserialize: (bytes: Buffer) => request.decode(bytes),
          responseSerialize: (message: Response) => Buffer.from(response.encode(message).finish()),
          responseDeserialize: (bytes: Buffer) => response.decode(bytes),
        },
      },
      {
        [call]: (incoming: ServerUnaryCall<Request, Response>, answer: sendUnaryData<Response>) => {
          calls.push({ method: call, request: incoming.request as Record<string, unknown> });
          const fault = faults.get(call);
          if (fault && 'hang' in fault) return;
          if (fault && 'fail' in fault) {
            answer({ code: fault.fail, details: `${call} fails because the test says so` });
            return;
          }
          void Promise.resolve()
            .then(() => work(incoming.request))
            .then(
              (result) => {
                if (fault) answer({ code: fault.late, details: `${call} was done and fails all the same` });
                else answer(null, result);
              },
              (error: unknown) => answer({ code: status.INTERNAL, details: String(error) }),
            );
        },
      },
    );
  };

  const bind = async (from: string, to: string, readOnly: boolean): Promise<void> => {
    if (await isMounted(to)) return;
    await run('mount', ['--bind', from, to]);
    if (readOnly) await run('mount', ['-o', 'remount,bind,ro', to]);
  };
  const unbind = async (path: string): Promise<void> => {
    while (await isMounted(path)) await run('umount', [path]);
  };

  method('/pluginregistration.Registration/GetInfo', registration.InfoRequest, registration.PluginInfo, () => ({
    type: 'CSIPlugin',
    name,
    endpoint: join(folder, 'csi.sock'),
    supportedVersions: [...versions],
  }));
  method(
    '/pluginregistration.Registration/NotifyRegistrationStatus',
    registration.RegistrationStatus,
    registration.RegistrationStatusResponse,
    (notice) => {
      notices.push(notice);
      return {};
    },
  );
  method('/csi.v1.Node/NodeGetInfo', csi.Empty, csi.NodeGetInfoResponse, () => ({
    nodeId: `${name}-node`,
    maxVolumesPerNode: 7n,
    accessibleTopology: { segments: { ...topology } },
  }));
  method('/csi.v1.Node/NodeGetCapabilities', csi.Empty, csi.NodeGetCapabilitiesResponse, () => ({
    capabilities: capabilities.map((type) => ({ rpc: { type } })),
  }));
  method('/csi.v1.Node/NodeStageVolume', csi.NodeStageVolumeRequest, csi.Empty, async (request) => {
    if (!request.volumeCapability?.block) {
      await mkdir(dataOf(request.volumeId), { recursive: true });
      await bind(dataOf(request.volumeId), request.stagingTargetPath, false);
    }
    return {};
  });
  method('/csi.v1.Node/NodeUnstageVolume', csi.NodeUnstageVolumeRequest, csi.Empty, async (request) => {
    await unbind(request.stagingTargetPath);
    return {};
  });
  method('/csi.v1.Node/NodePublishVolume', csi.NodePublishVolumeRequest, csi.Empty, async (request) => {
    if (request.volumeCapability?.block) {
      if (!existsSync(request.targetPath)) await writeFile(request.targetPath, '');
      await bind('/dev/null', request.targetPath, false);
      return {};
    }
    await mkdir(dataOf(request.volumeId), { recursive: true });
    await mkdir(request.targetPath, { recursive: true });
    await bind(request.stagingTargetPath || dataOf(request.volumeId), request.targetPath, request.readonly);
    return {};
  });
  method('/csi.v1.Node/NodeUnpublishVolume', csi.NodeUnpublishVolumeRequest, csi.Empty, async (request) => {
    await unbind(request.targetPath);
    await rmdir(request.targetPath).catch(() => rm(request.targetPath, { force: true }).catch(() => undefined));
    return {};
  });
  method('/csi.v1.Node/NodeExpandVolume', csi.NodeExpandVolumeRequest, csi.NodeExpandVolumeResponse, (request) => ({
    capacityBytes: request.capacityRange?.requiredBytes ?? 0n,
  }));
  method('/csi.v1.Node/NodeGetVolumeStats', csi.NodeGetVolumeStatsRequest, csi.NodeGetVolumeStatsResponse, () => ({
    usage: [
      { available: 60n, total: 100n, used: 40n, unit: 1 },
      { available: 6n, total: 10n, used: 4n, unit: 2 },
    ],
    volumeCondition: { abnormal: false, message: '' },
  }));

  await mkdir(folder, { recursive: true });
  await mkdir(registry, { recursive: true });
  const registrySocket = join(registry, `${name}-reg.sock`);
  for (const socket of [join(folder, 'csi.sock'), registrySocket]) {
    await rm(socket, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.bindAsync(`unix://${socket}`, ServerCredentials.createInsecure(), (error) =>
        error ? reject(error) : resolve(),
      );
    });
  }
  return {
    name,
    calls,
    notices,
    faults,
    dataOf,
    async stop() {
      await rm(registrySocket, { force: true });
      server.forceShutdown();
      await rm(join(folder, 'csi.sock'), { force: true });
    },
  };
}
