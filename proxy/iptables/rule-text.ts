// A rule as text, the way iptables-save prints it, so that what the kernel holds is compared as text. Pure.
import type { NodeFacts } from '../backend.ts';
import type { IpFamily, ServicePort } from '../model.ts';

export interface RuleEnv extends NodeFacts {
  readonly family: IpFamily;
  /** Endpoint rules say which endpoint they are for; left out in large clusters, where it would be 40 % of the text. */
  readonly comments: boolean;
  /** The tool knows `MASQUERADE --random-fully`. */
  readonly randomFully: boolean;
}

/** A rule without its `-A CHAIN `. */
export type RuleText = string;

export interface Rule {
  readonly source?: string;
  readonly destination?: string;
  readonly inInterface?: string;
  readonly protocol?: string;
  /** In the order iptables-save prints them: as they were given. */
  readonly matches?: readonly string[];
  readonly jump: string;
}

const negatable = (flag: string, value: string | undefined): string =>
  value === undefined ? '' : value.startsWith('! ') ? `! ${flag} ${value.slice(2)} ` : `${flag} ${value} `;

export const rule = ({ source, destination, inInterface, protocol, matches = [], jump }: Rule): RuleText =>
  `${negatable('-s', source)}${negatable('-d', destination)}${negatable('-i', inInterface)}${negatable('-p', protocol)}${matches
    .map((match) => `${match} `)
    .join('')}-j ${jump}`;

export const comment = (text: string): string => `-m comment --comment "${text}"`;
export const dport = (port: ServicePort, number: number): string =>
  `-m ${port.protocol.toLowerCase()} --dport ${number}`;
export const only = (ip: string): string => `${ip}/${ip.includes(':') ? 128 : 32}`;
export const addrtype = (side: 'src' | 'dst'): string => `-m addrtype --${side}-type LOCAL`;

/** Node ports answer on 127.0.0.0/8, and what comes to them there is counted. */
export const countsLocalhost = (env: RuleEnv): boolean => env.family === 'IPv4' && env.localhostNodePorts;

export const markOf = (env: RuleEnv): string => `0x${(2 ** env.masqueradeBit).toString(16)}`;

/** What tells traffic from pods of this node, or from elsewhere; undefined where nothing does. */
export function localMatch(env: RuleEnv, not: boolean): Pick<Rule, 'source' | 'inInterface'> | undefined {
  const detector = env.localDetector;
  const sign = not ? '! ' : '';
  switch (detector.kind) {
    case 'none':
      return undefined;
    case 'cidr':
      return { source: sign + detector.cidr };
    case 'bridge-interface':
      return { inInterface: sign + detector.name };
    case 'interface-prefix':
      return { inInterface: `${sign}${detector.prefix}+` };
  }
}
