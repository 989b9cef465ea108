// What kind of machine this is, for the head of `stevedore check`: asked of systeminformation, which knows vendors and hypervisors. Slow
// (it starts programs), so it is used for inventory only; what is polled is read from /proc and cgroupfs.
export interface Inventory {
  readonly os: string;
  readonly kernel: string;
  readonly cpus: number;
  readonly cpuModel: string;
  readonly memoryBytes: number;
  /** The hypervisor, or empty on bare metal. */
  readonly hypervisor: string;
  readonly machine: string;
}

export async function readInventory(): Promise<Inventory> {
  const { cpu, mem, osInfo, system } = await import('./system-information.ts');
  const [processor, memory, os, machine] = await Promise.all([cpu(), mem(), osInfo(), system()]);
  return {
    os: [os.distro, os.release].filter(Boolean).join(' '),
    kernel: os.kernel,
    cpus: processor.cores,
    cpuModel: processor.brand,
    memoryBytes: memory.total,
    hypervisor: machine.virtual ? machine.virtualHost || 'unknown hypervisor' : '',
    machine: [machine.manufacturer, machine.model].filter((part) => part && part !== '-').join(' '),
  };
}

export function inventoryText(inventory: Inventory): string {
  const { os, kernel, cpus, cpuModel, memoryBytes, hypervisor, machine } = inventory;
  const where = hypervisor === '' ? machine || 'bare metal' : `${machine || 'virtual machine'} under ${hypervisor}`;
  return `host: ${os}, kernel ${kernel}, ${cpus} CPUs (${cpuModel}), ${(memoryBytes / 2 ** 30).toFixed(1)} GiB; ${where}\n`;
}
