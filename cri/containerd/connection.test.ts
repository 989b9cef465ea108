import {
  type Metadata,
  Server,
  ServerCredentials,
  type sendUnaryData,
  type ServerUnaryCall,
  status,
} from '@grpc/grpc-js';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { createTracer, type EndedSpan } from '../../lib/tracing/tracer.ts';
import { createCriRuntime } from './cri-runtime.ts';
import { VersionRequest, VersionResponse } from './gen/cri.ts';

let folder: string;
let server: Server;
let heard: Metadata[];
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'cri-'));
  heard = [];
  server = new Server();
  server.addService(
    {
      version: {
        path: '/runtime.v1.RuntimeService/Version',
        requestStream: false,
        responseStream: false,
        requestSerialize: (message: VersionRequest) => Buffer.from(VersionRequest.encode(message).finish()),
        requestDeserialize: (bytes: Buffer) => VersionRequest.decode(bytes),
        responseSerialize: (message: VersionResponse) => Buffer.from(VersionResponse.encode(message).finish()),
        responseDeserialize: (bytes: Buffer) => VersionResponse.decode(bytes),
      },
    },
    {
      version(call: ServerUnaryCall<VersionRequest, VersionResponse>, done: sendUnaryData<VersionResponse>) {
        heard.push(call.metadata);
        if (heard.length > 1) return done({ code: status.INTERNAL, details: 'broken' });
        done(null, VersionResponse.fromPartial({ runtimeName: 'containerd', runtimeApiVersion: 'v1' }));
      },
    },
  );
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(`unix://${folder}/s`, ServerCredentials.createInsecure(), (error) =>
      error ? reject(error) : resolve(),
    );
  });
});
afterEach(async () => {
  server.forceShutdown();
  await rm(folder, { recursive: true, force: true });
});

describe('calls to a runtime', () => {
  it('are spans that the runtime is told of', async () => {
    const spans: EndedSpan[] = [];
    const tracer = createTracer(
      { clock: systemClock, ended: (span) => void spans.push(span) },
      { samplingRatePerMillion: 1_000_000 },
    );
    const runtime = createCriRuntime(
      { log: silentLog, clock: systemClock, tracer },
      { endpoint: `unix://${folder}/s` },
    );
    await tracer.run('syncPod', {}, async () => {
      await runtime.version();
    });
    await expect(runtime.version()).rejects.toThrow('broken');
    await runtime.close();
    const [call, pod, failed] = spans;
    expect(call).toMatchObject({
      name: 'runtime.v1.RuntimeService/Version',
      kind: 'client',
      parentId: pod!.spanId,
      attributes: { 'rpc.system': 'grpc', 'rpc.service': 'runtime.v1.RuntimeService', 'rpc.method': 'Version' },
    });
    expect(heard[0]!.get('traceparent')).toEqual([
      `00-${call!.traceId.toString('hex')}-${call!.spanId.toString('hex')}-01`,
    ]);
    expect(failed).toMatchObject({ parentId: undefined });
    expect(failed!.error).toContain('broken');
  });

  it('carry nothing where nothing is traced', async () => {
    const runtime = createCriRuntime({ log: silentLog, clock: systemClock }, { endpoint: `unix://${folder}/s` });
    await runtime.version();
    await runtime.close();
    expect(heard[0]!.get('traceparent')).toEqual([]);
  });
});
