// What a trace over a ruleset is: which packet is walked, which rules it meets and what becomes of it. Walkers: iptables/trace.ts,
// nftables/trace.ts; they read what the kernel's tool prints, so a trace is about what is really programmed.
import type { IpFamily } from './model.ts';

export interface TracedPacket {
  readonly family: IpFamily;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly source: string;
  readonly destination: string;
  readonly port: number;
  /** The source is an address of this host: the packet starts here. */
  readonly sourceIsLocal: boolean;
  /** The destination is an address of this host. */
  readonly destinationIsLocal: boolean;
  /** The interface it comes in by; empty where it starts here. */
  readonly inInterface: string;
}

export interface TraceStep {
  readonly chain: string;
  readonly rule: string;
}

export interface TracedEndpoint {
  readonly address: string;
  readonly port: number;
  /** It sees an address of the node instead of the source. */
  readonly masqueraded: boolean;
}

export type Fate =
  | { readonly kind: 'endpoints'; readonly endpoints: readonly TracedEndpoint[] }
  | { readonly kind: 'rejected' }
  | { readonly kind: 'dropped' }
  /** No rule of ours concerns it. */
  | { readonly kind: 'untouched' };

export interface Trace {
  /** Rules that matched, in order. */
  readonly steps: readonly TraceStep[];
  readonly fate: Fate;
  /** The rule that decided; undefined where none did. */
  readonly decidedBy: TraceStep | undefined;
  /** What that means, where it needs a word. */
  readonly because?: string;
}

export function traceText(packet: TracedPacket, trace: Trace): string {
  const joined = (address: string, port: number): string =>
    address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
  const lines = [`${packet.protocol} ${packet.source} → ${joined(packet.destination, packet.port)}`];
  for (const { chain, rule } of trace.steps) lines.push(`  ${chain}: ${rule}`);
  const { fate } = trace;
  switch (fate.kind) {
    case 'endpoints':
      lines.push(
        `goes to ${fate.endpoints.length === 1 ? 'the endpoint' : `one of ${fate.endpoints.length} endpoints`}`,
      );
      for (const { address, port, masqueraded } of fate.endpoints)
        lines.push(`  ${joined(address, port)}${masqueraded ? ', masqueraded' : ', with its source address'}`);
      break;
    case 'rejected':
      lines.push('is refused');
      break;
    case 'dropped':
      lines.push(trace.because === undefined ? 'is dropped' : `is dropped: ${trace.because}`);
      break;
    case 'untouched':
      lines.push('is no Service of this node: no rule of ours concerns it');
  }
  if (trace.decidedBy) lines.push(`decided by ${trace.decidedBy.chain}: ${trace.decidedBy.rule}`);
  return `${lines.join('\n')}\n`;
}
