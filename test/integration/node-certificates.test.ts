// A node's certificates from a real control plane: TLS bootstrap by token, rotation under the node's own identity, and a serving certificate
// that an administrator approves.
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { bootstrapClient } from '../../agent/tls/bootstrap.ts';
import { createCertificateStore } from '../../agent/tls/certificate-store.ts';
import { createRotation } from '../../agent/tls/rotation.ts';
import { createServingByCsr } from '../../agent/tls/serving-by-csr.ts';
import { clientSigner, requestCertificate } from '../../agent/tls/signing-request.ts';
import { systemClock as clock } from '../../lib/clock.ts';
import { createLog } from '../../lib/log.ts';
import type { ClientConfig } from '../../kube/client-config.ts';
import { ApiError } from '../../kube/errors.ts';
import { createKubeClient } from '../../kube/http-client.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { resources } from '../../kube/resources.ts';
import { applyBootstrapObjects } from '../lab/bootstrap-objects.ts';
import { type ControlPlane, startControlPlane } from '../lab/control-plane.ts';

let plane: ControlPlane;
let token: string;
let folder: string;
let stop: AbortController;
const lines: string[] = [];
const log = createLog({ level: 'debug', format: 'json', write: (line) => void lines.push(line) });
const connect = (config: ClientConfig) => createKubeClient({ log, clock }, config);

beforeAll(async () => {
  plane = await startControlPlane({ controllers: true });
  token = (await applyBootstrapObjects(plane)).token;
});
afterAll(() => plane?.stop());
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sv-cert-'));
  stop = new AbortController();
});
afterEach(async (context) => {
  stop.abort();
  await rm(folder, { recursive: true, force: true });
  if (context.task.result?.state === 'fail') console.log(lines.splice(0).join(''));
});

const until = async (what: string, look: () => Promise<boolean> | boolean): Promise<void> => {
  for (const deadline = Date.now() + 20_000; !(await look()); await sleep(100))
    if (Date.now() > deadline) throw new Error(`not within 20 s: ${what}`);
};

async function bootstrap(nodeName: string, bootstrapToken: string, attempts = 1) {
  const store = createCertificateStore({ folder: join(folder, 'pki'), name: 'kubelet-client' });
  const kubeconfig = join(folder, 'kubelet.conf');
  await bootstrapClient(
    { clock, log, store, connect },
    { nodeName, kubeconfig, bootstrapKubeconfig: await plane.tokenKubeconfig(bootstrapToken), attempts },
    stop.signal,
  );
  return { store, kubeconfig };
}

it('a token becomes an identity, which renews itself while the connection goes on', async () => {
  const { store, kubeconfig } = await bootstrap('b1', token);
  const first = new X509Certificate((await store.current())!.certificate);
  expect(first.subject).toBe('O=system:nodes\nCN=system:node:b1');
  const client = connect(await loadKubeconfig(kubeconfig));
  try {
    await client.create(resources.nodes, { apiVersion: 'v1', kind: 'Node', metadata: { name: 'b1' }, spec: {} });
    let rotated = 0;
    const rotation = createRotation(
      {
        clock,
        log,
        store,
        outdated: () => rotated === 0,
        request: (signal) =>
          requestCertificate({ client, clock, log }, { nodeName: 'b1', signer: clientSigner }, signal),
        onRotated: () => rotated++,
      },
      'client',
    );
    const running = rotation.run(stop.signal);
    await until('rotated', () => rotated === 1);
    expect(new X509Certificate((await store.current())!.certificate).serialNumber).not.toBe(first.serialNumber);
    await sleep(5500);
    expect((await client.get(resources.nodes, { name: 'b1' })).metadata.name).toBe('b1');
    stop.abort();
    await running;
  } finally {
    await client.close();
  }
});

it('a kubeconfig whose certificate still holds is left alone', async () => {
  const { store, kubeconfig } = await bootstrap('b2', token);
  const before = (await store.current())!.certificate;
  await bootstrapClient(
    { clock, log, store, connect },
    { nodeName: 'b2', kubeconfig, bootstrapKubeconfig: join(folder, 'none'), attempts: 1 },
    stop.signal,
  );
  expect((await store.current())!.certificate).toBe(before);
});

it('a wrong token ends the attempt and leaves no kubeconfig', async () => {
  await expect(bootstrap('b3', 'abcdef.0123456789abcdef')).rejects.toBeInstanceOf(ApiError);
});

it('a serving certificate is shown once it is approved', async () => {
  const { kubeconfig } = await bootstrap('b4', token);
  const client = connect(await loadKubeconfig(kubeconfig));
  try {
    const addresses = [
      { type: 'InternalIP', address: '192.0.2.4' },
      { type: 'Hostname', address: 'b4' },
    ] as const;
    const fallback = { certificate: 'fallback', key: 'fallback' };
    const serving = await createServingByCsr(
      {
        client,
        clock,
        log,
        fallback,
        addresses: () => addresses,
        store: createCertificateStore({ folder: join(folder, 'pki'), name: 'kubelet-server' }),
      },
      'b4',
    );
    const running = serving.run(stop.signal);
    const changed = serving.changes(stop.signal)[Symbol.asyncIterator]().next();
    expect(serving.current()).toBe(fallback);
    let name = '';
    await until('requested', async () => {
      const { items } = await plane.admin.list(resources.certificateSigningRequests);
      name = items.find(({ spec }) => spec.signerName === 'kubernetes.io/kubelet-serving')?.metadata.name ?? '';
      return name !== '';
    });
    await plane.kubectl('certificate', 'approve', name);
    const { value } = await changed;
    const leaf = new X509Certificate((value as { certificate: string }).certificate);
    expect(leaf.subjectAltName).toBe('DNS:b4, IP Address:192.0.2.4');
    expect(leaf.subject).toBe('O=system:nodes\nCN=system:node:b4');
    expect(serving.current()).toBe(value);
    stop.abort();
    await running;
  } finally {
    await client.close();
  }
});
