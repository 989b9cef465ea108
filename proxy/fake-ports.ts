// A plain ClusterIP port for tests, of which they say only what matters to them.
import { type ServicePort, servicePortKey } from './model.ts';

export function fakePort(fields: Partial<ServicePort> = {}): ServicePort {
  const { namespace = 'ns', name = 'web', portName = '', protocol = 'TCP' } = fields;
  return {
    key: servicePortKey(namespace, name, portName, protocol),
    family: 'IPv4',
    namespace,
    name,
    portName,
    protocol,
    clusterIP: '10.96.0.1',
    port: 80,
    nodePort: 0,
    externalIPs: [],
    loadBalancerVIPs: [],
    sourceRanges: [],
    affinitySeconds: 0,
    internalPolicyLocal: false,
    externalPolicyLocal: false,
    healthCheckNodePort: 0,
    ...fields,
  };
}
