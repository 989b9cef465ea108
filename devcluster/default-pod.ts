// The API server's defaults of pods, with a refusal where a quantity is none.
import { defaultPod as setDefaults, defaultPodSpec as setSpecDefaults } from '../kube/pod-defaults.ts';
import { QuantityError } from '../kube/quantity.ts';
import type { Pod, PodSpec } from '../kube/types/pod.ts';
import { badRequest } from './failure.ts';

function refusing(set: () => void): void {
  try {
    set();
  } catch (error) {
    if (error instanceof QuantityError) throw badRequest(error.message);
    throw error;
  }
}

/** Throws 400 for a quantity that is none. */
export const defaultPodSpec = (spec: PodSpec): void => refusing(() => setSpecDefaults(spec));

/** Defaults that belong to pods and not to templates. */
export const defaultPod = (pod: Pod): void => refusing(() => setDefaults(pod));
