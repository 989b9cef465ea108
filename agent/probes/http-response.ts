// Reads an HTTP/1 response as its bytes arrive, as far as a probe needs it: the status, the headers, and the first bytes of the body.

export interface HttpResponse {
  readonly status: number;
  /** Names in lower case; of repeated ones the first. */
  readonly headers: ReadonlyMap<string, string>;
  /** At most `maxBodyBytes` of it. */
  readonly body: string;
}

/** What came is no HTTP response. The message is Go's. */
export class MalformedResponseError extends Error {
  override name = 'MalformedResponseError';
}

const maxHeadBytes = 64 * 1024;
/** More of a body than this is not read. */
export const maxBodyBytes = 10 * 1024;

interface Head {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly bodyAt: number;
}

function parseHead(text: string, end: number): Head {
  const lines = text.slice(0, end).split(/\r?\n/);
  const [statusLine = ''] = lines;
  const match = /^HTTP\/1\.[01] (\d{3})(?: |$)/.exec(statusLine);
  if (!match) throw new MalformedResponseError(`malformed HTTP response "${statusLine.slice(0, 100)}"`);
  const headers = new Map<string, string>();
  for (const line of lines.slice(1)) {
    const colon = line.indexOf(':');
    if (colon <= 0) continue;
    const name = line.slice(0, colon).trim().toLowerCase();
    if (!headers.has(name)) headers.set(name, line.slice(colon + 1).trim());
  }
  return { status: Number(match[1]), headers, bodyAt: end };
}

/** The body of chunks so far, and whether the last one was seen. */
function unchunk(text: string): { readonly body: string; readonly done: boolean } {
  let body = '';
  let at = 0;
  for (;;) {
    const lineEnd = text.indexOf('\r\n', at);
    if (lineEnd < 0) return { body, done: false };
    const sizeText = text.slice(at, lineEnd).split(';')[0]?.trim() ?? '';
    if (!/^[0-9a-fA-F]{1,8}$/.test(sizeText)) throw new MalformedResponseError('malformed chunked encoding');
    const size = Number.parseInt(sizeText, 16);
    if (size === 0) return { body, done: true };
    const start = lineEnd + 2;
    body += text.slice(start, start + size);
    if (body.length >= maxBodyBytes) return { body, done: true };
    if (text.length < start + size + 2) return { body, done: false };
    at = start + size + 2;
  }
}

export interface ResponseReader {
  /** Undefined: more is needed. Throws a MalformedResponseError. */
  push(chunk: Buffer): HttpResponse | undefined;
  /** The other side has closed: what there is, or undefined where the response is not whole. */
  end(): HttpResponse | undefined;
}

export function createResponseReader(): ResponseReader {
  // latin1 keeps one character for each byte; the body is decoded at the end.
  let text = '';
  let head: Head | undefined;

  const finish = (body: string): HttpResponse => ({
    status: head!.status,
    headers: head!.headers,
    body: Buffer.from(body.slice(0, maxBodyBytes), 'latin1').toString('utf8'),
  });

  const readHead = (): boolean => {
    while (!head) {
      if (text.length > 0 && !'HTTP/1.'.startsWith(text.slice(0, 7)))
        throw new MalformedResponseError(`malformed HTTP response "${text.split(/\r?\n/)[0]?.slice(0, 100) ?? ''}"`);
      const match = /\r?\n\r?\n/.exec(text);
      if (!match) {
        if (text.length > maxHeadBytes)
          throw new MalformedResponseError('server response headers exceeded 65536 bytes; aborted');
        return false;
      }
      const parsed = parseHead(text, match.index);
      text = text.slice(match.index + match[0].length);
      // 1xx are answers before the answer.
      if (parsed.status >= 200) head = parsed;
    }
    return true;
  };

  const complete = (closed: boolean): HttpResponse | undefined => {
    if (!readHead() || !head) return undefined;
    const { status, headers } = head;
    if (status === 204 || status === 304) return finish('');
    if (/\bchunked\b/i.test(headers.get('transfer-encoding') ?? '')) {
      const { body, done } = unchunk(text);
      return done ? finish(body) : undefined;
    }
    const length = headers.get('content-length');
    if (length !== undefined && /^\d+$/.test(length)) {
      if (text.length >= Math.min(Number(length), maxBodyBytes)) return finish(text.slice(0, Number(length)));
      return undefined;
    }
    return closed || text.length >= maxBodyBytes ? finish(text) : undefined;
  };

  return {
    push(chunk) {
      text += chunk.toString('latin1');
      return complete(false);
    },
    end: () => complete(true),
  };
}
