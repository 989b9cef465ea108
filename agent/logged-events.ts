// Events of a node that runs alone.
import type { OwnedEventRecorder } from '../kube/event-recorder.ts';
import type { Log } from '../lib/log.ts';

/** Where no API server keeps them, Events go to the log. */
export function createLoggedEvents(log: Log): OwnedEventRecorder {
  return {
    record: ({ kind, namespace, name }, type, reason, message) =>
      log[type === 'Warning' ? 'warn' : 'info'](message, {
        event: reason,
        kind,
        name: namespace ? `${namespace}/${name}` : name,
      }),
    stop: async () => undefined,
  };
}
