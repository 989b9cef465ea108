// A Service's defaults, and the addresses and node ports it is given. Source: the API reference, 1.36.
import type { Service } from '../kube/types/core.ts';
import { contains, familyOf, pickAddress } from './addresses.ts';
import type { Cause } from './failure.ts';

export interface ServiceDeps {
  /** One range for each family served; the first is the default. */
  readonly serviceCidrs: readonly string[];
  services(): readonly Service[];
  random(): number;
}

const nodePorts = { first: 30_000, count: 2768 } as const;

export function defaultService(service: Service): void {
  const { spec } = service;
  spec.type ??= 'ClusterIP';
  spec.sessionAffinity ??= 'None';
  if (spec.sessionAffinity === 'ClientIP') {
    spec.sessionAffinityConfig ??= {};
    spec.sessionAffinityConfig.clientIP ??= {};
    spec.sessionAffinityConfig.clientIP.timeoutSeconds ??= 10_800;
  } else delete spec.sessionAffinityConfig;
  for (const port of spec.ports ?? []) {
    port.protocol ??= 'TCP';
    port.targetPort ??= port.port;
  }
  if (spec.type === 'ExternalName') return;
  spec.internalTrafficPolicy ??= 'Cluster';
  if (spec.type === 'NodePort' || spec.type === 'LoadBalancer' || spec.externalIPs?.length)
    spec.externalTrafficPolicy ??= 'Cluster';
  if (spec.type === 'LoadBalancer') spec.allocateLoadBalancerNodePorts ??= true;
  service.status ??= {};
  service.status.loadBalancer ??= {};
}

/** Gives the Service what it has not got yet, carries over what it had, and takes away what its type has not. Returns what is wrong. */
export function allocateService(deps: ServiceDeps, service: Service, before: Service | undefined): Cause[] {
  const { spec } = service;
  if (spec.type === 'ExternalName') {
    for (const field of ['clusterIP', 'clusterIPs', 'ipFamilies', 'ipFamilyPolicy'] as const) delete spec[field];
    for (const port of spec.ports ?? []) delete port.nodePort;
    return [];
  }
  carryOver(spec, before?.spec);
  const others = deps.services().filter(({ metadata }) => metadata.uid !== service.metadata.uid);
  return [...allocateAddresses(deps, spec, others), ...allocatePorts(deps, spec, others, before)];
}

function carryOver(spec: Service['spec'], before: Service['spec'] | undefined): void {
  if (!before || before.type === 'ExternalName') return;
  if (!spec.clusterIP && before.clusterIP) spec.clusterIP = before.clusterIP;
  if (!spec.clusterIPs?.length && before.clusterIPs && spec.clusterIP === before.clusterIP)
    spec.clusterIPs = [...before.clusterIPs];
  if (!spec.ipFamilyPolicy && before.ipFamilyPolicy) spec.ipFamilyPolicy = before.ipFamilyPolicy;
  if (!spec.ipFamilies?.length && before.ipFamilies) spec.ipFamilies = [...before.ipFamilies];
  if (!spec.healthCheckNodePort && before.healthCheckNodePort) spec.healthCheckNodePort = before.healthCheckNodePort;
  for (const port of spec.ports ?? []) {
    if (port.nodePort) continue;
    const same = before.ports?.find((one) => one.port === port.port && one.protocol === port.protocol);
    if (same?.nodePort) port.nodePort = same.nodePort;
  }
}

