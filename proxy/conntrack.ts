// Ends flows of UDP and SCTP that conntrack would go on sending where nothing answers any more: to endpoints that went, to Services that
// went, and flows that met a VIP or node port before it had endpoints. One dump of the table, then one deletion for each
// group of flows; what fails is tried again.
import { createBackoff } from '../lib/backoff.ts';
import type { Clock } from '../lib/clock.ts';
import { type exec as execType, ExecError } from '../lib/exec.ts';
import type { Log } from '../lib/log.ts';
import { createSlices } from '../lib/slices.ts';
import { type IpFamily, joinHostPort, parseIp } from './addresses.ts';
import type { Front } from './backend.ts';
import type { Protocol, ServicePortState } from './model.ts';
import type { Written } from './sync.ts';

export interface ConntrackDeps {
  readonly exec: typeof execType;
  readonly clock: Clock;
  readonly log: Log;
  readonly family: IpFamily;
  /** All addresses of this host: flows to a node port's number elsewhere are none of ours. */
  hostAddresses(): readonly string[];
  /** How many flows were deleted and how long it took, in seconds. */
  onCleaned(deleted: number, seconds: number): void;
}

export interface ConntrackCleaner {
  /** Service ports were written; their flows are looked at, those of TCP apart, and those to fronts that no Service has any more. */
  note(written: readonly Written[], gone?: readonly Front[]): void;
  /** Runs until the signal aborts. */
  run(signal: AbortSignal): Promise<void>;
}

/** Where flows to a service port came in, and which endpoints may still have them. */
export interface Frontend extends Front {
  /** `ip:port` of endpoints that may keep what they have; see keepersOf. */
  readonly keepers: ReadonlySet<string>;
}

export interface Flow {
  readonly protocol: Protocol;
  readonly originalDestination: string;
  readonly originalPort: number;
  readonly replySource: string;
  readonly replyPort: number;
}

const tuples = /src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/g;

/** A line of `conntrack -L`; undefined where it is no flow with ports. */
export function parseFlow(line: string, protocol: Protocol): Flow | undefined {
  const [original, reply] = [...line.matchAll(tuples)];
  if (!original || !reply) return undefined;
  return {
    protocol,
    originalDestination: original[2]!,
    originalPort: Number(original[4]),
    replySource: reply[1]!,
    replyPort: Number(reply[3]),
  };
}

// A client of TCP notices by itself and connects anew, from another port.
const isLookedAt = (protocol: Protocol): boolean => protocol === 'UDP' || protocol === 'SCTP';

/** The frontends that a state has or had; their flows may go to what `after` has. */
function frontendsOf(state: ServicePortState | undefined, keepers: ReadonlySet<string>): Frontend[] {
  if (!state) return [];
  const { port } = state;
  const at = (ip: string | undefined, number: number): Frontend => ({
    protocol: port.protocol,
    ip,
    port: number,
    keepers,
  });
  return [
    ...[port.clusterIP, ...port.externalIPs, ...port.loadBalancerVIPs].map((ip) => at(ip, port.port)),
    ...(port.nodePort === 0 ? [] : [at(undefined, port.nodePort)]),
  ];
}

const idOf = ({ protocol, ip, port }: Pick<Frontend, 'protocol' | 'ip' | 'port'>): string =>
  `${protocol} ${ip ?? '*'} ${port}`;

/**
 * The endpoints whose flows go on. UDP has no connections: its flows leave an endpoint that serves no more for one that does, as in
 * kube-proxy. Where none does they stay with what is still there: nobody else would take them, and readiness may flicker. Associations of
 * SCTP stay as long as their endpoint is there, as connections of TCP do. A change of policy or topology ends no flow.
 */
function keepersOf(state: ServicePortState | undefined): Set<string> {
  if (!state) return new Set();
  const { port, endpoints } = state;
  const serving = port.protocol === 'UDP' ? endpoints.filter((endpoint) => endpoint.serving) : [];
  return new Set((serving.length > 0 ? serving : endpoints).map(({ ip, port: number }) => joinHostPort(ip, number)));
}

/** Whether the flow has gone stale, given all frontends that changed. */
export function isStale(
  flow: Flow,
  frontends: ReadonlyMap<string, Frontend>,
  hostAddresses: ReadonlySet<string>,
): boolean {
  const { protocol, originalDestination: ip, originalPort: port } = flow;
  const frontend =
    frontends.get(idOf({ protocol, ip, port })) ??
    (hostAddresses.has(ip) ? frontends.get(idOf({ protocol, ip: undefined, port })) : undefined);
  return frontend !== undefined && !frontend.keepers.has(joinHostPort(flow.replySource, flow.replyPort));
}

