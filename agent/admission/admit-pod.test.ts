import { describe, expect, it } from 'vitest';
import type { Node } from '../../kube/types/core.ts';
import type { Pod, Toleration } from '../../kube/types/pod.ts';
import { type AdmissionFacts, admitPod } from './admit-pod.ts';
import { createNodeAdmission } from './node-admission.ts';
import { podsToPreempt } from './preemption.ts';
import { createSysctlRules, normalizeSysctl } from './sysctls.ts';
import { tolerates } from '../../kube/scheduling/taints.ts';

const node: Node = {
  metadata: { name: 'node-1', labels: { zone: 'a', 'kubernetes.io/os': 'linux', cores: '8' } },
  spec: {},
};
const allocatable = {
  cpu: '4',
  memory: '4Gi',
  pods: '3',
  'ephemeral-storage': '10Gi',
  'hugepages-2Mi': '4Mi',
  'example.com/gpu': '1',
};
const facts: AdmissionFacts = {
  node,
  allocatable,
  sysctls: createSysctlRules([], '6.1.0-1-amd64'),
  appArmor: false,
  supplementalGroupsPolicy: false,
};
const pod = (name: string, requests: Record<string, string> = {}, spec: Partial<Pod['spec']> = {}): Pod => ({
  metadata: { name, namespace: 'n', uid: name },
  spec: { containers: [{ name: 'c', resources: { requests } }], ...spec },
});
const judge = (of: Pod, others: readonly Pod[] = [], more: Partial<AdmissionFacts> = {}) =>
  admitPod(of, others, { ...facts, ...more });
const critical = { priority: 2_000_000_000 };

describe('room', () => {
  it.each<[string, Pod, Pod[], string | undefined, string?]>([
    ['fits', pod('a', { cpu: '4', memory: '4Gi' }), [], undefined],
    ['fits beside others', pod('a', { cpu: '2' }), [pod('b', { cpu: '2' })], undefined],
    ['asks for nothing', pod('a'), [pod('b', { cpu: '4' })], undefined],
    [
      'cpu',
      pod('a', { cpu: '2500m' }),
      [pod('b', { cpu: '2' })],
      'OutOfcpu',
      'cpu, requested: 2500, used: 2000, capacity: 4000',
    ],
    [
      'memory',
      pod('a', { memory: '5Gi' }),
      [],
      'OutOfmemory',
      'memory, requested: 5368709120, used: 0, capacity: 4294967296',
    ],
    [
      'storage',
      pod('a', { 'ephemeral-storage': '11Gi' }),
      [],
      'OutOfephemeral-storage',
      'ephemeral-storage, requested: 11811160064, used: 0, capacity: 10737418240',
    ],
    [
      'huge pages',
      pod('a', { 'hugepages-2Mi': '8Mi' }),
      [],
      'OutOfhugepages-2Mi',
      'hugepages-2Mi, requested: 8388608, used: 0, capacity: 4194304',
    ],
    [
      'huge pages of a size it has not',
      pod('a', { 'hugepages-1Gi': '1Gi' }),
      [],
      'OutOfhugepages-1Gi',
      'hugepages-1Gi, requested: 1073741824, used: 0, capacity: 0',
    ],
    [
      'devices',
      pod('a', { 'example.com/gpu': '2' }),
      [],
      'OutOfexample.com/gpu',
      'example.com/gpu, requested: 2, used: 0, capacity: 1',
    ],
    ["somebody else's devices", pod('a', { 'example.com/fpga': '2' }), [], undefined],
    ['pods', pod('a'), [pod('b'), pod('c'), pod('d')], 'OutOfpods', 'pods, requested: 1, used: 3, capacity: 3'],
    [
      'pods before cpu',
      pod('a', { cpu: '5' }),
      [pod('b'), pod('c'), pod('d')],
      'OutOfpods',
      'pods, requested: 1, used: 3, capacity: 3',
    ],
  ])('%s', (_name, of, others, reason, detail) => {
    const verdict = judge(of, others);
    if (reason === undefined) expect(verdict).toEqual({ admitted: true, preempt: [] });
    else expect(verdict).toEqual({ admitted: false, reason, message: `Node didn't have enough resource: ${detail}` });
  });
});

