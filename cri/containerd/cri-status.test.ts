// What only a verbose Status tells, over a real socket, while the runtime seems to go away in the middle.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type sendUnaryData, Server, ServerCredentials, type ServerUnaryCall, status } from '@grpc/grpc-js';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createCriRuntime } from './cri-runtime.ts';
import * as wire from './gen/cri.ts';

let folder: string;
const server = new Server();
const verbose: boolean[] = [];
/** Answers to Status are held back until this is called. */
let release: (() => void) | undefined;
let hold = false;

const method = <Q, A>(name: string, request: wire.MessageFns<Q>, response: wire.MessageFns<A>) => ({
  path: `/runtime.v1.RuntimeService/${name}`,
  requestStream: false,
  responseStream: false,
  requestSerialize: (value: Q) => Buffer.from(request.encode(value).finish()),
  requestDeserialize: (bytes: Buffer) => request.decode(bytes),
  responseSerialize: (value: A) => Buffer.from(response.encode(value).finish()),
  responseDeserialize: (bytes: Buffer) => response.decode(bytes),
});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-cri-'));
  const services = {
    Status: method('Status', wire.StatusRequest, wire.StatusResponse),
    RuntimeConfig: method('RuntimeConfig', wire.Empty, wire.RuntimeConfigResponse),
    Version: method('Version', wire.VersionRequest, wire.VersionResponse),
  };
  server.addService(services, {
    Status(call: ServerUnaryCall<wire.StatusRequest, wire.StatusResponse>, done: sendUnaryData<wire.StatusResponse>) {
      verbose.push(call.request.verbose);
      const info = call.request.verbose ? { config: JSON.stringify({ sandboxImage: 'pause:1' }) } : {};
      const answer = (): void => done(null, wire.StatusResponse.fromPartial({ info }));
      if (hold) release = answer;
      else answer();
    },
    RuntimeConfig: (_call: unknown, done: sendUnaryData<wire.RuntimeConfigResponse>) =>
      done({ code: status.UNIMPLEMENTED, details: 'unknown method' }),
    Version: (_call: unknown, done: sendUnaryData<wire.VersionResponse>) =>
      done({ code: status.UNAVAILABLE, details: 'going away' }),
  });
  await new Promise<void>((resolve, reject) =>
    server.bindAsync(`unix://${folder}/cri.sock`, ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    ),
  );
});
afterEach(async () => {
  server.forceShutdown();
  await rm(folder, { recursive: true, force: true });
});

it('an answer that was not asked to be verbose never takes the place of what a verbose one told', async () => {
  const runtime = createCriRuntime({ clock: systemClock, log: silentLog }, { endpoint: `unix://${folder}/cri.sock` });
  try {
    // It does not know RuntimeConfig.
    expect(await runtime.status()).toMatchObject({ sandboxImage: 'pause:1', losingSupport: '1.37.0' });
    hold = true;
    const slow = runtime.status();
    while (!release) await systemClock.sleep(5);
    await expect(runtime.version()).rejects.toThrow('going away');
    hold = false;
    release();
    expect((await slow).sandboxImage).toBe('pause:1');
    expect((await runtime.status()).sandboxImage).toBe('pause:1');
    expect((await runtime.status()).sandboxImage).toBe('pause:1');
    expect(verbose).toEqual([true, false, true, false]);
  } finally {
    await runtime.close();
  }
});
