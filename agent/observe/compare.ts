// Pure questions about what was seen of a pod: its order, whether a listing says the same, whether an event says more.
import type { ContainerEvent, SandboxStatus } from '../../cri/types.ts';
import type { ObservedContainer, ObservedPod } from '../pods/observed.ts';

export const has = ({ sandboxes, containers }: ObservedPod, id: string): boolean =>
  sandboxes.some((each) => each.id === id) || containers.some((each) => each.id === id);

type Made = { readonly metadata: { readonly attempt: number }; readonly createdAtMs: number };

// By attempt first: it tells the newest of a name whatever the clock has done.
const newestFirst = (a: Made, b: Made): number =>
  b.metadata.attempt - a.metadata.attempt || b.createdAtMs - a.createdAtMs;

export const inOrder = (
  sandboxes: readonly SandboxStatus[],
  containers: readonly ObservedContainer[],
): ObservedPod => ({
  sandboxes: sandboxes.toSorted(newestFirst),
  containers: containers.toSorted(newestFirst),
});

type Named = { readonly id: string; readonly state: string };

/** Equal where nothing has come, gone or changed its state. */
export function signatureOf(sandboxes: readonly Named[], containers: readonly Named[]): string {
  return [
    ...sandboxes.map((each) => `${each.id}=${each.state}`),
    ...containers.map((each) => `${each.id}=${each.state}`),
  ]
    .sort()
    .join(',');
}

/** The event tells of something that was not seen yet. */
export function saysMore({ containers, sandboxes }: ObservedPod, { kind, containerId }: ContainerEvent): boolean {
  const shown =
    containers.find((each) => each.id === containerId)?.state ??
    sandboxes.find((each) => each.id === containerId)?.state;
  switch (kind) {
    case 'created':
      return shown === undefined;
    case 'started':
      return shown === undefined || shown === 'created';
    case 'stopped':
      return shown !== 'exited' && shown !== 'notready';
    case 'deleted':
      return shown !== undefined;
    case 'oom':
      return true;
  }
}