describe('place', () => {
  const affinity = (key: string, operator: string, values?: string[]): Partial<Pod['spec']> => ({
    affinity: {
      nodeAffinity: {
        requiredDuringSchedulingIgnoredDuringExecution: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key, operator: operator as 'In', ...(values ? { values } : {}) }] },
          ],
        },
      },
    },
  });
  const notHere = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
  const port = (hostPort: number, more: object = {}): Partial<Pod['spec']> => ({
    containers: [{ name: 'c', ports: [{ containerPort: 80, hostPort, ...more }] }],
  });
  const taken = pod('b', {}, port(80, { hostIP: '127.0.0.1' }));
  const noPort = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";

  it.each<[string, Partial<Pod['spec']>, string | undefined]>([
    ['nodeSelector', { nodeSelector: { zone: 'a' } }, undefined],
    ['another nodeSelector', { nodeSelector: { zone: 'b' } }, notHere],
    ['affinity In', affinity('zone', 'In', ['a', 'b']), undefined],
    ['affinity NotIn', affinity('zone', 'NotIn', ['a']), notHere],
    ['affinity Exists', affinity('zone', 'Exists'), undefined],
    ['affinity Gt', affinity('cores', 'Gt', ['4']), undefined],
    ['affinity Lt', affinity('cores', 'Lt', ['4']), notHere],
    ['its node', { nodeName: 'node-1' }, undefined],
    [
      "another's node",
      { nodeName: 'node-2' },
      "Predicate NodeName failed: node(s) didn't match the requested node name",
    ],
    ['a free port', port(81), undefined],
    ['a taken port', port(80), noPort],
    ['the same port at another address', port(80, { hostIP: '192.0.2.9' }), undefined],
    ['the same port of another protocol', port(80, { protocol: 'UDP' }), undefined],
    ['the same port at every address', port(80, { hostIP: '0.0.0.0' }), noPort],
  ])('%s', (_name, spec, message) => {
    const verdict = judge(pod('a', {}, spec), [taken]);
    expect(verdict.admitted ? undefined : verdict.message).toBe(message);
  });

  it('keeps away from taints that drive pods away, except for static pods', () => {
    const tainted: Node = {
      ...node,
      spec: {
        taints: [
          { key: 'k', effect: 'NoExecute' },
          { key: 's', effect: 'NoSchedule' },
        ],
      },
    };
    expect(judge(pod('a'), [], { node: tainted })).toEqual({
      admitted: false,
      reason: 'TaintToleration',
      message: "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
    });
    expect(
      judge(pod('a', {}, { tolerations: [{ key: 'k', operator: 'Exists' }] }), [], { node: tainted }).admitted,
    ).toBe(true);
    const manifest = pod('a');
    manifest.metadata.annotations = { 'kubernetes.io/config.source': 'file' };
    expect(judge(manifest, [], { node: tainted }).admitted).toBe(true);
  });

  it.each<[Toleration, boolean]>([
    [{ operator: 'Exists' }, true],
    [{ key: 'k', value: '5' }, true],
    [{ key: 'k', value: '6' }, false],
    [{ key: 'other', operator: 'Exists' }, false],
    [{ key: 'k', operator: 'Exists', effect: 'NoSchedule' }, false],
    [{ key: 'k', operator: 'Gt', value: '4' }, true],
    [{ key: 'k', operator: 'Lt', value: '4' }, false],
    [{ key: 'k', operator: 'Gt', value: 'x' }, false],
  ])('%j', (toleration, expected) => {
    expect(tolerates(toleration, { key: 'k', value: '5', effect: 'NoExecute' })).toBe(expected);
  });
});

