import { describe, expect, it } from 'vitest';
import type { Service } from '../kube/types/core.ts';
import { admitService } from './admit-service.ts';

const context = (services: readonly Service[] = []) => ({
  serviceCidr: '10.96.0.0/24',
  all: <T>() => services as readonly unknown[] as readonly T[],
  random: () => 0.5,
});
const service = (spec: Service['spec'], name = 's'): Service => ({
  metadata: { name, uid: name },
  spec: structuredClone(spec),
});
const admitted = (spec: Service['spec'], before?: Service): Service => {
  const made = service(spec);
  expect(admitService(context(), made, before)).toEqual([]);
  return made;
};
const web = [{ port: 80 }];

describe('Service', () => {
  it('gets an address and its defaults', () => {
    const { spec } = admitted({ ports: web });
    expect(spec).toMatchObject({
      type: 'ClusterIP',
      ipFamilies: ['IPv4'],
      ipFamilyPolicy: 'SingleStack',
      sessionAffinity: 'None',
      internalTrafficPolicy: 'Cluster',
    });
    expect(spec.clusterIP).toMatch(/^10\.96\.0\.\d+$/);
    expect(spec.clusterIPs).toEqual([spec.clusterIP]);
    expect(spec.ports).toEqual([{ port: 80, protocol: 'TCP', targetPort: 80 }]);
  });

  it('gets one family, and is refused where it must have both', () => {
    expect(admitted({ ports: web, ipFamilyPolicy: 'PreferDualStack' }).spec.ipFamilies).toEqual(['IPv4']);
    const [cause] = admitService(context(), service({ ports: web, ipFamilyPolicy: 'RequireDualStack' }), undefined);
    expect(cause?.message).toContain('not configured for dual-stack services');
  });

  it('does not give an address or node port twice', () => {
    const first = admitted({ type: 'NodePort', ports: web });
    const second = service({ type: 'NodePort', ports: web }, 'other');
    expect(admitService(context([first]), second, undefined)).toEqual([]);
    expect(second.spec.clusterIP).not.toBe(first.spec.clusterIP);
    expect(second.spec.ports?.[0]?.nodePort).not.toBe(first.spec.ports?.[0]?.nodePort);
    const third = service({ clusterIP: first.spec.clusterIP!, ports: web }, 'third');
    expect(admitService(context([first]), third, undefined)[0]?.message).toContain('provided IP is already allocated');
    const { nodePort } = first.spec.ports![0]!;
    const fourth = service({ type: 'NodePort', ports: [{ port: 80, nodePort: nodePort! }] }, 'fourth');
    expect(admitService(context([first]), fourth, undefined)[0]).toMatchObject({
      field: 'spec.ports[0].nodePort',
      message: `Invalid value: ${nodePort}: provided port is already allocated`,
    });
  });

  it('keeps what it has on an update that does not name it, and gives ports back with the type', () => {
    const before = admitted({ type: 'NodePort', ports: web });
    const same = admitted({ type: 'NodePort', ports: web }, before);
    expect(same.spec.clusterIP).toBe(before.spec.clusterIP);
    expect(same.spec.ports).toEqual(before.spec.ports);
    const without = admitted({ ...before.spec, type: 'ClusterIP' }, before);
    expect(without.spec.ports?.[0]).not.toHaveProperty('nodePort');
    const other = service({ ...before.spec, clusterIP: '10.96.0.9', clusterIPs: ['10.96.0.9'] });
    expect(admitService(context(), other, before)[0]?.message).toContain('may not change once set');
  });

  it('is left alone when headless or external', () => {
    const headless = { clusterIP: 'None', clusterIPs: ['None'], ipFamilies: ['IPv4'] };
    expect(admitted({ clusterIP: 'None', ports: web }).spec).toMatchObject(headless);
    expect(admitted({ type: 'ExternalName', externalName: 'x.example' }).spec).not.toHaveProperty('clusterIP');
  });
});
