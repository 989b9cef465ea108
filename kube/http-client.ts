// The client of a real API server: JSON over HTTP/2 (HTTP/1.1 where the server has no HTTP/2) through undici.
import type { Dispatcher } from 'undici';
import { TimeoutError } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';
import { describeError, type Log } from '../lib/log.ts';
import { createTokenBucket } from '../lib/token-bucket.ts';
import { apiVersionOf, collectionPath, objectPath, queryOf, selectionQuery } from './api-path.ts';
import { refusalToError } from './api-status.ts';
import { createContact } from './contact.ts';
import type {
  KubeClient,
  ListOptions,
  PatchType,
  RequestOptions,
  WatchEvent,
  WatchOptions,
  WriteOptions,
} from './client.ts';
import { type ClientConfig, ClientConfigError } from './client-config.ts';
import { type Connections, createConnections, type Lane, NotSentError, type Stream } from './connections.ts';
import { createCredentials } from './credentials.ts';
import { ApiError } from './errors.ts';
import type { Resource } from './resources.ts';
import type { KubeList, KubeObject } from './types/meta.ts';
import { createLineSplitter, parseWatchLine } from './watch-decoder.ts';

export interface KubeClientDeps {
  readonly log: Log;
  readonly clock: Clock;
  /** Told of each call that got an answer or failed: for rest_client_* metrics. `code` is the HTTP status, or `<error>`. */
  observe?(call: { verb: string; host: string; code: string; seconds: number }): void;
}

export interface KubeClientOptions {
  readonly streamsPerConnection?: number;
  readonly pingIntervalMs?: number;
  readonly silenceMs?: number;
}

const defaultTimeoutMs = 30_000;
/** How long a watch may take to begin. */
const watchStartMs = 30_000;
/** Reading events gives way to others after this long. */
const sliceMs = 15;
/** 429 and 503 with Retry-After are tried again so often, and no wait is longer. */
const retries = 3;
const longestRetryMs = 5000;
/** So often a request goes to another connection because the server was about to close the one it came by. */
const longestRefusals = 10;

const contentTypes: Record<PatchType, string> = {
  merge: 'application/merge-patch+json',
  strategic: 'application/strategic-merge-patch+json',
  json: 'application/json-patch+json',
  apply: 'application/apply-patch+yaml',
};

interface Call {
  readonly verb: string;
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly accept?: string;
}

