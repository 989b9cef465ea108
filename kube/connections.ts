// The client's connections. Calls and watches never share one, so that a call never waits for a watch's stream to end; where a
// connection's streams are used up another is opened. Each is one undici Client that connects once: after a GOAWAY or a break it is thrown
// away, as a Client that reconnects by itself may send a request twice.
//
//   opening ──▶ open ──▶ (retired: its streams end, no new ones) ──▶ closed
//                 └────────── broken, silent too long ────────────────▲
import type { ClientHttp2Session } from 'node:http2';
import type { TLSSocket } from 'node:tls';
import { buildConnector, Client } from 'undici';
import { abandonOn } from '../lib/abort.ts';
import type { Clock } from '../lib/clock.ts';

export type Lane = 'call' | 'watch';

export interface TlsMaterial {
  readonly ca: string | undefined;
  readonly cert: string | undefined;
  readonly key: string | undefined;
}

export interface ConnectionsDeps {
  readonly clock: Clock;
  /** What a new connection authenticates itself and the server with. */
  tls(signal: AbortSignal | undefined): Promise<TlsMaterial>;
}

export interface ConnectionsOptions {
  /** `https://host:port` or, for tests, `http://`. */
  readonly origin: string;
  readonly insecureSkipTlsVerify: boolean;
  readonly serverName: string | undefined;
  /** An API server allows 100 or more; the default of 80 keeps away from its limit, where streams would queue. */
  readonly streamsPerConnection?: number;
  /** How often a connection is asked whether it is alive. Default 10,000. */
  readonly pingIntervalMs?: number;
  /** How long a connection may be silent. Default 30,000. */
  readonly silenceMs?: number;
  /** Default 10,000. */
  readonly connectTimeoutMs?: number;
}

/** The connection was gone before the request was sent: whatever it is, it can be sent again. */
export class NotSentError extends Error {
  override name = 'NotSentError';
}

/** One stream of a connection, to send one request on. */
export interface Stream {
  readonly client: Client;
  /** True once the connection is known to be broken. */
  broken(): boolean;
  /** Gives the stream back; call it once. */
  release(): void;
}

export interface Connections {
  /** A stream that can be used at once. Rejects with the connection's error, or the signal's reason. */
  acquire(lane: Lane, signal: AbortSignal | undefined): Promise<Stream>;
  /** New streams use new connections; calls under way end, watches break (their owners come back by themselves). */
  retire(reason: string): void;
  /** How many are open, for metrics and tests. */
  count(lane: Lane): number;
  close(): Promise<void>;
}

interface Connection {
  readonly lane: Lane;
  readonly client: Client;
  readonly limit: number;
  streams: number;
  retired: boolean;
  dead: boolean;
}

