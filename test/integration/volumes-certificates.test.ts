// Certificates of pods against a real API server, whose node authorizer, admission and validation look at every step; the signer is ours.
import { X509Certificate, createPrivateKey, createPublicKey } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { x509 } from '../../agent/tls/x509-library.ts';
import { createObjectCache, type OwnedObjectCache } from '../../kube/object-cache.ts';
import type { KubeClient } from '../../kube/client.ts';
import { createKubeClient } from '../../kube/http-client.ts';
import { loadKubeconfig } from '../../kube/kubeconfig.ts';
import { resources } from '../../kube/resources.ts';
import type { Node, PodCertificateRequest } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { type Clock, systemClock } from '../../lib/clock.ts';
import { silentLog as log } from '../../lib/log.ts';
import { type ControlPlane, startControlPlane } from '../lab/control-plane.ts';
import { signal, type VolumesLab, volumesLab } from '../lab/volumes.ts';

const signerName = 'lab.example.com/signer';
const hourMs = 3_600_000;
let plane: ControlPlane;
let client: KubeClient;
let cache: OwnedObjectCache;
let lab: VolumesLab;
let node: Node;
let aheadMs = 0;
// The API server wants certificates to live for an hour at least: the agent's clock is set forward instead.
const distant = new Set<() => void>();
const clock: Clock = {
  ...systemClock,
  now: () => systemClock.now() + aheadMs,
  setTimer(ms, fire) {
    if (ms < 10 * 60_000) return systemClock.setTimer(ms, fire);
    distant.add(fire);
    return { cancel: () => void distant.delete(fire) };
  },
};
/** Sets the agent's clock forward, and lets the timers of that time fire. */
const goForward = (ms: number): void => {
  aheadMs += ms;
  for (const fire of [...distant]) fire();
};

beforeAll(async () => {
  plane = await startControlPlane({
    flags: [
      '--feature-gates=PodCertificateRequest=true',
      '--runtime-config=certificates.k8s.io/v1beta1/podcertificaterequests=true',
    ],
  });
  const deps = { log, clock: systemClock };
  client = createKubeClient(deps, await loadKubeconfig(await plane.nodeKubeconfig('lab')));
  node = await client.create(resources.nodes, {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name: 'lab' },
    spec: {},
  });
  cache = createObjectCache({ client, ...deps });
  lab = await volumesLab({ client, clock, objects: cache, node: () => node });
  for (const name of ['default', 'app'])
    await plane.admin
      .create(resources.serviceAccounts, {
        apiVersion: 'v1',
        kind: 'ServiceAccount',
        metadata: { name, namespace: 'default' },
      })
      .catch(() => undefined);
});
afterAll(async () => {
  await lab?.close();
  await cache?.stop();
  await client?.close();
  await plane?.stop();
});

const podWith = async (name: string, keyType: string): Promise<Pod> =>
  await plane.admin.create<Pod>(resources.pods, {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'default' },
    spec: {
      nodeName: 'lab',
      serviceAccountName: 'app',
      automountServiceAccountToken: false,
      securityContext: { runAsUser: 1234 },
      containers: [{ name: 'main', image: 'busybox', volumeMounts: [{ name: 'v', mountPath: '/v' }] }],
      volumes: [
        {
          name: 'v',
          projected: {
            sources: [
              {
                podCertificate: {
                  signerName,
                  keyType,
                  maxExpirationSeconds: 7200,
                  credentialBundlePath: 'bundle.pem',
                  keyPath: 'key.pem',
                  certificateChainPath: 'chain.pem',
                  userAnnotations: { 'example.com/who': name },
                },
              },
            ],
          },
        },
      ],
    } as Pod['spec'],
  });

const until = async <T>(what: string, look: () => Promise<T | undefined | false>): Promise<T> => {
  for (const deadline = Date.now() + 30_000; ; await sleep(50)) {
    const found = await look();
    if (found) return found;
    if (Date.now() > deadline) throw new Error(`not within 30 s: ${what}`);
  }
};
const requestsOf = async (pod: Pod): Promise<PodCertificateRequest[]> =>
  (await plane.admin.list(resources.podCertificateRequests, { namespace: 'default' })).items
    .filter((each) => each.spec.podUID === pod.metadata.uid)
    .sort((a, b) => Number(a.metadata.resourceVersion) - Number(b.metadata.resourceVersion));
const undecided = (pod: Pod) =>
  until('a request', async () => (await requestsOf(pod)).find((each) => !each.status?.conditions));

const newKeys = () =>
  globalThis.crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, true, ['sign', 'verify']);
let authority: Awaited<ReturnType<typeof newKeys>> | undefined;

/** What a signer does: looks at the proof, and issues for the key. */
async function issue(request: PodCertificateRequest): Promise<void> {
  const proof = new x509.Pkcs10CertificateRequest(Buffer.from(request.spec.stubPKCS10Request!, 'base64'));
  expect(await proof.verify()).toBe(true);
  authority ??= await newKeys();
  const from = Math.floor(Date.now() / 1000) * 1000;
  const [notBefore, beginRefreshAt, notAfter] = [from, from + hourMs / 2, from + hourMs].map((at) => new Date(at));
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: String(Math.floor(Math.random() * 1e9) + 1),
    subject: 'CN=pod',
    issuer: 'CN=lab',
    notBefore: notBefore!,
    notAfter: notAfter!,
    publicKey: await proof.publicKey.export(),
    signingKey: authority.privateKey,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
  });
  const time = (at: Date | undefined): string => at!.toISOString().replace('.000Z', 'Z');
  await decide(request, 'Issued', {
    certificateChain: `${certificate.toString('pem')}\n`,
    notBefore: time(notBefore),
    beginRefreshAt: time(beginRefreshAt),
    notAfter: time(notAfter),
  });
}

