// Asks the runtime for one sandbox or container, and completes the answer with what was heard beside it: an end that the runtime has not noted
// yet, a kill for want of memory that it missed, the container's last words.
import { isNotFound } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type {
  ContainerEnding,
  ContainerId,
  ContainerInspection,
  SandboxId,
  SandboxStatus,
  SandboxSummary,
} from '../../cri/types.ts';
import type { ObservedContainer, ObservedPod } from '../pods/observed.ts';
import type { OomKills } from './oom-kills.ts';

export interface InspectionsDeps {
  readonly runtime: Runtime;
  /** What an ended container left in its termination message file. */
  terminationMessage(container: ObservedContainer): Promise<string | undefined>;
  /** Knows kills for want of memory that the runtime missed. */
  readonly oomKills?: OomKills;
}

/** Answers are undefined where the runtime does not know it any more; all reject with a RuntimeError. */
export interface Inspections {
  sandbox(id: SandboxId): Promise<SandboxStatus | undefined>;
  /** Asks only where the list says something else than `before`. */
  listedSandbox(summary: SandboxSummary, before: ObservedPod): Promise<SandboxStatus | undefined>;
  /** Does not ask for one that `before` has ended: an end is final. */
  container(uid: string, which: ContainerKey, before: ObservedPod): Promise<ObservedContainer | undefined>;
  /** The process of a container that the runtime shows running has ended. */
  ending(id: string, ending: ContainerEnding): void;
  /** An inspection that came with an event, for the next question; undefined: none came with the newest event, and an older one is not true any more. */
  told(id: string, inspection: ContainerInspection | undefined): void;
  /** We stop it: its end is our doing. */
  stopping(id: string): void;
  /** Something in it was killed for want of memory, by the runtime's events. */
  starved(id: string): void;
  forget(id: string): void;
}

export interface ContainerKey {
  readonly id: ContainerId;
  readonly sandboxId: SandboxId;
}

/** The runtime says no more than that it was killed. */
const looksKilled = ({ exitCode, reason }: Pick<ObservedContainer, 'exitCode' | 'reason'>): boolean =>
  exitCode === 137 && (reason === 'Error' || reason === '');

export function createInspections(deps: InspectionsDeps): Inspections {
  const { runtime } = deps;
  const endings = new Map<string, ContainerEnding>();
  const told = new Map<string, ContainerInspection>();
  const stopping = new Set<string>();
  const starved = new Set<string>();

  const forget = (id: string): void => {
    for (const each of [endings, told, stopping, starved]) each.delete(id);
  };

  /** An event may come after the end; the kernel is asked once, at the end. */
  const withReason = async (
    uid: string,
    container: ObservedContainer,
    askKernel: boolean,
  ): Promise<ObservedContainer> => {
    if (!looksKilled(container) || stopping.has(container.id)) return container;
    const killed = starved.has(container.id) || (askKernel && (await deps.oomKills?.killed(uid, container.id)));
    return killed ? { ...container, reason: 'OOMKilled' } : container;
  };

  const ask = async (id: ContainerId): Promise<ContainerInspection | undefined> => {
    const inspection = told.get(id) ?? (await runtime.inspectContainer(id).catch(undefinedIfGone));
    told.delete(id);
    return inspection;
  };

  const sandbox = (id: SandboxId): Promise<SandboxStatus | undefined> =>
    runtime.sandboxStatus(id).catch(undefinedIfGone);

  return {
    sandbox,
    async listedSandbox(summary, before) {
      const known = before.sandboxes.find((each) => each.id === summary.id);
      const same = known?.state === summary.state && (summary.state === 'notready' || known.ips.length > 0);
      return same ? known : await sandbox(summary.id);
    },
    async container(uid, { id, sandboxId }, before) {
      const known = before.containers.find((each) => each.id === id);
      if (known?.state === 'exited') return await withReason(uid, known, false);
      const inspection = await ask(id);
      if (!inspection) {
        forget(id);
        return undefined;
      }
      const seen: ObservedContainer = { ...inspection, sandboxId };
      const ending = endings.get(id);
      if (seen.state === 'running' && ending) return { ...seen, ending };
      endings.delete(id);
      if (seen.state !== 'exited') return seen;
      const container = await withReason(uid, seen, true);
      const terminationMessage = await deps.terminationMessage(container);
      return terminationMessage === undefined ? container : { ...container, terminationMessage };
    },
    ending: (id, ending) => void endings.set(id, ending),
    told(id, inspection) {
      if (inspection) told.set(id, inspection);
      else told.delete(id);
    },
    stopping: (id) => void stopping.add(id),
    starved: (id) => void starved.add(id),
    forget,
  };
}

const undefinedIfGone = (error: unknown): undefined => {
  if (!isNotFound(error)) throw error;
  return undefined;
};