describe('what the node cannot do', () => {
  const strict = { securityContext: { supplementalGroupsPolicy: 'Strict' as const } };
  it.each<[string, Pod, string, string]>([
    [
      'another OS',
      pod('a', {}, { os: { name: 'windows' } }),
      'PodOSNotSupported',
      "Failed to admit pod as the OS field doesn't match node OS",
    ],
    [
      'groups',
      pod('a', {}, strict),
      'SupplementalGroupsPolicyNotSupported',
      'SupplementalGroupsPolicy=Strict is not supported in this node',
    ],
    [
      'AppArmor',
      pod('a', {}, { securityContext: { appArmorProfile: { type: 'RuntimeDefault' } } }),
      'AppArmor',
      'Cannot enforce AppArmor: AppArmor is not enabled on the host',
    ],
    [
      'DRA',
      pod('a', {}, { resourceClaims: [{ name: 'gpu' }] }),
      'PodFeatureUnsupported',
      'Pod requires node features that are not available: DynamicResourceAllocation (spec.resourceClaims)',
    ],
  ])('%s', (_name, of, reason, message) => {
    expect(judge(of)).toEqual({ admitted: false, reason, message });
  });

  it('what it can do it does', () => {
    const confined = pod('a', {}, { securityContext: { appArmorProfile: { type: 'RuntimeDefault' } } });
    expect(judge(confined, [], { appArmor: true }).admitted).toBe(true);
    expect(judge({ ...confined, status: { phase: 'Running' } }).admitted).toBe(true);
    expect(judge(pod('a', {}, strict), [], { supplementalGroupsPolicy: true }).admitted).toBe(true);
    expect(judge(pod('a', {}, { os: { name: 'linux' } })).admitted).toBe(true);
    const other = { ...pod('a'), metadata: { ...pod('a').metadata, labels: { 'kubernetes.io/os': 'windows' } } };
    expect(judge(other)).toMatchObject({ reason: 'PodOSSelectorNodeLabelDoesNotMatch' });
  });
});

describe('sysctls', () => {
  const of = (name: string, spec: Partial<Pod['spec']> = {}): Pod =>
    pod('a', {}, { securityContext: { sysctls: [{ name, value: '1' }] }, ...spec });
  const rules = createSysctlRules(['kernel.msg*', 'net.core.somaxconn'], '6.1.0');

  it.each<[string, Partial<Pod['spec']>, string | undefined]>([
    ['kernel.shm_rmid_forced', {}, undefined],
    ['net.ipv4.ip_unprivileged_port_start', {}, undefined],
    ['net/ipv4/tcp_syncookies', {}, undefined],
    ['net.ipv4.tcp_rmem', {}, undefined],
    ['kernel.msgmax', {}, undefined],
    ['net.core.somaxconn', {}, undefined],
    ['vm.swappiness', {}, '"vm.swappiness" not allowlisted'],
    ['kernel.shm_rmid_forced', { hostIPC: true }, '"kernel.shm_rmid_forced" not allowed with host IPC enabled'],
    ['net.ipv4.tcp_syncookies', { hostNetwork: true }, '"net.ipv4.tcp_syncookies" not allowed with host Net enabled'],
  ])('%s %j', (name, spec, why) => expect(rules.refuse(of(name, spec))).toBe(why));

  it('are refused by name', () => {
    expect(judge(of('kernel.msgmax'))).toEqual({
      admitted: false,
      reason: 'SysctlForbidden',
      message: 'forbidden sysctl: "kernel.msgmax" not allowlisted',
    });
  });

  it('depend on the kernel', () => {
    expect(createSysctlRules([], '4.4').refuse(of('net.ipv4.tcp_keepalive_time'))).toBe(
      '"net.ipv4.tcp_keepalive_time" not allowlisted',
    );
    expect(createSysctlRules([], '4.5.0').refuse(of('net.ipv4.tcp_keepalive_time'))).toBeUndefined();
    expect(() => createSysctlRules(['vm.*'], '6.1')).toThrow('the sysctls "vm." are not known to be namespaced');
    expect(normalizeSysctl('net/ipv4/conf/eth0.1/arp')).toBe('net.ipv4.conf.eth0/1.arp');
  });
});

