// Addresses and subnets of a range by their number, IPv4 and IPv6.
import ipaddr from 'ipaddr.js';

interface Range {
  readonly base: bigint;
  readonly bits: number;
  readonly prefix: number;
}

export const familyOf = (addressOrCidr: string): 'IPv4' | 'IPv6' => (addressOrCidr.includes(':') ? 'IPv6' : 'IPv4');

/** Throws where the text is not a CIDR. */
export function parseRange(cidr: string): Range {
  const [address, prefix] = ipaddr.parseCIDR(cidr);
  const bits = address.kind() === 'ipv4' ? 32 : 128;
  const value = address.toByteArray().reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  const host = BigInt(bits - prefix);
  return { base: (value >> host) << host, bits, prefix };
}

const toText = (value: bigint, bits: number): string => {
  const bytes = Array.from({ length: bits / 8 }, (_, at) => Number((value >> BigInt(bits - 8 * (at + 1))) & 0xffn));
  return ipaddr.fromByteArray(bytes).toString();
};

export const addressAt = (range: Range, index: number): string => toText(range.base + BigInt(index), range.bits);

/** The first address that is free, from a random start as the API server's allocator; the first and last of a range are left out. */
export function pickAddress(cidr: string, used: ReadonlySet<string>, random: () => number): string | undefined {
  const range = parseRange(cidr);
  const usable = 2 ** Math.min(range.bits - range.prefix, 30) - 2;
  const start = Math.floor(random() * usable);
  for (let tries = 0; tries < Math.min(usable, used.size + 2); tries++) {
    const address = addressAt(range, 1 + ((start + tries) % usable));
    if (!used.has(address)) return address;
  }
  return undefined;
}

export function contains(cidr: string, address: string): boolean {
  if (!ipaddr.isValid(address) || familyOf(cidr) !== familyOf(address)) return false;
  return ipaddr.parse(address).match(ipaddr.parseCIDR(cidr));
}

/** The first subnet of `prefix` bits in the range that is not used. */
export function pickSubnet(cidr: string, prefix: number, used: ReadonlySet<string>): string | undefined {
  const range = parseRange(cidr);
  const count = 2 ** Math.min(Math.max(prefix - range.prefix, 0), 20);
  for (let index = 0; index < count; index++) {
    const base = range.base + (BigInt(index) << BigInt(range.bits - prefix));
    const subnet = `${toText(base, range.bits)}/${prefix}`;
    if (!used.has(subnet)) return subnet;
  }
  return undefined;
}
