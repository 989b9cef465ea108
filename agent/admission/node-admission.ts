// Admission with the facts of this node: asked once for each pod, before anything is made for it.
import { readFile } from 'node:fs/promises';
import { release } from 'node:os';
import type { Node } from '../../kube/types/core.ts';
import type { ResourceList } from '../../kube/types/meta.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { admitPod, type Refusal } from './admit-pod.ts';
import { shortages } from '../../kube/scheduling/fit.ts';
import { createSysctlRules } from './sysctls.ts';

export interface NodeAdmissionDeps {
  /** Undefined until the node is known. */
  node(): Node | undefined;
  /** What the node has for this pod. */
  allocatable(pod: Pod): Readonly<ResourceList>;
  /**
   * Ends a pod that gives way to a critical one, with the words of `preempted` (admit-pod.ts) in its status and an Event Preempting;
   * resolves when its containers are gone. `resource` is what is short first. Absent: critical pods wait for room like all others.
   */
  preempt?(victim: Pod, forPod: Pod, resource: string): Promise<void>;
  /** Default: what the kernel says. */
  appArmor?(): Promise<boolean>;
  /** Default: the running kernel's release. */
  readonly kernelVersion?: string;
}

export type Admission = { readonly admitted: true } | Refusal;

export interface NodeAdmission {
  admit(pod: Pod, others: readonly Pod[]): Promise<Admission>;
}

const appArmorEnabled = async (): Promise<boolean> => {
  const text = await readFile('/sys/module/apparmor/parameters/enabled', 'utf8').catch(() => 'N');
  return text.startsWith('Y');
};

/** Throws an Error for sysctls in the configuration that would change the host. */
export function createNodeAdmission(
  deps: NodeAdmissionDeps,
  config: { readonly allowedUnsafeSysctls: readonly string[] },
): NodeAdmission {
  const sysctls = createSysctlRules(config.allowedUnsafeSysctls, deps.kernelVersion ?? release());
  // The kernel's answer does not change while it runs.
  let appArmor: Promise<boolean> | undefined;

  return {
    async admit(pod, others) {
      appArmor ??= (deps.appArmor ?? appArmorEnabled)();
      const node = deps.node();
      if (!node) return { admitted: false, reason: 'InvalidNodeInfo', message: 'Kubelet cannot get node info.' };
      const allocatable = deps.allocatable(pod);
      const verdict = admitPod(pod, others, {
        node,
        allocatable,
        sysctls,
        appArmor: await appArmor,
        supplementalGroupsPolicy: node.status?.features?.supplementalGroupsPolicy ?? false,
      });
      if (!verdict.admitted || verdict.preempt.length === 0) return verdict.admitted ? { admitted: true } : verdict;
      const { preempt } = deps;
      const [short] = shortages(pod, others, allocatable);
      if (preempt) {
        await Promise.all(verdict.preempt.map((victim) => preempt(victim, pod, short?.resource ?? '')));
        return { admitted: true };
      }
      return {
        admitted: false,
        reason: `OutOf${short?.resource ?? ''}`,
        message: `Node didn't have enough resource: ${short?.resource}, requested: ${short?.requested}, used: ${short?.used}, capacity: ${short?.capacity}`,
      };
    },
  };
}