/** The frontends to look at after a write: those of ports of UDP and SCTP that changed. */
export function changedFrontends(written: readonly Written[]): Map<string, Frontend> {
  const changed = new Map<string, Frontend>();
  const live: Frontend[] = [];
  for (const { before, after } of written) {
    const port = (after ?? before)?.port;
    if (!port || !isLookedAt(port.protocol) || before === after) continue;
    const keepers = keepersOf(after);
    for (const frontend of frontendsOf(before, keepers))
      changed.set(idOf(frontend), { ...frontend, keepers: new Set() });
    live.push(...frontendsOf(after, keepers));
  }
  // What is there now wins: a frontend may have moved from one Service to another in one write.
  for (const frontend of live) changed.set(idOf(frontend), frontend);
  return changed;
}

export function createConntrackCleaner(deps: ConntrackDeps): ConntrackCleaner {
  const { exec, clock, log, family } = deps;
  const familyArgs = ['-f', family === 'IPv4' ? 'ipv4' : 'ipv6'];
  const backoff = createBackoff({ initialMs: 100, maxMs: 30_000 });
  let pending = new Map<string, Frontend>();
  let waker: (() => void) | undefined;
  let missingSaid = false;

  const dump = async (protocol: Protocol, signal: AbortSignal): Promise<string> => {
    const args = ['-L', ...familyArgs, '-p', protocol.toLowerCase()];
    return (await exec('conntrack', args, { signal, maxOutputBytes: 512 * 1024 * 1024 })).stdout;
  };

  const remove = async (flow: Flow, signal: AbortSignal): Promise<void> => {
    const args = ['-D', ...familyArgs, '-p', flow.protocol.toLowerCase()];
    args.push('--orig-dst', flow.originalDestination, '--orig-port-dst', String(flow.originalPort));
    args.push('--reply-src', flow.replySource, '--reply-port-src', String(flow.replyPort));
    try {
      await exec('conntrack', args, { signal });
    } catch (error) {
      // It says so with exit 1 where none was left.
      if (!(error instanceof ExecError && /0 flow entries/.test(error.stderr))) throw error;
    }
  };

  const clean = async (frontends: ReadonlyMap<string, Frontend>, signal: AbortSignal): Promise<void> => {
    const startMs = clock.monotonicMs();
    const slices = createSlices(clock);
    const host = new Set(deps.hostAddresses().map((ip) => parseIp(ip)?.text ?? ip));
    const stale = new Map<string, Flow>();
    let count = 0;
    for (const protocol of new Set([...frontends.values()].map((frontend) => frontend.protocol))) {
      const text = await dump(protocol, signal);
      for (let at = 0; at < text.length; ) {
        const newline = text.indexOf('\n', at);
        const end = newline === -1 ? text.length : newline;
        const flow = parseFlow(text.slice(at, end), protocol);
        at = end + 1;
        if (flow && isStale(flow, frontends, host)) {
          count++;
          stale.set(Object.values(flow).join(' '), flow);
        }
        const pause = slices.giveWay();
        if (pause) await pause;
      }
    }
    for (const flow of stale.values()) await remove(flow, signal);
    deps.onCleaned(count, (clock.monotonicMs() - startMs) / 1000);
    if (count > 0) log.debug('ended stale flows', { family, flows: count });
  };

  const attempt = async (signal: AbortSignal): Promise<void> => {
    const frontends = pending;
    pending = new Map();
    try {
      await clean(frontends, signal);
      backoff.reset('clean');
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ExecError && error.code === 'not-found') {
        if (!missingSaid)
          log.warn(
            'there is no conntrack tool on this host: UDP clients of a Service may go on sending to endpoints that went; install conntrack',
          );
        missingSaid = true;
        return;
      }
      // What came meanwhile is newer.
      pending = new Map([...frontends, ...pending]);
      const delayMs = backoff.next('clean', clock.monotonicMs());
      log.warn('could not end stale flows; tried again', { family, error, inMs: Math.round(delayMs) });
      await clock.sleep(delayMs, signal).catch(() => undefined);
    }
  };

  return {
    note(written, gone = []) {
      for (const front of gone) pending.set(idOf(front), { ...front, keepers: new Set() });
      for (const [id, frontend] of changedFrontends(written)) pending.set(id, frontend);
      if (pending.size > 0) waker?.();
    },
    async run(signal) {
      const onAbort = (): void => waker?.();
      signal.addEventListener('abort', onAbort, { once: true });
      while (!signal.aborted) {
        if (pending.size > 0) await attempt(signal);
        else
          await new Promise<void>((resolve) => {
            waker = resolve;
          });
      }
      signal.removeEventListener('abort', onAbort);
    },
  };
}
