// A population of Services that changes at random, and what must become of packets to each: the model the kernel is compared with. It knows
// the documentation, not our code.
import type { EndpointSlice, Service } from '../../kube/types/core.ts';
import type { View } from './kernel-view.ts';

export interface ModelEndpoint {
  readonly number: number;
  readonly local: boolean;
  readonly state: 'ready' | 'terminating' | 'not-ready';
}

export interface ModelService {
  readonly number: number;
  readonly protocol: 'TCP' | 'UDP';
  readonly nodePort: boolean;
  readonly sticky: boolean;
  readonly internalLocal: boolean;
  readonly endpoints: readonly ModelEndpoint[];
}

/** The same numbers for the same seed; mulberry32. */
export function createRandom(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

const chance = (random: (below: number) => number, oneIn: number): boolean => random(oneIn) === 0;

export function drawEndpoints(random: (below: number) => number): ModelEndpoint[] {
  const numbers = new Set(Array.from({ length: chance(random, 6) ? 0 : 1 + random(5) }, () => random(60_000)));
  return [...numbers].map((number) => ({
    number,
    local: chance(random, 2),
    state: chance(random, 5) ? 'terminating' : chance(random, 8) ? 'not-ready' : 'ready',
  }));
}

export const drawService = (number: number, random: (below: number) => number): ModelService => ({
  number,
  protocol: chance(random, 5) ? 'UDP' : 'TCP',
  nodePort: chance(random, 4),
  sticky: chance(random, 10),
  internalLocal: chance(random, 10),
  endpoints: drawEndpoints(random),
});

const clusterIpOf = (number: number): string => `10.96.${number >> 8}.${number & 255}`;
const addressOf = (number: number): string => `10.193.${number >> 8}.${number & 255}`;
const nodePortOf = (number: number): number => 20_000 + number;

export function objectsOf(service: ModelService): { service: Service; slice: EndpointSlice } {
  const { number, protocol } = service;
  const [name, clusterIP] = [`s${number}`, clusterIpOf(number)];
  return {
    service: {
      metadata: { namespace: 'soak', name },
      spec: {
        type: service.nodePort ? 'NodePort' : 'ClusterIP',
        clusterIP,
        clusterIPs: [clusterIP],
        ipFamilies: ['IPv4'],
        sessionAffinity: service.sticky ? 'ClientIP' : 'None',
        internalTrafficPolicy: service.internalLocal ? 'Local' : 'Cluster',
        ports: [{ port: 80, protocol, ...(service.nodePort ? { nodePort: nodePortOf(number) } : {}) }],
      },
    },
    slice: {
      metadata: { namespace: 'soak', name: `${name}-1`, labels: { 'kubernetes.io/service-name': name } },
      addressType: 'IPv4',
      endpoints: service.endpoints.map(({ number: at, local, state }) => ({
        addresses: [addressOf(at)],
        nodeName: local ? 'n1' : 'n2',
        conditions: {
          ready: state === 'ready',
          serving: state !== 'not-ready',
          terminating: state === 'terminating',
        },
      })),
      ports: [{ name: '', port: 8080, protocol }],
    },
  };
}

/** Ready ones, else those that still serve while they go. */
function used(endpoints: readonly ModelEndpoint[]): readonly ModelEndpoint[] {
  const ready = endpoints.filter(({ state }) => state === 'ready');
  return ready.length > 0 ? ready : endpoints.filter(({ state }) => state === 'terminating');
}

const shown = (endpoints: readonly ModelEndpoint[]): string =>
  endpoints
    .map(({ number }) => `${addressOf(number)}:8080`)
    .sort()
    .join(' ');

export function viewOf(services: Iterable<ModelService>): View {
  const view: View = new Map();
  for (const { number, protocol, nodePort, internalLocal, endpoints } of services) {
    const any = used(endpoints);
    const inside = internalLocal ? used(endpoints.filter(({ local }) => local)) : any;
    const proto = protocol.toLowerCase();
    const verdict = any.length === 0 ? 'refused' : inside.length === 0 ? 'dropped' : shown(inside);
    view.set(`${clusterIpOf(number)} ${proto} 80`, verdict);
    if (nodePort) view.set(`node ${proto} ${nodePortOf(number)}`, any.length === 0 ? 'refused' : shown(any));
  }
  return view;
}

/** Empty where they are the same. */
export function differences(kernel: View, wanted: View): string[] {
  const found: string[] = [];
  for (const [front, value] of wanted)
    if (kernel.get(front) !== value) found.push(`${front}: kernel ${kernel.get(front) ?? 'nothing'}, model ${value}`);
  for (const front of kernel.keys())
    if (!wanted.has(front)) found.push(`${front}: kernel ${kernel.get(front)}, model nothing`);
  return found;
}