function allocateAddresses(deps: ServiceDeps, spec: Service['spec'], others: readonly Service[]): Cause[] {
  const served = deps.serviceCidrs.map(familyOf);
  spec.ipFamilyPolicy ??=
    (spec.clusterIPs?.length ?? 0) > 1 || (spec.ipFamilies?.length ?? 0) > 1 ? 'RequireDualStack' : 'SingleStack';
  const wanted = spec.clusterIPs?.length ? spec.clusterIPs : spec.clusterIP ? [spec.clusterIP] : [];
  if (wanted[0] === 'None') {
    spec.clusterIP = 'None';
    spec.clusterIPs = ['None'];
    const count = spec.ipFamilyPolicy === 'SingleStack' ? 1 : 2;
    const families = spec.ipFamilies?.length ? spec.ipFamilies : served.length > 0 ? served : ['IPv4' as const];
    spec.ipFamilies = families.slice(0, count);
    return [];
  }
  const families = spec.ipFamilies?.length ? [...spec.ipFamilies] : wanted.map(familyOf);
  const missing = families.find((family) => !served.includes(family));
  if (missing)
    return [
      {
        reason: 'FieldValueInvalid',
        field: 'spec.ipFamilies[0]',
        message: `Invalid value: "${missing}": not configured on this cluster`,
      },
    ];
  if (families.length === 0) families.push(served[0]!);
  if (spec.ipFamilyPolicy === 'RequireDualStack' && served.length < 2)
    return [
      {
        reason: 'FieldValueInvalid',
        field: 'spec.ipFamilyPolicy',
        message: 'Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services',
      },
    ];
  if (spec.ipFamilyPolicy !== 'SingleStack')
    for (const family of served) if (!families.includes(family)) families.push(family);
  const count = spec.ipFamilyPolicy === 'SingleStack' ? 1 : families.length;
  spec.ipFamilies = families.slice(0, count);
  const used = new Set(others.flatMap((other) => other.spec.clusterIPs ?? []));
  const addresses: string[] = [];
  for (const [index, family] of spec.ipFamilies.entries()) {
    const cidr = deps.serviceCidrs[served.indexOf(family)]!;
    const asked = wanted[index];
    if (asked !== undefined && asked !== '') {
      const field = `spec.clusterIPs[${index}]`;
      const said = `Invalid value: ["${asked}"]: failed to allocate IP ${asked}: `;
      if (!contains(cidr, asked))
        return [
          {
            reason: 'FieldValueInvalid',
            field,
            message: `${said}the provided IP (${asked}) is not in the valid range. The range of valid IPs is ${cidr}`,
          },
        ];
      if (used.has(asked))
        return [{ reason: 'FieldValueInvalid', field, message: `${said}provided IP is already allocated` }];
      addresses.push(asked);
    } else {
      const picked = pickAddress(cidr, used, deps.random);
      if (!picked)
        return [
          {
            reason: 'FieldValueInvalid',
            field: 'spec.clusterIPs',
            message: `Invalid value: []: the range ${cidr} is full`,
          },
        ];
      addresses.push(picked);
    }
  }
  spec.clusterIPs = addresses;
  spec.clusterIP = addresses[0]!;
  return [];
}

const portKey = (protocol: string | undefined, port: number): string => `${protocol ?? 'TCP'}/${port}`;

function allocatePorts(
  deps: ServiceDeps,
  spec: Service['spec'],
  others: readonly Service[],
  before: Service | undefined,
): Cause[] {
  const wants =
    spec.type === 'NodePort' || (spec.type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false);
  if (!wants && spec.type !== 'LoadBalancer') {
    // A port that was allocated goes with the type; one that the user names is an error.
    for (const [index, port] of (spec.ports ?? []).entries()) {
      if (!port.nodePort) continue;
      if (!before?.spec.ports?.some((one) => one.nodePort === port.nodePort))
        return [
          {
            reason: 'FieldValueForbidden',
            field: `spec.ports[${index}].nodePort`,
            message: "Forbidden: may not be used when `type` is 'ClusterIP'",
          },
        ];
      delete port.nodePort;
    }
    delete spec.healthCheckNodePort;
    return [];
  }
  const used = new Set(
    others.flatMap((other) => [
      ...(other.spec.ports ?? []).flatMap((port) => (port.nodePort ? [portKey(port.protocol, port.nodePort)] : [])),
      ...(other.spec.healthCheckNodePort ? [portKey('TCP', other.spec.healthCheckNodePort)] : []),
    ]),
  );
  const pick = (protocol: string | undefined): number | undefined => {
    const start = Math.floor(deps.random() * nodePorts.count);
    for (let tries = 0; tries < nodePorts.count; tries++) {
      const port = nodePorts.first + ((start + tries) % nodePorts.count);
      if (!used.has(portKey(protocol, port))) return port;
    }
    return undefined;
  };
  for (const [index, port] of (spec.ports ?? []).entries()) {
    const field = `spec.ports[${index}].nodePort`;
    if (port.nodePort) {
      if (used.has(portKey(port.protocol, port.nodePort)))
        return [
          {
            reason: 'FieldValueInvalid',
            field,
            message: `Invalid value: ${port.nodePort}: provided port is already allocated`,
          },
        ];
      if (port.nodePort < nodePorts.first || port.nodePort >= nodePorts.first + nodePorts.count)
        return [
          {
            reason: 'FieldValueInvalid',
            field,
            message: `Invalid value: ${port.nodePort}: provided port is not in the valid range. The range of valid ports is 30000-32767`,
          },
        ];
    } else if (wants) {
      const picked = pick(port.protocol);
      if (!picked) return [{ reason: 'FieldValueInvalid', field, message: 'Invalid value: 0: no node port is free' }];
      port.nodePort = picked;
    }
    if (port.nodePort) used.add(portKey(port.protocol, port.nodePort));
  }
  if (spec.type === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local') {
    const picked = spec.healthCheckNodePort ?? pick('TCP');
    if (picked) spec.healthCheckNodePort = picked;
  } else delete spec.healthCheckNodePort;
  return [];
}
