// A watch: what was, what happens, and bookmarks between, as one stream of JSON lines.
import { expired, forbiddenField, invalid } from './failure.ts';
import { formatFor, type HandlerDeps, parseVersion, statusText } from './handlers.ts';
import { apiVersionOf } from './kinds.ts';
import { type ApiRequest, isTrue, type Target } from './request.ts';
import { type Selected, selectionOf } from './selection.ts';
import type { Change, Obj } from './store.ts';
import { encodeObject } from './wire.ts';

export interface Sink {
  write(text: string): void;
  end(): void;
  onClose(closed: () => void): void;
}

export type OpenStream = (contentType: string) => Sink;

const bookmarkEveryMs = 30_000;
const longestMs = 3_600_000;

export function watch(deps: HandlerDeps, request: ApiRequest, target: Target, open: OpenStream): void {
  const { clock, storage, registry } = deps;
  const { kind, namespace, name } = target;
  const { query } = request;
  const collection = registry.collectionOf(kind);
  const selected = selectionOf(kind, query, name);
  const inScope: Selected = (object) =>
    (namespace === undefined || object.metadata.namespace === namespace) && selected(object);
  const format = formatFor(request);
  const from = parseVersion(kind, query.get('resourceVersion'));
  const streams = isTrue(query.get('sendInitialEvents'));
  if (streams && query.get('resourceVersionMatch') !== 'NotOlderThan') {
    const why = 'sendInitialEvents requires setting resourceVersionMatch to NotOlderThan';
    const options = { ...kind.resource, kind: 'ListOptions', group: 'meta.k8s.io' };
    throw invalid(options, '', [forbiddenField('resourceVersionMatch', why)]);
  }
  const bookmarks = isTrue(query.get('allowWatchBookmarks'));
  const sink = open(`application/json;${format ? 'as=Table;v=v1;g=meta.k8s.io;' : ''}stream=watch`);
  let head = true;
  const send = (type: string, text: string): void => sink.write(`{"type":"${type}","object":${text}}\n`);
  const write = (type: string, object: Obj): void => {
    send(type, encodeObject(kind, object, format, clock.now(), head));
    head = false;
  };
  const bookmark = (annotations?: object): void => {
    if (!bookmarks) return;
    const metadata = { resourceVersion: String(storage.version()), creationTimestamp: null, annotations };
    const { resource } = kind;
    const plain = { kind: resource.kind, apiVersion: apiVersionOf(resource), metadata };
    const table = { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata, columnDefinitions: null, rows: [] };
    send('BOOKMARK', JSON.stringify(format ? table : plain));
  };
  const missed = streams || from === 0 ? undefined : collection.since(from);
  if (streams || from === 0) {
    for (const object of collection.list(namespace).filter(inScope)) write('ADDED', object);
    if (streams) bookmark({ 'k8s.io/initial-events-end': 'true' });
  } else if (missed) for (const change of missed) pass(change, inScope, write);
  else {
    send('ERROR', statusText(expired(`too old resource version: ${from} (${storage.version()})`).status));
    sink.end();
    return;
  }
  const unsubscribe = collection.subscribe((change) => pass(change, inScope, write));
  const tick = (): void => {
    bookmark();
    next = clock.setTimer(bookmarkEveryMs, tick);
  };
  let next = clock.setTimer(bookmarkEveryMs, tick);
  const seconds = Number(query.get('timeoutSeconds') ?? 0);
  const end = clock.setTimer(seconds > 0 ? seconds * 1000 : longestMs, () => {
    bookmark();
    sink.end();
  });
  sink.onClose(() => {
    unsubscribe();
    next.cancel();
    end.cancel();
  });
}

// An object that comes to match is new to this watcher, and one that no longer does is gone.
function pass(
  { type, object, previous }: Change,
  selected: Selected,
  write: (type: string, object: Obj) => void,
): void {
  const did = previous !== undefined && selected(previous);
  if (type === 'DELETED') {
    if (did || selected(object)) write('DELETED', object);
  } else if (selected(object)) write(did ? 'MODIFIED' : 'ADDED', object);
  else if (did) {
    const { resourceVersion } = object.metadata;
    write('DELETED', { ...previous, metadata: { ...previous.metadata, resourceVersion: resourceVersion! } });
  }
}
