// Reads an HTTP/1 response as its bytes arrive, as far as a probe needs it: the status, the headers, and the first bytes of the body.

export interface HttpResponse {
  readonly status: number;
  /** Where a redirect points to; undefined where this is none. */
  readonly location: string | undefined;
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
  readonly text: string;
}

const redirects: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

// Of repeated ones the first.
const headers = {
  location: /^[ \t]*location[ \t]*:(.*)$/im,
  length: /^[ \t]*content-length[ \t]*:[ \t]*(\d+)[ \t]*$/im,
  coding: /^[ \t]*transfer-encoding[ \t]*:(.*)$/im,
} as const;

const headerOf = (head: Head, header: RegExp): string | undefined => header.exec(head.text)?.[1]?.trim();

const firstLine = (text: string): string => {
  const end = text.indexOf('\n');
  const line = end < 0 ? text : text.slice(0, end);
  return (line.endsWith('\r') ? line.slice(0, -1) : line).slice(0, 100);
};

/** Where the empty line after the head is, and what follows it; undefined: it has not come yet. Lines may end without a carriage return. */
function endOfHead(text: string): { readonly end: number; readonly bodyAt: number } | undefined {
  for (let end = text.indexOf('\n'); end >= 0; end = text.indexOf('\n', end + 1)) {
    const next = text.charCodeAt(end + 1) === 13 ? end + 2 : end + 1;
    if (text.charCodeAt(next) === 10) return { end, bodyAt: next + 1 };
  }
  return undefined;
}

function parseHead(text: string): Head {
  const match = /^HTTP\/1\.[01] (\d{3})(?: |\r?$)/m.exec(text);
  if (match?.index !== 0) throw new MalformedResponseError(`malformed HTTP response "${firstLine(text)}"`);
  return { status: Number(match[1]), text };
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

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the characters that are one byte in UTF-8
const ascii = /^[\u0000-\u007f]*$/;
const decoded = (bytes: string): string => (ascii.test(bytes) ? bytes : Buffer.from(bytes, 'latin1').toString('utf8'));

export interface ResponseReader {
  /** The next `length` bytes (default: all) of a chunk, which may be used for something else afterwards. Undefined: more is needed. Throws a MalformedResponseError. */
  push(chunk: Buffer, length?: number): HttpResponse | undefined;
  /** The other side has closed: what there is, or undefined where the response is not whole. */
  end(): HttpResponse | undefined;
}

export function createResponseReader(): ResponseReader {
  // latin1 keeps one character for each byte; the body is decoded at the end.
  let text = '';
  let head: Head | undefined;

  const finish = ({ status, text: headText }: Head, body: string): HttpResponse => ({
    status,
    location: redirects.has(status) ? headerOf({ status, text: headText }, headers.location) : undefined,
    body: decoded(body.slice(0, maxBodyBytes)),
  });

  const readHead = (): Head | undefined => {
    while (!head) {
      if (text.length > 0 && !text.startsWith('HTTP/1.'.slice(0, text.length)))
        throw new MalformedResponseError(`malformed HTTP response "${firstLine(text)}"`);
      const found = endOfHead(text);
      if (!found) {
        if (text.length > maxHeadBytes)
          throw new MalformedResponseError('server response headers exceeded 65536 bytes; aborted');
        return undefined;
      }
      const parsed = parseHead(text.slice(0, found.end));
      text = text.slice(found.bodyAt);
      // 1xx are answers before the answer.
      if (parsed.status >= 200) head = parsed;
    }
    return head;
  };

  const complete = (closed: boolean): HttpResponse | undefined => {
    const known = readHead();
    if (!known) return undefined;
    if (known.status === 204 || known.status === 304) return finish(known, '');
    if (/\bchunked\b/i.test(headerOf(known, headers.coding) ?? '')) {
      const { body, done } = unchunk(text);
      return done ? finish(known, body) : undefined;
    }
    const length = headerOf(known, headers.length);
    if (length !== undefined) {
      if (text.length >= Math.min(Number(length), maxBodyBytes)) return finish(known, text.slice(0, Number(length)));
      return undefined;
    }
    return closed || text.length >= maxBodyBytes ? finish(known, text) : undefined;
  };

  return {
    push(chunk, length = chunk.length) {
      text += chunk.toString('latin1', 0, length);
      return complete(false);
    },
    end: () => complete(true),
  };
}
