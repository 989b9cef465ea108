// What systeminformation is asked for, to be loaded by `await import`: only an inventory needs it.
export { cpu, mem, osInfo, system } from 'systeminformation';
