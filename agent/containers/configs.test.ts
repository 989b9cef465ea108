import { describe, expect, it } from 'vitest';
import type { Container, Pod, SecurityContext } from '../../kube/types/pod.ts';
import { type ContainerFacts, type ContainerInput, containerConfig } from './container-config.ts';
import { containerHash } from './container-hash.ts';
import { containerIdentity } from './labels.ts';
import { legacyLogName, restartCountOfLogs } from './log-path.ts';
import { type SandboxFacts, sandboxConfig } from './sandbox-config.ts';

const facts: ContainerFacts & SandboxFacts = {
  cgroupVersion: 1,
  cpuCfsQuota: true,
  cpuCfsQuotaPeriodUs: 100_000,
  memoryCapacityBytes: 4_000_000_000,
  swap: { available: false, behavior: 'NoSwap', capacityBytes: 0 },
  hugepageSizes: [],
  podLogsDirectory: '/var/log/pods',
  seccompProfileRoot: '/var/lib/kubelet/seccomp',
  seccompDefault: false,
  moreMaskedPaths: [],
};
const pod = (spec: Partial<Pod['spec']> = {}, annotations: Record<string, string> = {}): Pod => ({
  metadata: { name: 'web', namespace: 'shop', uid: 'u-1', labels: { app: 'web' }, annotations },
  spec: { containers: [], terminationGracePeriodSeconds: 30, ...spec },
});
const plain: Container = {
  name: 'c',
  image: 'img',
  terminationMessagePath: '/dev/termination-log',
  terminationMessagePolicy: 'File',
};
const config = (
  of: Pod,
  container: Partial<Container> = {},
  more: Partial<ContainerInput> = {},
  moreFacts: Partial<ContainerFacts> = {},
) =>
  containerConfig(
    {
      pod: of,
      container: { ...plain, ...container },
      restartCount: 2,
      imageRef: 'sha256:abc',
      imageUser: {},
      runtimeHandler: '',
      env: { A: 'a' },
      mounts: [],
      devices: [],
      volumeGroups: [],
      ...more,
    },
    { ...facts, ...moreFacts },
  );
const sandbox = (of: Pod) =>
  sandboxConfig(
    {
      pod: of,
      attempt: 1,
      seen: { source: 'api', atMs: Date.UTC(2026, 0, 2) },
      name: { hostname: 'web', domain: '' },
      dns: { servers: [], searches: [], options: [] },
      cgroupParent: '/kubepods/podu-1',
      volumeGroups: [7],
    },
    facts,
  );

