import { describe, expect, it } from 'vitest';
import type { Service } from '../kube/types/core.ts';
import { allocateService, defaultService } from './admit-service.ts';

const deps = (services: readonly Service[] = [], serviceCidrs = ['10.96.0.0/24', 'fd96::/112']) => ({
  serviceCidrs,
  services: () => services,
  random: () => 0.5,
});
const service = (spec: Service['spec'], name = 's'): Service => ({
  metadata: { name, uid: name },
  spec: structuredClone(spec),
});
const admitted = (spec: Service['spec'], before?: Service, others: Service[] = []): Service => {
  const made = service(structuredClone(spec));
  defaultService(made);
  expect(allocateService(deps(others), made, before)).toEqual([]);
  return made;
};
const web = [{ port: 80 }];

describe('Service', () => {
  it('gets an address of the first family', () => {
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

  it('gets one of each family when it asks for two', () => {
    const { spec } = admitted({ ports: web, ipFamilyPolicy: 'PreferDualStack' });
    expect(spec.ipFamilies).toEqual(['IPv4', 'IPv6']);
    expect(spec.clusterIPs?.[1]).toMatch(/^fd96::/);
  });

  it('does not give an address or node port twice', () => {
    const first = admitted({ type: 'NodePort', ports: web });
    const second = service({ type: 'NodePort', ports: web }, 'other');
    defaultService(second);
    expect(allocateService(deps([first]), second, undefined)).toEqual([]);
    expect(second.spec.clusterIP).not.toBe(first.spec.clusterIP);
    expect(second.spec.ports?.[0]?.nodePort).not.toBe(first.spec.ports?.[0]?.nodePort);
    const third = service({ clusterIP: first.spec.clusterIP!, ports: web }, 'third');
    defaultService(third);
    expect(allocateService(deps([first]), third, undefined)[0]?.message).toContain('provided IP is already allocated');
  });

  it('keeps what it has on an update that does not name it, and gives ports back with the type', () => {
    const before = admitted({ type: 'NodePort', ports: web });
    const same = admitted({ type: 'NodePort', ports: web }, before);
    expect(same.spec.clusterIP).toBe(before.spec.clusterIP);
    expect(same.spec.ports).toEqual(before.spec.ports);
    const without = admitted({ ...before.spec, type: 'ClusterIP' }, before);
    expect(without.spec.ports?.[0]).not.toHaveProperty('nodePort');
  });

  it('has a health check port only with a local policy', () => {
    const local = admitted({ type: 'LoadBalancer', ports: web, externalTrafficPolicy: 'Local' });
    expect(local.spec.healthCheckNodePort).toBeGreaterThanOrEqual(30_000);
    expect(admitted({ type: 'LoadBalancer', ports: web }).spec).not.toHaveProperty('healthCheckNodePort');
  });

  it('is left alone when headless or external', () => {
    expect(admitted({ clusterIP: 'None', ports: web }).spec).toMatchObject({
      clusterIP: 'None',
      clusterIPs: ['None'],
      ipFamilies: ['IPv4'],
    });
    expect(admitted({ type: 'ExternalName', externalName: 'x.example' }).spec).not.toHaveProperty('clusterIP');
  });
});