describe('preemption', () => {
  const names = (pods: readonly Pod[] | undefined) => pods?.map((each) => each.metadata.name);
  const guaranteed = (name: string, cpu: string): Pod => ({
    ...pod(name),
    spec: {
      containers: [{ name: 'c', resources: { requests: { cpu, memory: '1Gi' }, limits: { cpu, memory: '1Gi' } } }],
    },
  });
  const verdict = (of: Pod, others: readonly Pod[]) => {
    const result = judge(of, others, { allocatable: { ...allocatable, pods: '10' } });
    return result.admitted ? names(result.preempt) : result;
  };

  it.each<[string, Pod, Pod[], string[]]>([
    ['not where there is room', pod('a', { cpu: '1' }, critical), [pod('b', { cpu: '1' })], []],
    [
      'the smallest that is enough',
      pod('a', { cpu: '2' }, critical),
      [pod('b', { cpu: '3' }), pod('c', { cpu: '1' })],
      ['b'],
    ],
    [
      'as few as possible',
      pod('a', { cpu: '2' }, critical),
      [pod('b', { cpu: '1' }), pod('c', { cpu: '1' }), pod('d', { cpu: '2' })],
      ['d'],
    ],
    [
      'Burstable before Guaranteed',
      pod('a', { cpu: '2' }, critical),
      [guaranteed('g', '2'), pod('b', { cpu: '2' })],
      ['b'],
    ],
    [
      'Guaranteed where it must be',
      pod('a', { cpu: '4' }, critical),
      [guaranteed('g', '2'), pod('b', { cpu: '2' })],
      ['b', 'g'],
    ],
  ])('%s', (_name, of, others, expected) => expect(verdict(of, others)).toEqual(expected));

  it('spares other critical pods', () => {
    expect(verdict(pod('a', { cpu: '2' }, critical), [pod('b', { cpu: '3' }, critical)])).toMatchObject({
      admitted: false,
      reason: 'UnexpectedAdmissionError',
    });
    expect(
      names(
        podsToPreempt(
          pod('a', {}, { priority: 2_000_001_000 }),
          [pod('b', { cpu: '1' }, critical)],
          [{ resource: 'cpu', requested: 1000, used: 4000, capacity: 4000 }],
        ),
      ),
    ).toEqual(['b']);
  });

  it('makes no room for what does not belong here', () => {
    expect(
      verdict(pod('a', { cpu: '2' }, { ...critical, nodeSelector: { zone: 'b' } }), [pod('b', { cpu: '3' })]),
    ).toMatchObject({ reason: 'NodeAffinity' });
  });
});

describe('the node', () => {
  const admission = (
    preempt?: (victim: Pod, forPod: Pod, resource: string) => Promise<void>,
    known: Node | undefined = node,
  ) =>
    createNodeAdmission(
      {
        node: () => known,
        allocatable: () => allocatable,
        kernelVersion: '6.1',
        appArmor: async () => false,
        ...(preempt ? { preempt } : {}),
      },
      { allowedUnsafeSysctls: [] },
    );

  it('waits for the pods that give way', async () => {
    const ended: string[] = [];
    const preempting = admission(async (victim, _forPod, resource) => {
      await Promise.resolve();
      ended.push(`${victim.metadata.name} for ${resource}`);
    });
    expect(await preempting.admit(pod('a', { cpu: '2' }, critical), [pod('b', { cpu: '3' })])).toEqual({
      admitted: true,
    });
    expect(ended).toEqual(['b for cpu']);
  });

  it('refuses where nobody can make room', async () => {
    expect(await admission().admit(pod('a', { cpu: '2' }, critical), [pod('b', { cpu: '3' })])).toMatchObject({
      reason: 'OutOfcpu',
    });
  });

  it('says that it does not know itself yet', async () => {
    const unknown = createNodeAdmission(
      { node: () => undefined, allocatable: () => ({}) },
      { allowedUnsafeSysctls: [] },
    );
    expect(await unknown.admit(pod('a'), [])).toEqual({
      admitted: false,
      reason: 'InvalidNodeInfo',
      message: 'Kubelet cannot get node info.',
    });
  });
});
