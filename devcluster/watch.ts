// A watch: what was, what happens, and bookmarks between, as one stream of JSON lines.
import { apiVersionOf } from '../kube/api-path.ts';
import type { PastChange } from '../kube/history.ts';
import { expired } from './failure.ts';
import { type HandlerDeps, parseVersion, statusText } from './handlers.ts';
import type { Obj } from './kinds.ts';
import { type ApiRequest, isTrue, type Target } from './request.ts';
import { type Selected, selectionOf } from './selection.ts';
import { encodeObject, formatOf } from './wire.ts';

export interface Sink {
  write(text: string): void;
  end(): void;
  onClose(closed: () => void): void;
}

export type OpenStream = (contentType: string) => Sink;

const bookmarkEveryMs = 30_000;
const longestMs = 3_600_000;

export function watch(deps: HandlerDeps, request: ApiRequest, target: Target, open: OpenStream): undefined {
  const { clock, storage, registry } = deps;
  const { kind, namespace, name } = target;
  const { query } = request;
  const collection = registry.collectionOf(kind);
  const selected = selectionOf(kind, query, name);
  const inScope: Selected = (object) =>
    (namespace === undefined || object.metadata.namespace === namespace) && selected(object);
  const { table } = formatOf(request, 0);
  const from = parseVersion(query.get('resourceVersion'));
  const streams = isTrue(query.get('sendInitialEvents'));
  const bookmarks = isTrue(query.get('allowWatchBookmarks'));
  const sink = open(`application/json;${table ? 'as=Table;v=v1;g=meta.k8s.io;' : ''}stream=watch`);
  let head = true;
  const send = (type: string, text: string): void => sink.write(`{"type":"${type}","object":${text}}\n`);
  const write = (type: string, object: Obj): void => {
    send(type, encodeObject(kind, object, { table, nowMs: clock.now() }, head));
    head = false;
  };
  const bookmark = (annotations?: object): void => {
    if (!bookmarks) return;
    const metadata = { resourceVersion: String(storage.version()), creationTimestamp: null, annotations };
    const plain = { kind: kind.resource.kind, apiVersion: apiVersionOf(kind.resource), metadata };
    const rows = { kind: 'Table', apiVersion: 'meta.k8s.io/v1', metadata, columnDefinitions: null, rows: [] };
    send('BOOKMARK', JSON.stringify(table ? rows : plain));
  };
  const missed = streams || from === 0 ? [] : collection.since(from);
  if (!missed) {
    send('ERROR', statusText(expired(`too old resource version: ${from} (${storage.version()})`).status));
    sink.end();
    return;
  }
  if (streams || from === 0) for (const object of collection.list(namespace).filter(inScope)) write('ADDED', object);
  if (streams) bookmark({ 'k8s.io/initial-events-end': 'true' });
  for (const change of missed) pass(change, inScope, write);
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
  { type, object, previous }: PastChange<Obj>,
  selected: Selected,
  write: (type: string, object: Obj) => void,
): void {
  const did = previous !== undefined && selected(previous);
  const does = selected(object);
  if (type === 'DELETED' && (did || does)) write('DELETED', object);
  else if (does) write(did ? 'MODIFIED' : 'ADDED', object);
  else if (did) {
    const { resourceVersion = '' } = object.metadata;
    write('DELETED', { ...previous, metadata: { ...previous.metadata, resourceVersion } });
  }
}
