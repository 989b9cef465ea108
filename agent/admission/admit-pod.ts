// Whether this node takes a pod: fit, selectors, ports, taints, OS, sysctls, AppArmor and what this agent cannot do. Reasons and messages
// are the kubelet's; the first that applies is given.
import type { Node } from '../../kube/types/core.ts';
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Container, Pod } from '../../kube/types/pod.ts';
import { appArmorProfile } from '../containers/security.ts';
import { isCriticalPod, isStaticPod } from '../resources/critical.ts';
import { type Shortage, shortages } from '../../kube/scheduling/fit.ts';
import { hostPortsFree } from '../../kube/scheduling/host-ports.ts';
import { fitsNodeAffinity } from '../../kube/scheduling/node-affinity.ts';
import { podsToPreempt } from './preemption.ts';
import type { SysctlRules } from './sysctls.ts';
import { toleratesNoExecute } from '../../kube/scheduling/taints.ts';

export interface AdmissionFacts {
  readonly node: Node;
  readonly allocatable: Readonly<ResourceList>;
  readonly sysctls: SysctlRules;
  /** The kernel has AppArmor switched on. */
  readonly appArmor: boolean;
  /** The runtime honours supplementalGroupsPolicy: Strict. */
  readonly supplementalGroupsPolicy: boolean;
}

export interface Refusal {
  readonly admitted: false;
  readonly reason: string;
  readonly message: string;
}

export type AdmissionVerdict =
  /** `preempt`: pods that must end first, with reason Preempting. */
  { readonly admitted: true; readonly preempt: readonly Pod[] } | Refusal;

/** What a preempted pod's status says, where it fails, and its DisruptionTarget condition: as PodWorkers.evict takes them. */
export const preempted = {
  reason: 'Preempting',
  message: 'Preempted in order to admit critical pod',
  disruption: {
    reason: 'TerminationByKubelet',
    message: 'Pod was preempted by Kubelet to accommodate a critical pod.',
  },
} as const;

const refuse = (reason: string, message: string): Refusal => ({ admitted: false, reason, message });

const predicate = (name: string, why: string): Refusal => refuse(name, `Predicate ${name} failed: ${why}`);

const shortOf = ({ resource, requested, used, capacity }: Shortage): Refusal =>
  refuse(
    `OutOf${resource}`,
    `Node didn't have enough resource: ${resource}, requested: ${requested}, used: ${used}, capacity: ${capacity}`,
  );

const allContainers = (pod: Pod): readonly Container[] => [
  ...(pod.spec.initContainers ?? []),
  ...pod.spec.containers,
  ...(pod.spec.ephemeralContainers ?? []),
];

function refuseAppArmor(pod: Pod, facts: AdmissionFacts): Refusal | undefined {
  // What runs has been looked at before.
  if ((pod.status?.phase ?? 'Pending') !== 'Pending') return undefined;
  const profiles = allContainers(pod).map((container) => appArmorProfile(pod, container));
  if (!profiles.some((profile) => profile && profile.type !== 'Unconfined')) return undefined;
  const say = (why: string): Refusal => refuse('AppArmor', `Cannot enforce AppArmor: ${why}`);
  if (!facts.appArmor) return say('AppArmor is not enabled on the host');
  const nameless = profiles.some((profile) => profile?.type === 'Localhost' && !profile.localhostProfile?.trim());
  return nameless ? say('invalid empty AppArmor profile name') : undefined;
}

/** Devices that DRA hands out, and what else is not done here, is said and not ignored. */
function refuseUnsupported(pod: Pod): Refusal | undefined {
  const claims = pod.spec.resourceClaims?.length ?? 0;
  const ofContainers = allContainers(pod).some((container) => container.resources?.claims?.length);
  if (claims === 0 && !ofContainers) return undefined;
  return refuse(
    'PodFeatureUnsupported',
    'Pod requires node features that are not available: DynamicResourceAllocation (spec.resourceClaims)',
  );
}

function refuseOs(pod: Pod): Refusal | undefined {
  const label = pod.metadata.labels?.['kubernetes.io/os'];
  if (label !== undefined && label !== 'linux')
    return refuse(
      'PodOSSelectorNodeLabelDoesNotMatch',
      "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label",
    );
  if (pod.spec.os && pod.spec.os.name !== 'linux')
    return refuse('PodOSNotSupported', "Failed to admit pod as the OS field doesn't match node OS");
  return undefined;
}

function refuseGroups(pod: Pod, facts: AdmissionFacts): Refusal | undefined {
  if (pod.spec.securityContext?.supplementalGroupsPolicy !== 'Strict' || facts.supplementalGroupsPolicy)
    return undefined;
  return refuse(
    'SupplementalGroupsPolicyNotSupported',
    'SupplementalGroupsPolicy=Strict is not supported in this node',
  );
}

function refusePlace(pod: Pod, others: readonly Pod[], { node }: AdmissionFacts): Refusal | undefined {
  if (!fitsNodeAffinity(pod, node))
    return predicate('NodeAffinity', "node(s) didn't match Pod's node affinity/selector");
  if (pod.spec.nodeName && pod.spec.nodeName !== node.metadata.name)
    return predicate('NodeName', "node(s) didn't match the requested node name");
  if (!hostPortsFree(pod, others))
    return predicate('NodePorts', "node(s) didn't have free ports for the requested pod ports");
  if (!isStaticPod(pod) && !toleratesNoExecute(pod, node.spec.taints ?? []))
    return predicate('TaintToleration', "node(s) had taints that the pod didn't tolerate");
  return undefined;
}

/** `others` are the pods that this node has taken and that have not ended; each with the resources allocated to it. */
export function admitPod(pod: Pod, others: readonly Pod[], facts: AdmissionFacts): AdmissionVerdict {
  const sysctl = facts.sysctls.refuse(pod);
  if (sysctl !== undefined) return refuse('SysctlForbidden', `forbidden sysctl: ${sysctl}`);
  const never = refuseOs(pod) ?? refuseGroups(pod, facts) ?? refuseUnsupported(pod);
  if (never) return never;
  const short = shortages(pod, others, facts.allocatable);
  const place = refusePlace(pod, others, facts);
  const [shortest] = short;
  let preempt: readonly Pod[] = [];
  if (isCriticalPod(pod)) {
    // A critical pod is not refused for want of resources: others make room.
    if (place) return place;
    const victims = short.length === 0 ? [] : podsToPreempt(pod, others, short);
    if (!victims) {
      const wanting = short.map(
        (each) => `(res: ${each.resource}, q: ${each.requested - each.capacity + each.used}), `,
      );
      return refuse(
        'UnexpectedAdmissionError',
        `Unexpected error while attempting to recover from admission failure: preemption: error finding a set of pods to preempt: no set of running pods found to reclaim resources: [${wanting.join('')}]`,
      );
    }
    preempt = victims;
  } else {
    if (shortest) return shortOf(shortest);
    if (place) return place;
  }
  return refuseAppArmor(pod, facts) ?? { admitted: true, preempt };
}
