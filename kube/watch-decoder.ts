// Reads a watch's answer: one JSON object a line, in pieces as the network delivers them.
import { statusToError } from './api-status.ts';
import type { WatchEvent } from './client.ts';
import { ApiError } from './errors.ts';
import type { KubeObject, Status } from './types/meta.ts';

const newline = 0x0a;
const initialEventsEnd = 'k8s.io/initial-events-end';

/** Puts chunks together to lines. A line that comes in many chunks is copied once. */
export function createLineSplitter(): (chunk: Buffer) => string[] {
  let parts: Buffer[] = [];
  return (chunk) => {
    const lines: string[] = [];
    let start = 0;
    for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, start)) {
      const end = chunk.subarray(start, at);
      const line = parts.length === 0 ? end.toString('utf8') : Buffer.concat([...parts, end]).toString('utf8');
      parts = [];
      if (line !== '') lines.push(line);
      start = at + 1;
    }
    if (start < chunk.length) parts.push(chunk.subarray(start));
    return lines;
  };
}

/** One line of a watch. `what` is for messages. Throws an ApiError for the server's ERROR event and for what cannot be read. */
export function parseWatchLine<T extends KubeObject>(what: string, line: string): WatchEvent<T> {
  let event: { type?: string; object?: T & Status };
  try {
    event = JSON.parse(line) as typeof event;
  } catch (error) {
    throw new ApiError('server', `${what}: a watch event that is no JSON: ${line.slice(0, 200)}`, { cause: error });
  }
  const { type, object } = event;
  if (!object) throw new ApiError('server', `${what}: a watch event without an object: ${line.slice(0, 200)}`);
  switch (type) {
    case 'ADDED':
    case 'MODIFIED':
    case 'DELETED':
      return { type, object };
    case 'BOOKMARK':
      return {
        type,
        resourceVersion: object.metadata.resourceVersion ?? '',
        initialEventsEnd: object.metadata.annotations?.[initialEventsEnd] === 'true',
      };
    case 'ERROR':
      throw statusToError(what, object);
    default:
      throw new ApiError('server', `${what}: a watch event of unknown type ${JSON.stringify(type)}`);
  }
}
