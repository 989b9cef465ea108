// A watch: what was, what happens, and bookmarks between, as one stream of JSON lines.
import type { Clock } from '../lib/clock.ts';
import type { Collection, Change, Obj, Storage } from './store.ts';
import { expired, invalid } from './failure.ts';
import { parseVersion, type Selected, selection, statusText } from './handlers.ts';
import { apiVersionOf, type Kind } from './kinds.ts';
import { type ApiRequest, isTrue, type Target } from './request.ts';
import { encodeObject, type Format, formatOf } from './wire.ts';

export interface WatchDeps {
  readonly clock: Clock;
  readonly storage: Storage;
  readonly collection: Collection;
}

export interface Sink {
  write(text: string): void;
  end(): void;
  onClose(closed: () => void): void;
}

const bookmarkEveryMs = 30_000;
const longestMs = 3_600_000;

export function serveWatch(deps: WatchDeps, request: ApiRequest, { kind, namespace, name }: Target, sink: Sink): void {
  const { clock, storage, collection } = deps;
  const { query } = request;
  const selected = selection(kind, query, name);
  const inScope: Selected = (object) =>
    (namespace === undefined || object.metadata.namespace === namespace) && selected(object);
  const format = formatOf(request.header('accept'), query.get('includeObject'));
  const asked = query.get('resourceVersion');
  const streams = isTrue(query.get('sendInitialEvents'));
  if (streams && query.get('resourceVersionMatch') !== 'NotOlderThan')
    throw invalid({ ...kind.resource, kind: 'ListOptions', group: 'meta.k8s.io' }, '', [
      {
        reason: 'FieldValueForbidden',
        field: 'resourceVersionMatch',
        message: 'Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan',
      },
    ]);
  const bookmarks = isTrue(query.get('allowWatchBookmarks'));
  const writer = eventWriter(clock, kind, format, sink);
  const from = parseVersion(asked);
  const initial = streams || from === 0;
  if (initial) {
    for (const object of collection.list(namespace).filter(inScope)) writer.object('ADDED', object);
    if (streams && bookmarks) writer.bookmark(storage.version(), true);
  } else {
    const missed = collection.since(from);
    if (!missed) {
      sink.write(
        `{"type":"ERROR","object":${statusText(expired(`too old resource version: ${from} (${storage.version()})`).status)}}\n`,
      );
      sink.end();
      return;
    }
    for (const change of missed) pass(change, inScope, writer);
  }
  const unsubscribe = collection.subscribe((change) => pass(change, inScope, writer));
  const tick = (): void => {
    if (bookmarks) writer.bookmark(storage.version(), false);
    bookmarkTimer = clock.setTimer(bookmarkEveryMs, tick);
  };
  let bookmarkTimer = clock.setTimer(bookmarkEveryMs, tick);
  const seconds = Number(query.get('timeoutSeconds') ?? 0);
  const end = clock.setTimer(seconds > 0 ? seconds * 1000 : longestMs, () => {
    if (bookmarks) writer.bookmark(storage.version(), false);
    sink.end();
  });
  sink.onClose(() => {
    unsubscribe();
    bookmarkTimer.cancel();
    end.cancel();
  });
}

interface EventWriter {
  object(type: 'ADDED' | 'MODIFIED' | 'DELETED', object: Obj): void;
  bookmark(version: number, initialEventsEnd: boolean): void;
}

function eventWriter(clock: Clock, kind: Kind, format: Format, sink: Sink): EventWriter {
  let first = true;
  return {
    object(type, object) {
      sink.write(`{"type":"${type}","object":${encodeObject(kind, object, format, clock.now(), first)}}\n`);
      first = false;
    },
    bookmark(version, initialEventsEnd) {
      const annotations = initialEventsEnd ? { annotations: { 'k8s.io/initial-events-end': 'true' } } : {};
      const metadata = { resourceVersion: String(version), ...annotations };
      const object =
        format.as === 'table'
          ? { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata, columnDefinitions: null, rows: [] }
          : {
              kind: kind.resource.kind,
              apiVersion: apiVersionOf(kind.resource),
              metadata: { ...metadata, creationTimestamp: null },
            };
      sink.write(`${JSON.stringify({ type: 'BOOKMARK', object })}\n`);
    },
  };
}

// An object that comes to match is new to this watcher, and one that no longer does is gone.
function pass(change: Change, selected: Selected, writer: EventWriter): void {
  const { type, object, previous } = change;
  const did = previous !== undefined && selected(previous);
  const does = type !== 'DELETED' && selected(object);
  if (does) writer.object(did ? 'MODIFIED' : 'ADDED', object);
  else if (did || (type === 'DELETED' && selected(object)))
    writer.object(
      'DELETED',
      type === 'DELETED'
        ? object
        : { ...previous!, metadata: { ...previous!.metadata, resourceVersion: object.metadata.resourceVersion! } },
    );
}