describe("a sandbox's configuration", () => {
  it("carries the kubelet's labels and the pod's own", () => {
    const made = sandbox(pod({}, { note: 'n' }));
    expect(made.metadata).toEqual({ name: 'web', namespace: 'shop', uid: 'u-1', attempt: 1 });
    expect(made.labels).toEqual({
      app: 'web',
      'io.kubernetes.pod.name': 'web',
      'io.kubernetes.pod.namespace': 'shop',
      'io.kubernetes.pod.uid': 'u-1',
    });
    expect(made.annotations).toEqual({
      note: 'n',
      'kubernetes.io/config.source': 'api',
      'kubernetes.io/config.seen': '2026-01-02T00:00:00.000Z',
    });
    expect(made.logDirectory).toBe('/var/log/pods/shop_web_u-1');
    expect(made.cgroupParent).toBe('/kubepods/podu-1');
  });

  it.each<[string, Partial<Pod['spec']>, object]>([
    ['a pod', {}, { network: 'pod', pid: 'container', ipc: 'pod' }],
    ['hostNetwork', { hostNetwork: true }, { network: 'node', pid: 'container', ipc: 'pod' }],
    ['hostPID and hostIPC', { hostPID: true, hostIPC: true }, { network: 'pod', pid: 'node', ipc: 'node' }],
    ['shareProcessNamespace', { shareProcessNamespace: true }, { network: 'pod', pid: 'pod', ipc: 'pod' }],
  ])('namespaces of %s', (_name, spec, expected) => {
    expect(sandbox(pod(spec)).security.namespaces).toEqual(expected);
  });

  it("is safe whatever the pod's containers may do", () => {
    expect(sandbox(pod()).security).toMatchObject({ privileged: false, seccomp: { type: 'RuntimeDefault' } });
    const privileged = pod({ initContainers: [{ name: 'i', securityContext: { privileged: true } }] });
    expect(sandbox(privileged).security.privileged).toBe(true);
  });

  it('takes users, groups, SELinux and sysctls of the pod', () => {
    const made = sandbox(
      pod({
        securityContext: {
          runAsUser: 1,
          runAsGroup: 2,
          fsGroup: 3,
          supplementalGroups: [4],
          supplementalGroupsPolicy: 'Strict',
          seLinuxOptions: { level: 's0:c1' },
          sysctls: [{ name: 'net.ipv4.tcp_syncookies', value: '1' }],
        },
      }),
    );
    expect(made.security).toMatchObject({
      runAsUser: 1,
      runAsGroup: 2,
      supplementalGroups: [3, 4, 7],
      supplementalGroupsPolicy: 'Strict',
      selinux: { user: '', role: '', type: '', level: 's0:c1' },
    });
    expect(made.sysctls).toEqual({ 'net.ipv4.tcp_syncookies': '1' });
  });

  it('maps host ports, each once, none on the host network', () => {
    const ports = [
      { containerPort: 80, hostPort: 8080 },
      { containerPort: 80, hostPort: 8080 },
      { containerPort: 81 },
      { containerPort: 53, hostPort: 53, protocol: 'UDP' as const, hostIP: '127.0.0.1' },
    ];
    const containers = [{ name: 'c', ports }];
    expect(sandbox(pod({ containers })).portMappings).toEqual([
      { protocol: 'TCP', containerPort: 80, hostPort: 8080, hostIp: '' },
      { protocol: 'UDP', containerPort: 53, hostPort: 53, hostIp: '127.0.0.1' },
    ]);
    expect(sandbox(pod({ containers, hostNetwork: true }))).toMatchObject({ portMappings: [], hostname: '' });
  });

  it('tells the size of the pod and its overhead', () => {
    const made = sandbox(
      pod({
        containers: [{ name: 'c', resources: { requests: { cpu: '1' }, limits: { memory: '1Mi' } } }],
        overhead: { cpu: '250m', memory: '2Mi' },
      }),
    );
    expect(made.resources).toMatchObject({ cpuShares: 1024, memoryLimitInBytes: 2 ** 20 });
    expect(made.overhead).toMatchObject({ cpuShares: 256, cpuQuota: 25_000, memoryLimitInBytes: 2 ** 21 });
  });
});

