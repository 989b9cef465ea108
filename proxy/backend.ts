// The port of a rules backend: how desired service ports become rules in the kernel, in one IP family. Implementations: iptables/,
// nftables/; the fake: fake-backend.ts.
import type { IpFamily } from './addresses.ts';
import type { Protocol, ServicePortKey, ServicePortState } from './model.ts';
import type { DesiredState } from './state.ts';

export type { DesiredState } from './state.ts';

/** How traffic that comes from pods of this node is told from other traffic. */
export type LocalDetector =
  | { readonly kind: 'none' }
  | { readonly kind: 'cidr'; readonly cidr: string }
  | { readonly kind: 'bridge-interface'; readonly name: string }
  | { readonly kind: 'interface-prefix'; readonly prefix: string };

/** What a backend must know of its node besides the service ports. */
export interface NodeFacts {
  readonly localDetector: LocalDetector;
  /** The node's own address of this family; undefined while unknown. */
  readonly nodeIP: string | undefined;
  /** Addresses node ports answer on; `all`: every address of this host. */
  readonly nodePortAddresses: 'all' | readonly string[];
  readonly masqueradeAll: boolean;
  /** 0–31. */
  readonly masqueradeBit: number;
  /** iptables and IPv4 only: node ports answer on 127.0.0.0/8 too. */
  readonly localhostNodePorts: boolean;
  /** nf_conntrack_tcp_be_liberal is set: packets out of window are not INVALID and need not be dropped. */
  readonly conntrackBeLiberal: boolean;
  /** nftables only: networks of cluster IPs, of this family, each once and in order. What goes to an address there that no Service has is dropped. */
  readonly serviceCidrs: readonly string[];
}

/** What must be written for new facts to hold: nothing, what the next part brings with it, or everything. */
export type FactsChange = 'none' | 'part' | 'full';

export interface Changes {
  readonly upserts: readonly ServicePortState[];
  readonly removals: readonly ServicePortKey[];
}

export interface ApplyOptions {
  readonly signal: AbortSignal;
  /**
   * The kernel is made equal to `desired`: what is ours and not wanted goes, base chains and jumps are ensured. Then `changes` names
   * everything. Else only what `changes` names is written.
   */
  readonly full: boolean;
}

/** Where traffic of UDP or SCTP to a Service came in. */
export interface Front {
  readonly protocol: Protocol;
  /** Undefined: any address of this host. */
  readonly ip: string | undefined;
  readonly port: number;
}

export interface ApplyResult {
  /** Rules (iptables) or elements and rules (nftables) that were written or deleted. */
  readonly written: number;
  /** The same, of ours, now in the kernel. */
  readonly total: number;
  /** Rules by table, for the metrics; empty where the backend has no tables of that kind. */
  readonly byTable: Readonly<Record<string, { readonly written: number; readonly total: number }>>;
  /** Fronts, UDP and SCTP, that were found in the kernel and that no Service has any more; of a full apply only. */
  readonly gone?: readonly Front[];
}

/** Something outside this process touched our rules, or may have. */
export interface ForeignChange {
  readonly what: string;
  /** Nothing points to such a touch: it is only time to look. */
  readonly routine?: boolean;
  /** Nobody touched them: what of ours is not used any more could not be deleted. */
  readonly cleanupFailed?: boolean;
}

/** One rule or element as the kernel has it. */
export interface RuleLine {
  /** iptables: `nat`; nftables: the map's or chain's kind. */
  readonly table: string;
  readonly chain: string;
  readonly rule: string;
  readonly packets?: number;
  readonly bytes?: number;
}

/** What is programmed for a service port. */
export interface RulesDescription {
  readonly family: IpFamily;
  /** Or, where it is about no single service port, a word for what it is about. */
  readonly key: ServicePortKey;
  readonly desired: readonly RuleLine[];
  readonly kernel: readonly RuleLine[];
  /** Wanted and not in the kernel. */
  readonly missing: readonly RuleLine[];
  /** In the kernel and not wanted. */
  readonly surplus: readonly RuleLine[];
}

/** Packets since the rule that counts them was written. */
export interface PacketCounts {
  /** First packets of connections to node ports on 127.0.0.0/8. */
  readonly localhostNodePorts: number;
  /** Dropped because conntrack calls them INVALID. */
  readonly invalidDropped: number;
}

export interface RulesBackend {
  readonly kind: 'iptables' | 'nftables';
  readonly family: IpFamily;
  /** Takes over new facts; says which apply must come next. A part that is due may be an empty one. */
  configure(facts: NodeFacts): FactsChange;
  /**
   * Reads what of ours is in the kernel, so that the next full apply writes only the difference. Called before the first apply, after
   * a failed one, after foreign changes and by the periodic check. Writes nothing.
   */
  adopt(signal: AbortSignal): Promise<void>;
  /** Makes what a full apply of these very states needs, while the kernel is still being read; nothing where that would spare nothing. */
  prepare?(states: readonly ServicePortState[], desired: DesiredState): Promise<void>;
  /**
   * One transaction per table: all of it or, where it rejects with a NetfilterError, nothing that matters. Of code `rejected` the
   * caller bisects. Never called twice at a time.
   */
  apply(changes: Changes, desired: DesiredState, options: ApplyOptions): Promise<ApplyResult>;
  /** Tells of changes that others made to our rules; runs until the signal aborts. */
  watchForeign(onChange: (change: ForeignChange) => void, signal: AbortSignal): Promise<void>;
  /** What is programmed for the port, read from the kernel. */
  describe(state: ServicePortState, signal: AbortSignal): Promise<RulesDescription>;
  /** The rules all service ports have in common, and the kernel's; only nftables tells them. Asked for once it is configured. */
  describeFrame?(signal: AbortSignal): Promise<RulesDescription>;
  /** Everything of ours that would be in the kernel for `desired`, as the tool reads it; for `--dry-run`. Works on an empty kernel. */
  render(desired: DesiredState): Promise<string>;
  /** Read from the kernel; only iptables has them. */
  packetCounts?(signal: AbortSignal): Promise<PacketCounts>;
  /** Removes all of ours and nothing else. */
  cleanup(signal: AbortSignal): Promise<void>;
}

export type NetfilterErrorCode =
  | 'rejected' // the tool or the kernel refused what it was given: some part of the input is at fault
  | 'busy' // the xtables lock was not to be had in time
  | 'missing' // no such tool on this host
  | 'denied' // not permitted
  | 'timeout'
  | 'aborted'
  | 'failed'; // anything else

/** A call of a netfilter tool that did not do what was asked. */
export class NetfilterError extends Error {
  override name = 'NetfilterError';
  readonly code: NetfilterErrorCode;
  constructor(code: NetfilterErrorCode, message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

export const isRejected = (error: unknown): error is NetfilterError =>
  error instanceof NetfilterError && error.code === 'rejected';
