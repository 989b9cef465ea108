// machine_* and cadvisor_version_info: the end of cAdvisor's page.
import { cpus } from 'node:os';
import { type Exposition, labelText, withLabel } from '../../lib/exposition.ts';
import type { MachineFacts } from './machine-facts.ts';
import type { HostMemory } from './proc.ts';

/** `machine`: undefined where it could not be read, which is then said. */
export function machineFamilies(page: Exposition, memory: HostMemory, machine: MachineFacts | undefined): void {
  const labels = labelText({
    boot_id: machine?.bootId ?? '',
    machine_id: machine?.machineId ?? '',
    system_uuid: machine?.systemUuid ?? '',
  });
  const gauge = (name: string, help: string, value: number | undefined): void =>
    page.family(name, 'gauge', help).sample(labels, value);
  gauge('machine_cpu_cores', 'Number of logical CPU cores.', cpus().length);
  gauge('machine_cpu_physical_cores', 'Number of physical CPU cores.', machine?.processors.cores);
  gauge('machine_cpu_sockets', 'Number of CPU sockets.', machine?.processors.sockets);
  gauge('machine_cpu_books', 'Number of CPU books.', machine?.processors.books);
  gauge('machine_cpu_drawers', 'Number of CPU drawers.', machine?.processors.drawers);
  gauge('machine_memory_bytes', 'Amount of memory installed on the machine.', memory.total);
  gauge('machine_swap_bytes', 'Amount of swap memory available on the machine.', memory.swapTotal);
  const modules = machine?.modules ?? [];
  const counts = page.family(
    'machine_dimm_count',
    'gauge',
    'Number of RAM DIMM (all types memory modules) value labeled by dimm type.',
  );
  for (const { type, count } of modules) counts.sample(withLabel(labels, 'type', type), count);
  const capacity = page.family(
    'machine_dimm_capacity_bytes',
    'gauge',
    'Total RAM DIMM capacity (all types memory modules) value labeled by dimm type.',
  );
  for (const { type, bytes } of modules) capacity.sample(withLabel(labels, 'type', type), bytes);
  // A kubelet as it is released is built without the library that would know.
  const nvm = page.family(
    'machine_nvm_capacity',
    'gauge',
    'NVM capacity value labeled by NVM mode (memory mode or app direct mode).',
  );
  for (const mode of ['memory_mode', 'app_direct_mode']) nvm.sample(withLabel(labels, 'mode', mode), 0);
  gauge('machine_nvm_avg_power_budget_watts', 'NVM power budget.', 0);
  page
    .family('machine_scrape_error', 'gauge', '1 if there was an error while getting machine metrics, 0 otherwise.')
    .sample('', machine ? 0 : 1);
  page
    .family(
      'cadvisor_version_info',
      'gauge',
      "A metric with a constant '1' value labeled by kernel version, OS version, docker version, cadvisor version & cadvisor revision.",
    )
    .sample(
      labelText({
        cadvisorRevision: '',
        cadvisorVersion: '',
        dockerVersion: '',
        kernelVersion: machine?.kernelVersion ?? '',
        osVersion: machine?.osImage ?? '',
      }),
      machine && 1,
    );
}
