// What is taken from a pod again: containers, sandboxes, volumes, its cgroup and files, and at last its name in the API.
import { isNotFound as runtimeNotFound } from '../../cri/errors.ts';
import { isConflict, isNotFound } from '../../kube/errors.ts';
import { resources } from '../../kube/resources.ts';
import type { ExecuteDeps, Handlers } from './handling.ts';
import { containerById } from './observed.ts';

type Kinds =
  | 'stop-container'
  | 'remove-container'
  | 'stop-sandbox'
  | 'remove-sandbox'
  | 'release-volumes'
  | 'remove-cgroup'
  | 'remove-files'
  | 'confirm-deletion';

export function createBringDown({ runtime, parts, client }: ExecuteDeps): Handlers<Kinds> {
  return {
    'stop-container': async ({ observed, touched }, { id, graceSeconds }) => {
      await runtime.stopContainer(id, graceSeconds, { timeoutMs: graceSeconds * 1000 + 120_000 });
      const sandboxId = containerById(observed, id)?.sandboxId;
      if (sandboxId !== undefined) touched({ container: id, sandboxId });
    },

    'remove-container': async ({ pod, observed }, { id, keepLog }) => {
      await runtime.removeContainer(id);
      const container = containerById(observed, id);
      // What never ran has no log, and the next try may write one by the same name.
      if (container?.state === 'exited' && !keepLog) await parts.removed(pod, container);
    },

    'stop-sandbox': async ({ memory, observed, touched }, { id }) => {
      try {
        await runtime.stopSandbox(id);
      } catch (error) {
        if (!runtimeNotFound(error)) throw error;
      }
      memory.stoppedSandboxes.add(id);
      // What still ran in it was ended with it.
      if (!observed.containers.some((each) => each.sandboxId === id && each.state !== 'exited'))
        touched({ sandbox: id });
    },

    'remove-sandbox': async (_context, { id }) => {
      await runtime.removeSandbox(id);
    },

    'release-volumes': async ({ pod, memory }, _operation, signal) => {
      await parts.tearDownVolumes(pod.metadata.uid ?? '', signal);
      memory.volumesUp = false;
      memory.released = true;
    },

    'remove-cgroup': async ({ pod, memory }) => {
      await parts.removeCgroup(pod.metadata.uid ?? '', pod);
      memory.cgroupRemoved = true;
    },

    'remove-files': async ({ pod, memory }) => {
      await parts.removeFiles(pod.metadata.uid ?? '', pod);
      memory.filesRemoved = true;
    },

    'confirm-deletion': async ({ pod, memory }, _operation, signal) => {
      const { name, namespace = 'default', uid } = pod.metadata;
      try {
        await client?.delete(
          resources.pods,
          { namespace, name },
          { gracePeriodSeconds: 0, signal, ...(uid === undefined ? {} : { preconditions: { uid } }) },
        );
      } catch (error) {
        if (!isNotFound(error) && !isConflict(error)) throw error;
      }
      memory.deletionConfirmed = true;
    },
  };
}