const decide = (request: PodCertificateRequest, type: string, more: object = {}) =>
  plane.admin.update(
    resources.podCertificateRequests,
    {
      ...request,
      status: {
        conditions: [
          {
            type,
            status: 'True',
            reason: 'LabSays',
            message: 'so it is',
            lastTransitionTime: new Date().toISOString().replace(/\.\d+Z/, 'Z'),
          },
        ],
        ...more,
      },
    },
    { subresource: 'status' },
  );

const folderOf = (pod: Pod): string => join(lab.root, 'pods', pod.metadata.uid!, 'volumes/kubernetes.io~projected/v');
const files = async (pod: Pod) => {
  const [bundle, key, chain] = await Promise.all(
    ['bundle.pem', 'key.pem', 'chain.pem'].map((name) => readFile(join(folderOf(pod), name), 'utf8')),
  );
  return { bundle: bundle!, key: key!, chain: chain! };
};
const setUpWhenIssued = async (pod: Pod): Promise<void> => {
  const first = lab.volumes.setUp(pod, signal()).catch((error: unknown) => error as Error);
  await issue(await undecided(pod));
  if (await first)
    await until('the volume', async () => {
      await lab.volumes.setUp(pod, signal()).catch(() => undefined);
      return lab.volumes.isUp(pod);
    });
};

it('are asked for as the node that runs the pod, and are in its files when the signer has issued them', async () => {
  for (const keyType of ['ECDSAP256', 'ED25519', 'RSA3072']) {
    const pod = await podWith(keyType.toLowerCase(), keyType);
    const uid = pod.metadata.uid!;
    await expect(lab.volumes.setUp(pod, signal())).rejects.toMatchObject({
      waiting: true,
      message: 'MountVolume.SetUp failed for volume "v" : credential bundle is not issued yet',
    });
    const request = await undecided(pod);
    expect(request.spec).toMatchObject({
      signerName,
      podName: pod.metadata.name,
      serviceAccountName: 'app',
      nodeName: 'lab',
      maxExpirationSeconds: 7200,
      unverifiedUserAnnotations: { 'example.com/who': pod.metadata.name },
    });
    lab.woken.length = 0;
    await issue(request);
    await until('the pod is woken', async () => lab.woken.includes(uid));
    await lab.volumes.setUp(pod, signal());
    const { bundle, key, chain } = await files(pod);
    expect(bundle).toBe(key + chain);
    const leaf = new X509Certificate(chain);
    const own = createPublicKey(createPrivateKey(key)).export({ type: 'spki', format: 'der' });
    expect(leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(own)).toBe(true);
    const { mode, uid: owner } = await stat(join(folderOf(pod), 'key.pem'));
    expect([mode & 0o777, owner]).toEqual([0o600, 1234]);
    await lab.volumes.tearDown(uid, signal());
  }
});

it('are renewed when the signer said, with a new key, while the old files serve', async () => {
  const pod = await podWith('renewed', 'ECDSAP384');
  await setUpWhenIssued(pod);
  const before = await files(pod);
  // Half an hour, and the five minutes by which renewals are spread.
  goForward(36 * 60_000);
  const request = await undecided(pod);
  // What is issued now is of now.
  aheadMs = 0;
  expect(await files(pod)).toEqual(before);
  expect(lab.volumes.isUp(pod)).toBe(true);
  await issue(request);
  const { key, chain } = await until('new files', async () => {
    const now = await files(pod);
    return now.key !== before.key && now;
  });
  const own = createPublicKey(createPrivateKey(key)).export({ type: 'spki', format: 'der' });
  expect(new X509Certificate(chain).publicKey.export({ type: 'spki', format: 'der' }).equals(own)).toBe(true);
  expect(await requestsOf(pod)).toHaveLength(2);
  await lab.volumes.tearDown(pod.metadata.uid!, signal());
});

it('that are denied are told of in the words of the signer', async () => {
  const pod = await podWith('denied', 'ED25519');
  await lab.volumes.setUp(pod, signal()).catch(() => undefined);
  await decide(await undecided(pod), 'Denied');
  const refused = await until('the refusal', () =>
    lab.volumes.setUp(pod, signal()).then(
      () => undefined,
      (error: unknown) => /denied/.test((error as Error).message) && (error as Error),
    ),
  );
  expect(refused).toMatchObject({
    waiting: false,
    message:
      'MountVolume.SetUp failed for volume "v" : PodCertificateRequest was permanently denied: reason="LabSays" message="so it is"',
  });
  expect(lab.events.filter(({ reason }) => reason === 'Denied')).toHaveLength(1);
  expect(await requestsOf(pod)).toHaveLength(1);
  await lab.volumes.tearDown(pod.metadata.uid!, signal());
});
