// Where a server is to listen, read as Go reads it: the components of Kubernetes are written in it, and their configurations with it in mind.
import type { ListenOptions } from 'node:net';

/**
 * An unspecified address of either family means all addresses of both: clients of an IPv6 or dual-stack cluster come by IPv6 to what
 * listens on `0.0.0.0`. Where the host has no IPv6 it is those of IPv4.
 */
export const bindTo = (host: string, port: number): ListenOptions =>
  host === '0.0.0.0' || host === '::' || host === '' ? { port } : { host, port };