/** The client for one server and one identity. Nothing is connected before the first call. */
export function createKubeClient(
  deps: KubeClientDeps,
  config: ClientConfig,
  options: KubeClientOptions = {},
): KubeClient {
  const { clock, log } = deps;
  const url = new URL(config.server);
  const prefix = url.pathname.replace(/\/+$/, '');
  const credentials = createCredentials({ clock, log }, config);
  const connections: Connections = createConnections(
    { clock, tls: () => credentials.tls() },
    {
      origin: url.origin,
      insecureSkipTlsVerify: config.insecureSkipTlsVerify ?? false,
      serverName: config.tlsServerName,
      ...options,
    },
  );
  const bucket =
    config.rateLimit && createTokenBucket(clock, { burst: config.rateLimit.burst, perSecond: config.rateLimit.qps });
  const closing = new AbortController();

  const whatOf = (call: Call): string => `${call.verb} ${call.path.split('?')[0]}`;

  let checking: Promise<void> | undefined;
  const checkCertificate = async (): Promise<void> => {
    if (!(await credentials.tlsChanged())) return;
    log.info('the client certificate changed: connecting anew', { server: url.host });
    connections.retire('the client certificate changed');
  };

  // Sends a request and waits for the head of the answer. Its stream is the caller's to release.
  const send = async (
    lane: Lane,
    call: Call,
    signal: AbortSignal,
  ): Promise<{ stream: Stream; response: Dispatcher.ResponseData }> => {
    checking ??= checkCertificate().finally(() => {
      checking = undefined;
    });
    await checking;
    const authorization = await credentials.authorization();
    const stream = await connections.acquire(lane, signal);
    try {
      const response = await stream.client.request({
        method: call.method,
        path: prefix + call.path,
        signal,
        // Else undici lets it wait for all that are under way. It never resends one here: a connection is used once.
        idempotent: true,
        headersTimeout: lane === 'watch' ? watchStartMs : 0,
        bodyTimeout: 0,
        headers: {
          accept: call.accept ?? 'application/json',
          'user-agent': config.userAgent ?? 'stevedore',
          ...(authorization === undefined ? {} : { authorization }),
          ...(call.body === undefined ? {} : { 'content-type': call.contentType ?? 'application/json' }),
        },
        ...(call.body === undefined ? {} : { body: bodyOf(call) }),
      });
      return { stream, response };
    } catch (error) {
      stream.release();
      throw error;
    }
  };

  const headerOf = (response: Dispatcher.ResponseData, name: string): string | undefined => {
    const value = response.headers[name];
    return Array.isArray(value) ? value[0] : value;
  };

  const toApiError = (what: string, error: unknown, signal: AbortSignal): unknown => {
    if (error instanceof ApiError) return error;
    if (closing.signal.aborted) return new ApiError('unreachable', `${what}: the client was closed`);
    if (signal.aborted && !(signal.reason instanceof TimeoutError)) return signal.reason;
    if (signal.aborted) return new ApiError('timeout', `${what}: ${describeError(signal.reason)}`, { cause: error });
    if (error instanceof ClientConfigError)
      return new ApiError('unauthorized', `${what}: ${error.message}`, { cause: error });
    return new ApiError('unreachable', `${what}: no answer from ${url.host}: ${describeError(error)}`, {
      cause: error,
    });
  };

  const contact = createContact(clock);
  /** A server that is coming up or going down, or a proxy before one that is away, refuses with these. */
  const heard = (status: number): void => {
    if (status < 500 && status !== 429) contact.answered();
  };

  // One attempt, whole: the text of a 2xx answer, or an ApiError.
  const attempt = async (call: Call, signal: AbortSignal): Promise<string> => {
    const what = whatOf(call);
    const startedAt = clock.monotonicMs();
    const seen = (code: string): void =>
      deps.observe?.({ verb: call.method, host: url.host, code, seconds: (clock.monotonicMs() - startedAt) / 1000 });
    try {
      const { stream, response } = await send('call', call, signal);
      try {
        const text = await response.body.text();
        seen(String(response.statusCode));
        heard(response.statusCode);
        if (response.statusCode >= 200 && response.statusCode < 300) {
          // A broken HTTP/2 stream can look like an end.
          if (stream.broken() && !complete(text)) throw new Error('the connection broke in the middle of the answer');
          return text;
        }
        throw refusalToError({
          what,
          status: response.statusCode,
          text,
          retryAfter: headerOf(response, 'retry-after'),
        });
      } finally {
        stream.release();
      }
    } catch (error) {
      const classed = toApiError(what, error, signal);
      if (!(classed instanceof ApiError) || classed.status === undefined) seen('<error>');
      throw classed;
    }
  };

  const perform = async (call: Call, options: RequestOptions): Promise<string> => {
    options.signal?.throwIfAborted();
    const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
    const deadline = deadlineOf(clock, [options.signal, closing.signal], timeoutMs);
    try {
      await bucket?.take(deadline.signal);
      let refreshed = false;
      let resent = false;
      let refused = 0;
      for (let tries = 0; ; ) {
        try {
          return await attempt(call, deadline.signal);
        } catch (error) {
          if (!(error instanceof ApiError) || deadline.signal.aborted) throw error;
          // A read can be sent again where the connection broke under it: the server closes those that are idle.
          if (isUnprocessed(error.cause) && refused < longestRefusals) refused++;
          else if (!resent && (error.cause instanceof NotSentError || (call.method === 'GET' && isBreak(error))))
            resent = true;
          else if (error.code === 'unauthorized' && error.status === 401 && !refreshed && (await credentials.refresh()))
            refreshed = true;
          else if (
            error.retryAfterMs !== undefined &&
            (error.status === 429 || error.status === 503) &&
            tries < retries
          ) {
            tries++;
            await clock.sleep(Math.min(error.retryAfterMs, longestRetryMs), deadline.signal);
          } else throw error;
        }
      }
    } catch (error) {
      throw toApiError(whatOf(call), error, deadline.signal);
    } finally {
      deadline.done();
    }
  };

  const performJson = async <R>(call: Call, options: RequestOptions): Promise<R> => {
    const text = await perform(call, options);
    try {
      return JSON.parse(text) as R;
    } catch (error) {
      throw new ApiError('server', `${whatOf(call)}: the answer is no JSON: ${text.slice(0, 200)}`, { cause: error });
    }
  };

  async function* watch<T extends KubeObject>(
    resource: Resource<T>,
    options: WatchOptions,
  ): AsyncGenerator<WatchEvent<T>> {
    const query = queryOf({
      watch: true,
      ...selectionQuery(options),
      resourceVersion: options.resourceVersion,
      resourceVersionMatch: options.resourceVersionMatch,
      allowWatchBookmarks: options.allowWatchBookmarks || undefined,
      sendInitialEvents: options.sendInitialEvents || undefined,
      timeoutSeconds: options.timeoutSeconds,
    });
    const call: Call = { verb: 'watch', method: 'GET', path: collectionPath(resource, options.namespace) + query };
    const what = whatOf(call);
    const deadline = deadlineOf(clock, [options.signal, closing.signal], undefined);
    const { signal } = deadline;
    let opened: Awaited<ReturnType<typeof send>> | undefined;
    try {
      opened = await startWatch(call, signal);
      const split = createLineSplitter();
      let sliceFrom = clock.monotonicMs();
      for await (const chunk of opened.response.body as AsyncIterable<Buffer>) {
        for (const line of split(chunk)) {
          yield parseWatchLine<T>(what, line);
          if (clock.monotonicMs() - sliceFrom > sliceMs) {
            await new Promise<void>((resolve) => setImmediate(resolve));
            sliceFrom = clock.monotonicMs();
          }
        }
      }
      signal.throwIfAborted();
      if (opened.stream.broken()) throw new Error('the connection broke');
    } catch (error) {
      throw toApiError(what, error, signal);
    } finally {
      deadline.done();
      if (opened) {
        opened.response.body.on('error', () => undefined);
        opened.response.body.destroy();
        opened.stream.release();
      }
    }
  }

  const startWatch = async (call: Call, signal: AbortSignal): Promise<Awaited<ReturnType<typeof send>>> => {
    let refused = 0;
    for (let refreshed = false; ; ) {
      let opened: Awaited<ReturnType<typeof send>>;
      try {
        opened = await send('watch', call, signal);
      } catch (error) {
        if (!isUnprocessed(error) || refused++ >= longestRefusals) throw error;
        continue;
      }
      const { statusCode: status, body } = opened.response;
      heard(status);
      if (status === 200) return opened;
      const text = await body.text().finally(() => opened.stream.release());
      if (status === 401 && !refreshed && (await credentials.refresh())) {
        refreshed = true;
        continue;
      }
      throw refusalToError({ what: whatOf(call), status, text, retryAfter: headerOf(opened.response, 'retry-after') });
    }
  };

  const writeQuery = (options: WriteOptions & { force?: boolean }): string =>
    queryOf({ fieldManager: options.fieldManager, force: options.force });

  return {
    contact,
    get: (resource, name, options = {}) =>
      performJson({ verb: 'get', method: 'GET', path: objectPath(resource, name, options.subresource) }, options),

    async list<T extends KubeObject>(resource: Resource<T>, options: ListOptions = {}) {
      const { limit, resourceVersion, resourceVersionMatch } = options;
      const query = queryOf({
        ...selectionQuery(options),
        limit,
        continue: options.continue || undefined,
        resourceVersion,
        resourceVersionMatch,
      });
      const path = collectionPath(resource, options.namespace) + query;
      const list = await performJson<KubeList<T>>({ verb: 'list', method: 'GET', path }, options);
      // The items of a list come without them, those of a watch with them.
      const apiVersion = apiVersionOf(resource);
      const items = (list.items ?? []).map((item) => ({ ...item, apiVersion, kind: resource.kind }));
      return { ...list, items };
    },

    watch,

    create(resource, object, options = {}) {
      const { namespace, name } = object.metadata;
      const path =
        options.subresource === undefined
          ? collectionPath(resource, namespace)
          : objectPath(resource, { name, ...(namespace === undefined ? {} : { namespace }) }, options.subresource);
      const body = { apiVersion: apiVersionOf(resource), kind: resource.kind, ...object };
      return performJson({ verb: 'create', method: 'POST', path: path + writeQuery(options), body }, options);
    },

    update(resource, object, options = {}) {
      const path = objectPath(resource, object.metadata, options.subresource) + writeQuery(options);
      const body = { apiVersion: apiVersionOf(resource), kind: resource.kind, ...object };
      return performJson({ verb: 'update', method: 'PUT', path, body }, options);
    },

    patch(resource, name, patch, options) {
      const path = objectPath(resource, name, options.subresource) + writeQuery(options);
      const contentType = contentTypes[options.type];
      return performJson({ verb: 'patch', method: 'PATCH', path, body: patch, contentType }, options);
    },

    async delete(resource, name, options = {}) {
      const { gracePeriodSeconds, preconditions, propagationPolicy } = options;
      const body = { kind: 'DeleteOptions', apiVersion: 'v1', gracePeriodSeconds, preconditions, propagationPolicy };
      await perform({ verb: 'delete', method: 'DELETE', path: objectPath(resource, name), body }, options);
    },

    raw(method, path, options = {}) {
      const { body, accept = '*/*' } = options;
      return perform(
        { verb: method.toLowerCase(), method, path, accept, ...(body === undefined ? {} : { body }) },
        options,
      );
    },

    async close() {
      closing.abort(new Error('the client was closed'));
      await connections.close();
    },
  };
}