export function createConnections(deps: ConnectionsDeps, options: ConnectionsOptions): Connections {
  const { clock } = deps;
  const { streamsPerConnection = 80, pingIntervalMs = 10_000, silenceMs = 30_000, connectTimeoutMs = 10_000 } = options;
  const all = new Set<Connection>();
  const opening: Record<Lane, Promise<Connection> | undefined> = { call: undefined, watch: undefined };
  let generation = 0;
  let closed = false;

  const kill = (connection: Connection, why: Error): void => {
    if (connection.dead) return;
    connection.dead = true;
    all.delete(connection);
    connection.client.destroy(why).catch(() => undefined);
  };

  const open = async (lane: Lane): Promise<Connection> => {
    const born = generation;
    const socket = await connect(await deps.tls(undefined), options, connectTimeoutMs);
    if (closed) {
      socket.destroy();
      throw new Error('the client is closed');
    }
    const h2 = socket.alpnProtocol === 'h2';
    let used = false;
    const client = new Client(options.origin, {
      allowH2: true,
      // Without HTTP/2 a connection serves one request at a time.
      pipelining: h2 ? 10_000 : 1,
      maxConcurrentStreams: streamsPerConnection,
      pingInterval: pingIntervalMs,
      headersTimeout: 0,
      bodyTimeout: 0,
      keepAliveTimeout: 60_000,
      connect: (_, callback) => {
        const again = used;
        used = true;
        // Not within this call: undici would not notice that it is connected.
        queueMicrotask(() =>
          again ? callback(new NotSentError('the connection was closed'), null) : callback(null, socket),
        );
      },
    });
    const connection: Connection = {
      lane,
      client,
      limit: h2 ? streamsPerConnection : 1,
      streams: 0,
      retired: born !== generation,
      dead: false,
    };
    all.add(connection);
    client.on('connect', () =>
      onGoaway(socket, () => {
        connection.retired = true;
        dropIfIdle(connection);
      }),
    );
    client.on('disconnect', (_origin, _targets, error) => kill(connection, error));
    client.on('connectionError', (_origin, _targets, error) => kill(connection, error));
    socket.once('close', () => kill(connection, new Error('the server closed the connection')));
    if (h2) guard(connection);
    return connection;
  };

  // A machine that is gone says nothing: pings that stay unanswered are how that is seen.
  const guard = (connection: Connection): void => {
    let heardAt = clock.monotonicMs();
    // undici emits `ping` for each answer; its types do not know of it.
    (connection.client as unknown as NodeJS.EventEmitter).on('ping', () => {
      heardAt = clock.monotonicMs();
    });
    const check = (lastCheckAt: number): void => {
      if (connection.dead) return;
      const now = clock.monotonicMs();
      // Where this process itself slept, silence means nothing.
      if (now - lastCheckAt > 3 * pingIntervalMs) heardAt = now;
      // Without a request there is no session yet and nobody pings.
      if (connection.streams === 0 && now - heardAt > silenceMs && !connection.client.stats.connected) heardAt = now;
      if (now - heardAt > silenceMs)
        kill(connection, new Error(`the server has not answered for ${Math.round((now - heardAt) / 1000)} s`));
      else clock.setTimer(pingIntervalMs / 2, () => check(now));
    };
    check(heardAt);
  };

  const dropIfIdle = (connection: Connection): void => {
    if (connection.streams > 0 || connection.dead) return;
    const others = [...all].some((other) => other !== connection && other.lane === connection.lane && !other.retired);
    if (connection.retired || (others && connection.limit > 1)) kill(connection, new Error('no longer needed'));
  };

  const streamOf = (connection: Connection): Stream => {
    connection.streams++;
    let released = false;
    return {
      client: connection.client,
      broken: () => connection.dead,
      release() {
        if (released) return;
        released = true;
        connection.streams--;
        dropIfIdle(connection);
      },
    };
  };

  const free = (lane: Lane): Connection | undefined => {
    for (const connection of all)
      if (connection.lane === lane && !connection.retired && !connection.dead && connection.streams < connection.limit)
        return connection;
    return undefined;
  };

  return {
    async acquire(lane, signal) {
      for (;;) {
        signal?.throwIfAborted();
        if (closed) throw new Error('the client is closed');
        const connection = free(lane);
        if (connection) return streamOf(connection);
        opening[lane] ??= open(lane).finally(() => {
          opening[lane] = undefined;
        });
        await (signal ? abandonOn(opening[lane], signal) : opening[lane]);
      }
    },
    retire(reason) {
      generation++;
      for (const connection of all) {
        connection.retired = true;
        if (connection.lane === 'watch') kill(connection, new Error(reason));
        else dropIfIdle(connection);
      }
    },
    count: (lane) => [...all].filter((connection) => connection.lane === lane).length,
    async close() {
      closed = true;
      for (const connection of [...all]) kill(connection, new Error('the client is closed'));
      await Promise.allSettled([opening.call, opening.watch]);
    },
  };
}

/**
 * The server asks for new requests to go elsewhere, and answers those it has: an API server does so with every 401, and with `--goaway-chance` now and
 * then. undici would break the connection and with it the answers; Node itself ends it well, so undici's listener is taken away. (It has no
 * other door to its session than a symbol on the socket; where that is not found, undici's way is what happens.)
 */
function onGoaway(socket: TLSSocket, listener: () => void): void {
  const symbol = Object.getOwnPropertySymbols(socket).find(({ description }) => description === 'http2Session');
  const session = symbol && (socket as unknown as Record<symbol, ClientHttp2Session | null>)[symbol];
  if (!session) return;
  session.removeAllListeners('goaway');
  session.on('goaway', listener);
}

function connect(tls: TlsMaterial, options: ConnectionsOptions, timeoutMs: number): Promise<TLSSocket> {
  const url = new URL(options.origin);
  const connector = buildConnector({
    allowH2: true,
    timeout: timeoutMs,
    keepAlive: true,
    keepAliveInitialDelay: 15_000,
    rejectUnauthorized: !options.insecureSkipTlsVerify,
    ...(options.serverName === undefined ? {} : { servername: options.serverName }),
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(tls.cert === undefined ? {} : { cert: tls.cert }),
    ...(tls.key === undefined ? {} : { key: tls.key }),
  });
  return new Promise((resolve, reject) => {
    connector(
      {
        hostname: url.hostname.replace(/^\[(.*)\]$/, '$1'),
        host: url.host,
        protocol: url.protocol,
        port: url.port || (url.protocol === 'https:' ? '443' : '80'),
      },
      (error, socket) => (socket ? resolve(socket as TLSSocket) : reject(error ?? new Error('no connection'))),
    );
  });
}
