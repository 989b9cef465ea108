// A Service's defaults, what is wrong with it, and the address and node ports it is given. Source: the API reference, 1.36.
import type { Service } from '../kube/types/core.ts';
import { contains, familyOf, pickAddress } from './addresses.ts';
import { type Cause, forbiddenField, required, wrong } from './failure.ts';
import type { StrategyContext } from './strategies.ts';
import { checkPort } from './validate.ts';

type ServiceContext = Pick<StrategyContext, 'serviceCidr' | 'all' | 'random'>;
type Spec = Service['spec'];

/** Gives the Service what it has not got yet, carries over what it had, and takes away what its type has not. Returns what is wrong. */
export function admitService(context: ServiceContext, service: Service, before: Service | undefined): Cause[] {
  service.spec ??= {};
  const { spec } = service;
  setDefaults(service);
  const causes = validate(spec);
  if (causes.length > 0) return causes;
  if (spec.type === 'ExternalName') {
    for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy'] as const) delete spec[field];
    return [];
  }
  const had = before?.spec.clusterIP;
  if (had && spec.clusterIP && spec.clusterIP !== had)
    return [wrong('spec.clusterIPs[0]', [spec.clusterIP], 'may not change once set')];
  if (before && had) carryOver(spec, before.spec);
  const others = context.all<Service>('services').filter(({ metadata }) => metadata.uid !== service.metadata.uid);
  const taken = others.map((other) => other.spec);
  return [...allocateAddress(context, spec, taken), ...allocatePorts(context, spec, taken, before?.spec)];
}

function setDefaults(service: Service): void {
  const { spec } = service;
  spec.type ??= 'ClusterIP';
  spec.sessionAffinity ??= 'None';
  if (spec.sessionAffinity === 'None') delete spec.sessionAffinityConfig;
  else spec.sessionAffinityConfig = { clientIP: { timeoutSeconds: 10_800, ...spec.sessionAffinityConfig?.clientIP } };
  for (const port of spec.ports ?? []) {
    port.protocol ??= 'TCP';
    port.targetPort ??= port.port;
  }
  if (spec.type === 'ExternalName') return;
  spec.internalTrafficPolicy ??= 'Cluster';
  if (spec.type !== 'ClusterIP' || spec.externalIPs?.length) spec.externalTrafficPolicy ??= 'Cluster';
  if (spec.type === 'LoadBalancer') spec.allocateLoadBalancerNodePorts ??= true;
  service.status = { loadBalancer: {}, ...service.status };
}

function validate({ type, ports = [], clusterIP, externalName }: Spec): Cause[] {
  const missing = ports.length === 0 && type !== 'ExternalName' && clusterIP !== 'None';
  return [
    ...(missing ? [required('spec.ports')] : []),
    ...ports.flatMap(({ port, name }, index) => [
      ...checkPort(`spec.ports[${index}].port`, port),
      ...(ports.length > 1 && !name ? [required(`spec.ports[${index}].name`)] : []),
    ]),
    ...(type === 'ExternalName' && !externalName ? [required('spec.externalName')] : []),
  ];
}

function carryOver(spec: Spec, before: Spec): void {
  for (const field of ['clusterIP', 'clusterIPs', 'ipFamilyPolicy', 'ipFamilies'] as const)
    if (before[field] !== undefined && !spec[field]) Object.assign(spec, { [field]: before[field] });
  for (const port of spec.ports ?? []) {
    const same = before.ports?.find((one) => one.port === port.port && one.protocol === port.protocol);
    if (!port.nodePort && same?.nodePort) port.nodePort = same.nodePort;
  }
}

/** One family is served, that of the range; a Service that must have both is refused. */
function allocateAddress({ serviceCidr, random }: ServiceContext, spec: Spec, taken: readonly Spec[]): Cause[] {
  const family = familyOf(serviceCidr);
  const other = spec.ipFamilies?.find((one) => one !== family);
  if (other) return [wrong('spec.ipFamilies[0]', other, 'not configured on this cluster')];
  spec.ipFamilyPolicy ??= 'SingleStack';
  if (spec.ipFamilyPolicy === 'RequireDualStack')
    return [
      wrong('spec.ipFamilyPolicy', spec.ipFamilyPolicy, 'this cluster is not configured for dual-stack services'),
    ];
  spec.ipFamilies = [family];
  const asked = spec.clusterIP ?? spec.clusterIPs?.[0];
  const used = new Set(taken.flatMap(({ clusterIPs = [] }) => clusterIPs));
  const range = `the provided IP (${asked}) is not in the valid range. The range of valid IPs is ${serviceCidr}`;
  const why = asked && used.has(asked) ? 'provided IP is already allocated' : range;
  if (asked && asked !== 'None' && (used.has(asked) || !contains(serviceCidr, asked)))
    return [wrong('spec.clusterIPs[0]', [asked], `failed to allocate IP ${asked}: ${why}`)];
  const address = asked || pickAddress(serviceCidr, used, random);
  if (!address) return [wrong('spec.clusterIPs', [], `the range ${serviceCidr} is full`)];
  spec.clusterIP = address;
  spec.clusterIPs = [address];
  return [];
}

const firstPort = 30_000;
const portCount = 2768;
const outside = 'provided port is not in the valid range. The range of valid ports is 30000-32767';

function allocatePorts({ random }: ServiceContext, spec: Spec, taken: readonly Spec[], before?: Spec): Cause[] {
  const { ports = [] } = spec;
  const fieldOf = (index: number): string => `spec.ports[${index}].nodePort`;
  if (spec.type === 'ClusterIP') {
    // A port that was allocated goes with the type; one that the user names is an error.
    const had = before?.ports?.map(({ nodePort }) => nodePort) ?? [];
    const named = ports.findIndex(({ nodePort }) => nodePort && !had.includes(nodePort));
    for (const port of ports) delete port.nodePort;
    return named < 0 ? [] : [forbiddenField(fieldOf(named), "may not be used when `type` is 'ClusterIP'")];
  }
  const keyOf = (protocol = 'TCP', port = 0): string => `${protocol}/${port}`;
  const used = new Set(
    taken.flatMap((other) => other.ports ?? []).map(({ protocol, nodePort }) => keyOf(protocol, nodePort)),
  );
  const pick = (protocol?: string): number | undefined => {
    const start = Math.floor(random() * portCount);
    const all = Array.from({ length: portCount }, (_, index) => firstPort + ((start + index) % portCount));
    return all.find((port) => !used.has(keyOf(protocol, port)));
  };
  for (const [index, port] of ports.entries()) {
    const asked = port.nodePort;
    if (!asked && spec.allocateLoadBalancerNodePorts === false) continue;
    if (asked && used.has(keyOf(port.protocol, asked)))
      return [wrong(fieldOf(index), asked, 'provided port is already allocated')];
    if (asked && (asked < firstPort || asked >= firstPort + portCount)) return [wrong(fieldOf(index), asked, outside)];
    const given = asked || pick(port.protocol);
    if (!given) return [wrong(fieldOf(index), 0, 'no node port is free')];
    port.nodePort = given;
    used.add(keyOf(port.protocol, given));
  }
  return [];
}