// undici's HTTP/2 refuses a DELETE with a plain body; one that comes in pieces it takes, though its types do not say so.
const bodyOf = (call: Call): string => {
  const text = JSON.stringify(call.body);
  return call.method === 'DELETE' ? ([Buffer.from(text)] as unknown as string) : text;
};

const complete = (text: string): boolean => {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
};

// The server ended its connection (GOAWAY) before it looked at the request: it can be sent again, whatever it is.
const isUnprocessed = (error: unknown): boolean => {
  const { code, message } = (error ?? {}) as { code?: string; message?: string };
  return (
    code === 'ERR_HTTP2_GOAWAY_SESSION' ||
    (code === 'ERR_HTTP2_STREAM_ERROR' && (message ?? '').includes('NGHTTP2_REFUSED_STREAM'))
  );
};

// undici's own errors for a connection that broke after it stood; not those of connecting.
const isBreak = (error: ApiError): boolean => {
  const code = (error.cause as { code?: string } | undefined)?.code ?? '';
  return ['UND_ERR_SOCKET', 'UND_ERR_INFO', 'UND_ERR_DESTROYED', 'ECONNRESET', 'EPIPE'].includes(code);
};

/** One signal of several and of a deadline; `done` unhooks it. */
function deadlineOf(
  clock: Clock,
  parents: readonly (AbortSignal | undefined)[],
  timeoutMs: number | undefined,
): { signal: AbortSignal; done(): void } {
  const controller = new AbortController();
  const hooks = parents.map((parent) => {
    const onAbort = (): void => controller.abort(parent?.reason);
    if (parent?.aborted) onAbort();
    parent?.addEventListener('abort', onAbort, { once: true });
    return () => parent?.removeEventListener('abort', onAbort);
  });
  const timer =
    timeoutMs === undefined
      ? undefined
      : clock.setTimer(timeoutMs, () => controller.abort(new TimeoutError('the answer', timeoutMs)));
  return {
    signal: controller.signal,
    done() {
      timer?.cancel();
      for (const unhook of hooks) unhook();
    },
  };
}