describe("a container's configuration", () => {
  it("carries the kubelet's labels and annotations, from which it is known again", () => {
    const preStop = { exec: { command: ['true'] } };
    const ports = [{ containerPort: 80, name: 'http' }];
    const made = config(
      { ...pod(), metadata: { ...pod().metadata, deletionGracePeriodSeconds: 5 } },
      { lifecycle: { preStop }, ports },
    );
    expect(made.labels).toEqual({
      'io.kubernetes.pod.name': 'web',
      'io.kubernetes.pod.namespace': 'shop',
      'io.kubernetes.pod.uid': 'u-1',
      'io.kubernetes.container.name': 'c',
    });
    expect(made.annotations).toEqual({
      'io.kubernetes.container.hash': containerHash(plain),
      'io.kubernetes.container.restartCount': '2',
      'io.kubernetes.container.terminationMessagePath': '/dev/termination-log',
      'io.kubernetes.container.terminationMessagePolicy': 'File',
      'io.kubernetes.pod.terminationGracePeriod': '30',
      'io.kubernetes.pod.deletionGracePeriod': '5',
      'io.kubernetes.container.preStopHandler': '{"exec":{"command":["true"]}}',
      'io.kubernetes.container.ports': '[{"containerPort":80,"name":"http"}]',
    });
    expect(containerIdentity(made)).toEqual({
      podName: 'web',
      podNamespace: 'shop',
      podUid: 'u-1',
      containerName: 'c',
      hash: containerHash(plain),
      restartCount: 2,
      terminationMessagePath: '/dev/termination-log',
      terminationMessagePolicy: 'File',
      deletionGracePeriodSeconds: 5,
      terminationGracePeriodSeconds: 30,
      preStop,
      ports,
    });
    expect(containerIdentity({ labels: {}, annotations: {} })).toBeUndefined();
    expect(made).toMatchObject({
      metadata: { name: 'c', attempt: 2 },
      logPath: 'c/2.log',
      image: { image: 'sha256:abc', userSpecifiedImage: 'img' },
    });
  });

  it("has the kubelet's own hash, to the bit", () => {
    // The value that Kubernetes holds its own hash to since 1.31.
    expect(containerHash({ name: 'test_container', image: 'foo/image:v1' })).toBe('8e45cbd0');
    expect(containerHash({ ...plain, command: ['other'] })).toBe(containerHash(plain));
    expect(containerHash({ ...plain, image: 'other' })).not.toBe(containerHash(plain));
  });

  it('expands command and arguments', () => {
    const made = config(pod(), { command: ['$(A)', '$(toString)'], args: ['$$(A)'], workingDir: '/w', tty: true });
    expect(made).toMatchObject({
      command: ['a', '$(toString)'],
      args: ['$(A)'],
      workingDir: '/w',
      tty: true,
      stdin: false,
    });
  });

  it.each<[string, Partial<Pod['spec']>, SecurityContext | undefined, object]>([
    [
      'nothing',
      {},
      undefined,
      { runAsUser: 0, privileged: false, readonlyRootfs: false, noNewPrivs: false, seccomp: { type: 'Unconfined' } },
    ],
    ['the pod', { securityContext: { runAsUser: 5, runAsGroup: 6 } }, undefined, { runAsUser: 5, runAsGroup: 6 }],
    [
      'the container before the pod',
      { securityContext: { runAsUser: 5, runAsGroup: 6 } },
      { runAsUser: 7 },
      { runAsUser: 7, runAsGroup: 6 },
    ],
    ['privileged', {}, { privileged: true }, { privileged: true }],
    [
      'capabilities',
      {},
      { capabilities: { add: ['NET_ADMIN'], drop: ['ALL'] } },
      { capabilities: { add: ['NET_ADMIN'], drop: ['ALL'] } },
    ],
    ['no escalation', {}, { allowPrivilegeEscalation: false }, { noNewPrivs: true }],
    ['escalation', {}, { allowPrivilegeEscalation: true }, { noNewPrivs: false }],
    ['a read-only root', {}, { readOnlyRootFilesystem: true }, { readonlyRootfs: true }],
    ['unmasked /proc', {}, { procMount: 'Unmasked' }, { maskedPaths: [], readonlyPaths: [] }],
    [
      'seccomp of the pod',
      { securityContext: { seccompProfile: { type: 'RuntimeDefault' } } },
      undefined,
      { seccomp: { type: 'RuntimeDefault' } },
    ],
    [
      'seccomp of the container',
      { securityContext: { seccompProfile: { type: 'RuntimeDefault' } } },
      { seccompProfile: { type: 'Localhost', localhostProfile: 'p/x.json' } },
      { seccomp: { type: 'Localhost', localhostRef: '/var/lib/kubelet/seccomp/p/x.json' } },
    ],
    [
      'AppArmor',
      {},
      { appArmorProfile: { type: 'Localhost', localhostProfile: 'mine' } },
      { apparmor: { type: 'Localhost', localhostRef: 'mine' } },
    ],
    [
      'AppArmor of the pod',
      { securityContext: { appArmorProfile: { type: 'RuntimeDefault' } } },
      undefined,
      { apparmor: { type: 'RuntimeDefault' } },
    ],
    [
      'SELinux',
      { securityContext: { seLinuxOptions: { level: 'a' } } },
      { seLinuxOptions: { type: 't' } },
      { selinux: { user: '', role: '', type: 't', level: '' } },
    ],
    [
      'groups',
      { securityContext: { fsGroup: 1, supplementalGroups: [2] } },
      undefined,
      { supplementalGroups: [1, 2], supplementalGroupsPolicy: 'Merge' },
    ],
  ])('security: %s', (_name, spec, securityContext, expected) => {
    expect(config(pod(spec), securityContext ? { securityContext } : {}).security).toMatchObject(expected);
  });

  it('masks what the host would tell', () => {
    expect(config(pod(), {}, {}, { moreMaskedPaths: ['/sys/x'] }).security.maskedPaths).toEqual(
      expect.arrayContaining(['/proc/kcore', '/proc/interrupts', '/sys/firmware', '/sys/x']),
    );
    expect(config(pod()).security.readonlyPaths).toContain('/proc/sys');
  });

  it('seccompDefault, and the old AppArmor annotation', () => {
    expect(config(pod(), {}, {}, { seccompDefault: true }).security.seccomp).toEqual({ type: 'RuntimeDefault' });
    const annotated = pod({}, { 'container.apparmor.security.beta.kubernetes.io/c': 'localhost/mine' });
    expect(config(annotated).security.apparmor).toEqual({ type: 'Localhost', localhostRef: 'mine' });
  });

  it('runs as the user the image names', () => {
    expect(config(pod(), {}, { imageUser: { uid: 33 } }).security.runAsUser).toBe(33);
    const named = config(pod(), {}, { imageUser: { username: 'www' } }).security;
    expect(named.runAsUsername).toBe('www');
    expect(named.runAsUser).toBeUndefined();
  });

  const where = '(pod: "web_shop(u-1)", container: c)';
  it.each<[SecurityContext, ContainerInput['imageUser'], string | undefined]>([
    [{ runAsNonRoot: true, runAsUser: 0 }, { uid: 5 }, `container's runAsUser breaks non-root policy ${where}`],
    [{ runAsNonRoot: true }, {}, `container has runAsNonRoot and image will run as root ${where}`],
    [{ runAsNonRoot: true }, { uid: 0 }, `container has runAsNonRoot and image will run as root ${where}`],
    [
      { runAsNonRoot: true },
      { username: 'www' },
      `container has runAsNonRoot and image has non-numeric user (www), cannot verify user is non-root ${where}`,
    ],
    [{ runAsNonRoot: true, runAsUser: 7 }, { uid: 0 }, undefined],
    [{ runAsNonRoot: true }, { uid: 33 }, undefined],
    [{ runAsNonRoot: false }, { uid: 0 }, undefined],
  ])('runAsNonRoot: %j with image %j', (securityContext, imageUser, message) => {
    const make = () => config(pod(), { securityContext }, { imageUser });
    if (message === undefined) expect(make).not.toThrow();
    else expect(make).toThrow(message);
  });

  it('refuses profiles without a name', () => {
    expect(() => config(pod(), { securityContext: { seccompProfile: { type: 'Localhost' } } })).toThrow(
      'localhostProfile must be set if seccompProfile type is Localhost.',
    );
    expect(() => config(pod(), { securityContext: { appArmorProfile: { type: 'Localhost' } } })).toThrow(
      'missing localhost apparmor profile name',
    );
  });

  it("maps ids of mounts in the pod's user namespace, and sees the target's processes", () => {
    const mapping = [{ hostId: 65_536, containerId: 0, length: 65_536 }];
    const mount = {
      containerPath: '/v',
      hostPath: '/h',
      readonly: false,
      recursiveReadOnly: false,
      selinuxRelabel: false,
      propagation: 'private',
    } as const;
    const made = config(
      pod(),
      {},
      { mounts: [mount], userns: { mode: 'pod', uids: mapping, gids: mapping }, target: 'main-id' },
    );
    expect(made.mounts[0]).toMatchObject({ uidMappings: mapping, gidMappings: mapping });
    expect(made.security.namespaces).toMatchObject({ pid: 'target', targetId: 'main-id', userns: { mode: 'pod' } });
    expect(config(pod({ shareProcessNamespace: true }), {}, { target: 'x' }).security.namespaces.pid).toBe('pod');
  });
});

describe('logs', () => {
  it.each([
    [[], 0],
    [['0.log'], 1],
    [['3.log', '10.log', '2.log.20260101-000000.gz', 'x.log', '11'], 11],
  ])('of %j: the next restart count is %d', (names, count) => expect(restartCountOfLogs(names)).toBe(count));

  it('have a name in the older place that is never too long', () => {
    expect(legacyLogName(pod(), 'c', 'id')).toBe('web_shop_c-id.log');
    expect(legacyLogName(pod(), 'c'.repeat(300), 'id')).toHaveLength(255);
  });
});
