// IP addresses and CIDRs as Kubernetes writes them, sloppily at times: leading zeros, mapped IPv4, blanks around. Pure.
import ipaddr from 'ipaddr.js';

export type IpFamily = 'IPv4' | 'IPv6';
export const ipFamilies: readonly IpFamily[] = ['IPv4', 'IPv6'];

export interface Ip {
  readonly family: IpFamily;
  /** The shortest usual form (RFC 5952 for IPv6). */
  readonly text: string;
}

const strictIpv4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;
// Go's parser once took 010.1.2.3 for 10.1.2.3; objects written then are still about.
const sloppyIpv4 = /^0*(\d{1,3})\.0*(\d{1,3})\.0*(\d{1,3})\.0*(\d{1,3})$/;

/** The address in its usual form, or undefined where the text is none. A mapped IPv4 address counts as IPv4, as in Go. */
export function parseIp(text: string): Ip | undefined {
  if (strictIpv4.test(text)) return { family: 'IPv4', text };
  const sloppy = sloppyIpv4.exec(text);
  if (sloppy) {
    const parts = sloppy.slice(1).map(Number);
    return parts.every((part) => part <= 255) ? { family: 'IPv4', text: parts.join('.') } : undefined;
  }
  if (!text.includes(':') || text.includes('%') || !ipaddr.IPv6.isValid(text)) return undefined;
  const address = ipaddr.IPv6.parse(text);
  if (address.isIPv4MappedAddress()) return { family: 'IPv4', text: address.toIPv4Address().toString() };
  return { family: 'IPv6', text: address.toRFC5952String() };
}

export interface Cidr {
  readonly family: IpFamily;
  /** The network's first address, a slash and the prefix length. */
  readonly text: string;
  readonly prefix: number;
}

/** The network in its usual form (host bits cleared), or undefined where the text, trimmed, is none. */
export function parseCidr(text: string): Cidr | undefined {
  const [address, length, ...rest] = text.trim().split('/');
  if (address === undefined || length === undefined || rest.length > 0 || !/^\d{1,3}$/.test(length)) return undefined;
  const ip = parseIp(address);
  const prefix = Number(length);
  if (!ip || prefix > (ip.family === 'IPv4' ? 32 : 128)) return undefined;
  const network =
    ip.family === 'IPv4'
      ? ipaddr.IPv4.networkAddressFromCIDR(`${ip.text}/${prefix}`).toString()
      : (ipaddr.IPv6.networkAddressFromCIDR(`${ip.text}/${prefix}`) as ipaddr.IPv6).toRFC5952String();
  return { family: ip.family, text: `${network}/${prefix}`, prefix };
}

/** Whether the network holds the address; false where either is not one, or the families differ. */
export function cidrContains(cidr: string, ip: string): boolean {
  const network = parseCidr(cidr);
  const address = parseIp(ip);
  if (!network || !address || network.family !== address.family) return false;
  const [base, prefix] = [network.text.slice(0, network.text.lastIndexOf('/')), network.prefix];
  return address.family === 'IPv4'
    ? ipaddr.IPv4.parse(address.text).match(ipaddr.IPv4.parse(base), prefix)
    : ipaddr.IPv6.parse(address.text).match(ipaddr.IPv6.parse(base), prefix);
}

/** `10.0.0.1:80` or `[fd00::1]:80`. */
export const joinHostPort = (ip: string, port: number): string =>
  ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`;
