import { describe, expect, it } from 'vitest';
import { defaultKubeletConfiguration, type KubeletConfiguration } from '../config.ts';
import { enforcedLimits, nodeResources } from './capacity.ts';
import type { HostFacts } from './host-facts.ts';

const Mi = 2 ** 20;
const Gi = 2 ** 30;
const config = (more: Partial<KubeletConfiguration>): KubeletConfiguration => ({
  ...defaultKubeletConfiguration(),
  ...more,
});

describe('what the cgroup of all pods is limited to', () => {
  const facts = {
    cpus: 4,
    memoryBytes: 8 * Gi,
    storageBytes: 100 * Gi,
    hugePages: new Map([[2 * Mi, Gi]]),
  } as unknown as HostFacts;
  const reserved = {
    kubeReserved: { cpu: '500m', memory: '1Gi' },
    systemReserved: { memory: '512Mi' },
    evictionHard: { 'memory.available': '250Mi' },
  };

  it('is above the allocatable by what eviction defends, or the kernel would kill before anybody is evicted', () => {
    const { capacity, allocatable } = nodeResources(facts, config(reserved));
    expect(allocatable.memory).toBe(`${8192 - 1024 - 1024 - 512 - 250}Mi`);
    expect(enforcedLimits(capacity, config(reserved))).toEqual({
      cpuMilli: 3500,
      memoryBytes: (8192 - 1024 - 512) * Mi,
    });
  });

  it('is all that the node has where nothing is enforced or reserved', () => {
    const { capacity } = nodeResources(facts, config({}));
    const all = { cpuMilli: 4000, memoryBytes: 8 * Gi };
    expect(enforcedLimits(capacity, config({ ...reserved, enforceNodeAllocatable: [] }))).toEqual(all);
    expect(enforcedLimits(capacity, config({}))).toEqual(all);
  });
});
