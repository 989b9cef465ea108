// The things a pod's worker can have under way. The plan names them; execute.ts knows how each is done.
import type { ContainerId, SandboxId } from '../../cri/types.ts';

export type Operation =
  /** Cgroup, folders and volumes. Idempotent: runs again for a changed pod. */
  | { readonly kind: 'set-up-volumes' }
  | { readonly kind: 'run-sandbox'; readonly attempt: number }
  | { readonly kind: 'pull-image'; readonly container: string }
  | {
      readonly kind: 'start-container';
      readonly container: string;
      readonly attempt: number;
      readonly sandboxId: SandboxId;
      /** The process of the one before has ended, and the runtime has not noted that yet. */
      readonly after?: {
        readonly id: ContainerId;
        /** More of its processes may be there: this one is made at once, and started when the runtime has noted the end. */
        readonly lingers: boolean;
      };
    }
  | { readonly kind: 'run-post-start'; readonly container: string; readonly id: ContainerId }
  | {
      readonly kind: 'run-pre-stop';
      readonly container: string;
      readonly id: ContainerId;
      /** The hook is cut off at this time, milliseconds since the epoch. */
      readonly deadlineMs: number;
    }
  | {
      readonly kind: 'stop-container';
      readonly container: string;
      readonly id: ContainerId;
      /** What is left of the grace, in seconds. */
      readonly graceSeconds: number;
      /** The whole grace of this kill: a shortened one is another call beside the one under way. */
      readonly ofSeconds: number;
    }
  | { readonly kind: 'remove-container'; readonly id: ContainerId; readonly keepLog?: boolean }
  | { readonly kind: 'stop-sandbox'; readonly id: SandboxId }
  | { readonly kind: 'remove-sandbox'; readonly id: SandboxId }
  /** Volumes: what a pod whose containers have ended no longer needs. */
  | { readonly kind: 'release-volumes' }
  /** Once nothing of the pod runs any more, its sandbox included. */
  | { readonly kind: 'remove-cgroup' }
  /** Folders and logs of a pod that is gone from its source. */
  | { readonly kind: 'remove-files' }
  /** Cgroups and containers get what is allocated to them. */
  | { readonly kind: 'resize-pod' }
  /** The final DELETE of a pod that the API wants gone. */
  | { readonly kind: 'confirm-deletion' };

export type OperationKey = string;

/** Two operations with the same key are the same: it is started once. */
export function keyOfOperation(operation: Operation): OperationKey {
  switch (operation.kind) {
    case 'set-up-volumes':
    case 'run-sandbox':
    case 'release-volumes':
    case 'remove-cgroup':
    case 'remove-files':
    case 'confirm-deletion':
    case 'resize-pod':
      return operation.kind;
    case 'pull-image':
    case 'start-container':
      return `${operation.kind}:${operation.container}`;
    case 'stop-container':
      return `${operation.kind}:${operation.id}:${operation.ofSeconds}`;
    case 'run-post-start':
    case 'run-pre-stop':
    case 'remove-container':
    case 'stop-sandbox':
    case 'remove-sandbox':
      return `${operation.kind}:${operation.id}`;
    default: {
      const never: never = operation;
      return never;
    }
  }
}

/** What can be cut short without leaving something half-made in the runtime; a sandbox only while it waits for its turn. */
export const isAbortable = (kind: Operation['kind']): boolean =>
  kind === 'run-sandbox' ||
  kind === 'set-up-volumes' ||
  kind === 'pull-image' ||
  kind === 'run-post-start' ||
  kind === 'run-pre-stop';

const runtimeKinds: ReadonlySet<Operation['kind']> = new Set([
  'run-sandbox',
  'start-container',
  'stop-container',
  'remove-container',
  'stop-sandbox',
  'remove-sandbox',
  'resize-pod',
]);

/** After its end the runtime may have something else of the pod. */
export const changesRuntime = (kind: Operation['kind']): boolean => runtimeKinds.has(kind);
