// One device plugin: the connection to its socket, the list of its devices as it changes, and the calls it answers.
import { Client, credentials, Metadata } from '@grpc/grpc-js';
import {
  AllocateRequest,
  AllocateResponse,
  type ContainerAllocateResponse,
  type Device,
  DevicePluginOptions,
  Empty,
  ListAndWatchResponse,
  type MessageFns,
  PreferredAllocationRequest,
  PreferredAllocationResponse,
  PreStartContainerRequest,
  PreStartContainerResponse,
} from './gen/device-plugin.ts';

export interface Plugin {
  readonly options: DevicePluginOptions;
  /** Yields the whole list each time it changes; ends or throws when the plugin goes away. */
  devices(signal: AbortSignal): AsyncIterable<readonly Device[]>;
  allocate(devices: readonly string[]): Promise<ContainerAllocateResponse>;
  preferred(available: readonly string[], must: readonly string[], count: number): Promise<readonly string[]>;
  preStart(devices: readonly string[]): Promise<void>;
  close(): void;
}

const service = '/v1beta1.DevicePlugin/';
const callTimeoutMs = 30_000;
const connectTimeoutMs = 10_000;

const writer =
  <T>(codec: MessageFns<T>) =>
  (message: T): Buffer =>
    Buffer.from(codec.encode(message).finish());
const reader =
  <T>(codec: MessageFns<T>) =>
  (bytes: Buffer): T =>
    codec.decode(bytes);

/** Connects and asks for the plugin's options. Rejects where it does not answer within ten seconds. */
export async function connectPlugin(socket: string): Promise<Plugin> {
  const client = new Client(`unix://${socket}`, credentials.createInsecure(), {
    'grpc.default_authority': 'localhost',
    'grpc.use_local_subchannel_pool': 1,
    'grpc.enable_http_proxy': 0,
    'grpc.initial_reconnect_backoff_ms': 100,
    'grpc.max_reconnect_backoff_ms': 1000,
  });
  const call = <Request, Response>(
    method: string,
    request: MessageFns<Request>,
    response: MessageFns<Response>,
    message: Request,
    timeoutMs = callTimeoutMs,
  ): Promise<Response> =>
    new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        service + method,
        writer(request),
        reader(response),
        message,
        new Metadata({ waitForReady: true }),
        { deadline: new Date(Date.now() + timeoutMs) },
        (error, answer) => {
          if (error)
            reject(new Error(`${method} of the device plugin at ${socket}: ${error.details}`, { cause: error }));
          else if (answer === undefined) reject(new Error(`${method} of the device plugin at ${socket}: no answer`));
          else resolve(answer);
        },
      );
    });
  let options: DevicePluginOptions;
  try {
    options = await call('GetDevicePluginOptions', Empty, DevicePluginOptions, {}, connectTimeoutMs);
  } catch (error) {
    client.close();
    const message = error instanceof Error ? error.message : String(error);
    throw new Error(`failed to get device plugin options: ${message}`, { cause: error });
  }
  return {
    options,
    async *devices(signal) {
      const stream = client.makeServerStreamRequest(
        `${service}ListAndWatch`,
        writer(Empty),
        reader(ListAndWatchResponse),
        {} as Empty,
        new Metadata(),
      );
      const end = (): void => stream.cancel();
      if (signal.aborted) end();
      else signal.addEventListener('abort', end, { once: true });
      try {
        for await (const { devices } of stream as AsyncIterable<ListAndWatchResponse>) yield devices;
      } finally {
        signal.removeEventListener('abort', end);
        end();
      }
    },
    async allocate(devices) {
      const request = { containerRequests: [{ devicesIds: [...devices] }] };
      const { containerResponses } = await call('Allocate', AllocateRequest, AllocateResponse, request);
      const [response] = containerResponses;
      if (!response) throw new Error(`Allocate of the device plugin at ${socket}: no container in the answer`);
      return response;
    },
    async preferred(available, must, count) {
      if (!options.getPreferredAllocationAvailable) return [];
      const request = {
        containerRequests: [
          { availableDeviceIDs: [...available], mustIncludeDeviceIDs: [...must], allocationSize: count },
        ],
      };
      const answer = await call(
        'GetPreferredAllocation',
        PreferredAllocationRequest,
        PreferredAllocationResponse,
        request,
      );
      return answer.containerResponses[0]?.deviceIDs ?? [];
    },
    async preStart(devices) {
      if (!options.preStartRequired) return;
      await call('PreStartContainer', PreStartContainerRequest, PreStartContainerResponse, {
        devicesIds: [...devices],
      });
    },
    close: () => client.close(),
  };
}
