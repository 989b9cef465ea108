// Which endpoints traffic may go to, case by case.
import { describe, expect, it } from 'vitest';
import { fakePort } from './fake-ports.ts';
import { computeState, type Endpoint, type ServicePort } from './model.ts';

const port = (fields: Partial<ServicePort> = {}): ServicePort => fakePort({ portName: 'http', ...fields });

const endpoint = (ip: string, fields: Partial<Endpoint> = {}): Endpoint => ({
  ip,
  port: 8080,
  isLocal: false,
  ready: true,
  serving: true,
  terminating: false,
  ...fields,
});

const leaving = { ready: false, serving: true, terminating: true };
const dead = { ready: false, serving: false, terminating: true };
const here = { isLocal: true };
const node = (...names: string[]) => ({ nodeHints: names });
const zone = (...names: string[]) => ({ zoneHints: names });

interface Case {
  readonly name: string;
  readonly port?: Partial<ServicePort>;
  readonly endpoints: readonly Endpoint[];
  readonly zone?: string;
  readonly cluster: string;
  readonly local?: string;
  readonly reachable?: string;
  readonly verdicts: string;
}

const nodePortLocal = { nodePort: 30000, externalPolicyLocal: true };

const cases: readonly Case[] = [
  { name: 'no endpoints', endpoints: [], cluster: '', verdicts: 'reject reject' },
  { name: 'only dead ones', endpoints: [endpoint('a', dead)], cluster: '', verdicts: 'reject reject' },
  {
    name: 'ready ones, and no terminating ones beside them',
    endpoints: [endpoint('a'), endpoint('b', leaving)],
    cluster: 'a',
    verdicts: 'serve serve',
  },
  {
    name: 'terminating ones where none is ready',
    endpoints: [endpoint('a', leaving), endpoint('b', dead)],
    cluster: 'a',
    verdicts: 'serve serve',
  },
  {
    name: 'not ready, serving, not terminating: none',
    endpoints: [endpoint('a', { ready: false })],
    cluster: '',
    verdicts: 'reject reject',
  },
  {
    name: 'published though not ready: ready is true and terminating too',
    endpoints: [endpoint('a', { ready: true, serving: false, terminating: true })],
    cluster: 'a',
    verdicts: 'serve serve',
  },
  {
    name: 'internal policy Local: only local ones, cluster ones unused',
    port: { internalPolicyLocal: true },
    endpoints: [endpoint('a'), endpoint('b', here)],
    cluster: '',
    local: 'b',
    verdicts: 'serve serve',
  },
  {
    name: 'internal policy Local without local ones: dropped',
    port: { internalPolicyLocal: true },
    endpoints: [endpoint('a')],
    cluster: '',
    local: '',
    verdicts: 'drop serve',
  },
  {
    name: 'external policy Local: cluster ones for pods and the node, local ones for others',
    port: nodePortLocal,
    endpoints: [endpoint('a'), endpoint('b', here)],
    cluster: 'a b',
    local: 'b',
    reachable: 'a b',
    verdicts: 'serve serve',
  },
  {
    name: 'external policy Local without local ones: dropped outside, served inside',
    port: nodePortLocal,
    endpoints: [endpoint('a')],
    cluster: 'a',
    local: '',
    verdicts: 'serve drop',
  },
  {
    name: 'terminating local ones serve while remote ones are ready',
    port: nodePortLocal,
    endpoints: [endpoint('a'), endpoint('b', { ...here, ...leaving })],
    cluster: 'a',
    local: 'b',
    reachable: 'a b',
    verdicts: 'serve serve',
  },
  {
    name: 'external policy Local means nothing where nothing is external',
    port: { externalPolicyLocal: true },
    endpoints: [endpoint('a')],
    cluster: 'a',
    local: '',
    verdicts: 'serve drop',
  },
  {
    name: 'node hints: all have one and one names this node',
    endpoints: [endpoint('a', node('n1')), endpoint('b', node('n2'))],
    cluster: 'a',
    verdicts: 'serve serve',
  },
  {
    name: 'node hints: one has none',
    endpoints: [endpoint('a', node('n1')), endpoint('b')],
    cluster: 'a b',
    verdicts: 'serve serve',
  },
  {
    name: 'node hints for others only: zone hints decide',
    zone: 'z1',
    endpoints: [endpoint('a', { ...node('n2'), ...zone('z1') }), endpoint('b', { ...node('n3'), ...zone('z2') })],
    cluster: 'a',
    verdicts: 'serve serve',
  },
  {
    name: 'zone hints: none for this zone',
    zone: 'z3',
    endpoints: [endpoint('a', zone('z1')), endpoint('b', zone('z2'))],
    cluster: 'a b',
    verdicts: 'serve serve',
  },
  {
    name: 'zone hints: the node has no zone',
    endpoints: [endpoint('a', zone('z1')), endpoint('b', zone('z2'))],
    cluster: 'a b',
    verdicts: 'serve serve',
  },
  {
    name: 'hints of endpoints that are not ready do not count',
    zone: 'z1',
    endpoints: [endpoint('a', zone('z1')), endpoint('b', zone('z2')), endpoint('c', { ready: false })],
    cluster: 'a',
    verdicts: 'serve serve',
  },
  {
    name: 'a local endpoint out of the zone is reachable for policy Local',
    port: nodePortLocal,
    zone: 'z1',
    endpoints: [endpoint('a', zone('z1')), endpoint('b', { ...zone('z2'), ...here })],
    cluster: 'a',
    local: 'b',
    reachable: 'a b',
    verdicts: 'serve serve',
  },
];

const names = (endpoints: readonly Endpoint[]): string => endpoints.map(({ ip }) => ip).join(' ');

describe('choice of endpoints', () => {
  it.each(cases)('$name', ({ port: fields, endpoints, zone: at, cluster, local, reachable, verdicts }) => {
    const state = computeState(port(fields), endpoints, { nodeName: 'n1', zone: at });
    expect(names(state.choice.cluster)).toBe(cluster);
    expect(names(state.choice.local)).toBe(local ?? '');
    expect(names(state.choice.reachable)).toBe(reachable ?? [cluster, local].filter(Boolean).join(' '));
    expect(`${state.internal} ${state.external}`).toBe(verdicts);
  });
});
