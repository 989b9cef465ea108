import { describe, expect, it } from 'vitest';
import type { Service } from '../../kube/types/core.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { planGroups } from './slices.ts';

const pod = (
  name: string,
  port: number,
  more: Partial<Pod['status']> = {},
  metadata: Partial<Pod['metadata']> = {},
): Pod => ({
  metadata: { name, namespace: 'n', uid: `uid-${name}`, ...metadata },
  spec: {
    nodeName: 'node',
    containers: [{ name: 'c', ports: [{ name: 'http', containerPort: port, protocol: 'TCP' }] }],
  },
  status: {
    phase: 'Running',
    podIPs: [{ ip: `10.0.0.${port % 250}` }, { ip: `fd00::${port}` }],
    conditions: [{ type: 'Ready', status: 'True' }],
    ...more,
  },
});

const service = (spec: Partial<Service['spec']> = {}): Service => ({
  metadata: { name: 's', namespace: 'n', uid: 'u' },
  spec: {
    selector: { app: 'a' },
    ipFamilies: ['IPv4'],
    ports: [{ name: 'web', port: 80, protocol: 'TCP', targetPort: 'http' }],
    ...spec,
  },
});

const none = () => undefined;

describe('planGroups', () => {
  it('makes a group for each number a named port has', () => {
    const groups = planGroups(service(), [pod('a', 8080), pod('b', 8080), pod('c', 9090)], none);
    expect(
      groups.map(({ ports, endpoints }) => [ports[0]?.port, endpoints.map(({ targetRef }) => targetRef?.name)]),
    ).toEqual([
      [8080, ['a', 'b']],
      [9090, ['c']],
    ]);
  });

  it('makes slices of both families', () => {
    const groups = planGroups(service({ ipFamilies: ['IPv4', 'IPv6'] }), [pod('a', 80)], none);
    expect(groups.map(({ addressType, endpoints }) => [addressType, endpoints[0]?.addresses])).toEqual([
      ['IPv4', ['10.0.0.80']],
      ['IPv6', ['fd00::80']],
    ]);
  });

  it.each([
    ['ready', pod('a', 80), { ready: true, serving: true, terminating: false }],
    [
      'not ready',
      pod('a', 80, { conditions: [{ type: 'Ready', status: 'False' }] }),
      { ready: false, serving: false, terminating: false },
    ],
    ['ending', pod('a', 80, {}, { deletionTimestamp: 'x' }), { ready: false, serving: true, terminating: true }],
  ])('says of a pod that is %s', (_, one, conditions) => {
    expect(planGroups(service(), [one], none)[0]?.endpoints[0]?.conditions).toEqual(conditions);
  });

  it('publishes what is not ready where the Service says so', () => {
    const unready = pod('a', 80, { conditions: [] });
    expect(
      planGroups(service({ publishNotReadyAddresses: true }), [unready], none)[0]?.endpoints[0]?.conditions,
    ).toMatchObject({ ready: true, serving: false });
  });

  it('leaves out pods that have ended or have no address, and keeps an empty slice', () => {
    const groups = planGroups(service(), [pod('a', 80, { phase: 'Succeeded' }), pod('b', 80, { podIPs: [] })], none);
    expect(groups).toEqual([{ addressType: 'IPv4', ports: [], endpoints: [] }]);
  });
});
