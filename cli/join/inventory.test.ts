import { expect, it } from 'vitest';
import { inventoryText } from './inventory.ts';

const host = {
  os: 'Debian GNU/Linux 12',
  kernel: '6.1.0',
  cpus: 2,
  cpuModel: 'X',
  memoryBytes: 2 ** 31,
  machine: 'Acme One',
};

it('says on what the host runs', () => {
  expect(inventoryText({ ...host, hypervisor: '' })).toBe(
    'host: Debian GNU/Linux 12, kernel 6.1.0, 2 CPUs (X), 2.0 GiB; Acme One\n',
  );
  expect(inventoryText({ ...host, hypervisor: 'KVM' })).toContain('Acme One under KVM');
  expect(inventoryText({ ...host, machine: '', hypervisor: '' })).toContain('bare metal');
});
