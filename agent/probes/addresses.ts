// Addresses and what the kernel says of them, in the words of Go's net package.

/** `10.0.0.1:80`, `[fd00::1]:80`. */
export const hostPort = (host: string, port: number): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;

const words: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ECONNRESET: 'connection reset by peer',
  EHOSTUNREACH: 'no route to host',
  ENETUNREACH: 'network is unreachable',
  ETIMEDOUT: 'connection timed out',
  EPIPE: 'broken pipe',
  EADDRNOTAVAIL: 'cannot assign requested address',
  EINVAL: 'invalid argument',
  EACCES: 'permission denied',
  EPERM: 'operation not permitted',
};

/** Why a connection could not be made (`connected` false) or broke. */
export function describeSocketError(
  error: NodeJS.ErrnoException,
  host: string,
  port: number,
  connected: boolean,
): string {
  if (error.code === 'ENOTFOUND' || error.code === 'EAI_AGAIN') return `dial tcp: lookup ${host}: no such host`;
  const why = (error.code !== undefined ? words[error.code] : undefined) ?? error.message;
  if (connected) return `read tcp ${hostPort(host, port)}: read: ${why}`;
  return error.syscall === 'connect' || error.syscall === undefined
    ? `dial tcp ${hostPort(host, port)}: connect: ${why}`
    : `dial tcp ${hostPort(host, port)}: ${error.syscall}: ${why}`;
}
