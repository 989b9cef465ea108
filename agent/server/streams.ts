// /exec, /attach and /portForward: finds what is meant, asks the runtime for a stream, and joins the two. A CRI runtime gives a URL and the
// connection is spliced to it; a runtime that hands over the stream itself (Docker) is spoken for by us.
import { RuntimeError } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { Pod } from '../../kube/types/pod.ts';
import { splice, SpliceError } from '../../lib/splice.ts';
import type { KubeletMetrics } from './kubelet-metrics.ts';
import { containerSpec, type KnownContainer, type PodDirectory } from './directory.ts';
import { HttpError, type Route, type UpgradeCall } from './routes.ts';
import { spdyOpener } from './spdy-opener.ts';
import { isWebSocket } from './spdy-upgrade.ts';
import { serveRemoteCommand } from './stream-command.ts';
import { serveForward } from './stream-forward.ts';
import { isTunnel, tunnelTo } from './tunnel.ts';
import { canCloseStdin } from './web-socket-command.ts';

export interface StreamsDeps {
  readonly pods: PodDirectory;
  readonly runtime: Pick<Runtime, 'exec' | 'attach' | 'portForward'>;
  readonly counts?: Pick<KubeletMetrics, 'webSocketStreams'> | undefined;
}

export interface StreamsOptions {
  /** `streamingConnectionIdleTimeout`. Default 4 hours. */
  readonly idleMs: number;
}

export interface CommandQuery {
  readonly stdin: boolean;
  readonly stdout: boolean;
  readonly stderr: boolean;
  readonly tty: boolean;
}

/** Throws an HttpError (400) where no stream is asked for. A terminal has one output: stderr comes with stdout. */
export function parseCommandQuery(query: URLSearchParams): CommandQuery {
  const on = (name: string): boolean => query.get(name) === '1' || query.get(name) === 'true';
  const tty = on('tty');
  const asked = { stdin: on('input'), stdout: on('output'), stderr: on('error') && !tty, tty };
  if (!asked.stdin && !asked.stdout && !asked.stderr)
    throw new HttpError(400, 'you must specify at least 1 of stdin, stdout, stderr');
  return asked;
}

/** The runtime's refusal as the kubelet passes it on. */
export function refusalOfRuntime(error: unknown): HttpError {
  if (error instanceof HttpError) return error;
  if (!(error instanceof RuntimeError)) throw error;
  if (error.code === 'not-found') return new HttpError(404, error.detail, {}, error);
  if (error.code === 'resource-exhausted') return new HttpError(429, error.detail, { 'retry-after': '5' }, error);
  return new HttpError(500, error.detail, {}, error);
}

/** The refusal of the runtime's streaming server as the client gets it. */
async function atRuntime<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw error instanceof SpliceError ? new HttpError(error.status, error.message) : error;
  }
}

const toRuntime = (url: string, call: UpgradeCall, { idleMs }: StreamsOptions): Promise<void> =>
  atRuntime(splice(url, call, { idleMs, server: "the runtime's streaming server" }));

export function findPod(pods: PodDirectory, params: Readonly<Record<string, string>>): Pod {
  const pod = pods.byName(params.namespace ?? '', params.pod ?? '');
  if (!pod) throw new HttpError(404, 'pod does not exist');
  if (params.uid !== undefined && params.uid !== pod.metadata.uid) throw new HttpError(404, 'pod not found');
  return pod;
}

/** The running container that is meant. */
export function findContainer(pods: PodDirectory, pod: Pod, name: string): KnownContainer {
  const known = containerSpec(pod, name) && pods.container(pod.metadata.uid ?? '', name);
  if (!known) throw new HttpError(500, `container not found (${JSON.stringify(name)})`);
  return known;
}

export function streamRoutes(deps: StreamsDeps, options: StreamsOptions): Route[] {
  const { pods, runtime } = deps;

  const { counts } = deps;
  const closesStdin = ({ request }: UpgradeCall): boolean => isWebSocket(request) && canCloseStdin(request);
  // Byte for byte where the runtime understands the client; one that wants to close stdin over WebSocket is translated for.
  const atUrl = async (url: string, what: 'exec' | 'attach', query: CommandQuery, call: UpgradeCall): Promise<void> => {
    if (!closesStdin(call)) return await toRuntime(url, call, options);
    await serveRemoteCommand(spdyOpener(url, query), what, query, call);
  };

  const exec = async (call: UpgradeCall): Promise<void> => {
    const query = parseCommandQuery(call.at.query);
    const pod = findPod(pods, call.params);
    const container = findContainer(pods, pod, call.params.container ?? '');
    const command = call.at.query.getAll('command');
    try {
      const endpoint = await runtime.exec({ containerId: container.id, command, ...query }, { signal: call.signal });
      if (closesStdin(call)) counts?.webSocketStreams.inc({ subresource: 'exec' });
      if (endpoint.kind === 'url') await atUrl(endpoint.url, 'exec', query, call);
      else await serveRemoteCommand(endpoint.open, 'exec', query, call);
    } catch (error) {
      throw refusalOfRuntime(error);
    }
  };

  const attach = async (call: UpgradeCall): Promise<void> => {
    const asked = parseCommandQuery(call.at.query);
    const pod = findPod(pods, call.params);
    const name = call.params.container ?? '';
    const container = findContainer(pods, pod, name);
    // Whether there is a terminal was settled when the container was made, not now.
    const tty = containerSpec(pod, name)?.tty === true;
    const query = { ...asked, tty, stderr: asked.stderr && !tty };
    try {
      const endpoint = await runtime.attach({ containerId: container.id, ...query }, { signal: call.signal });
      if (closesStdin(call)) counts?.webSocketStreams.inc({ subresource: 'attach' });
      if (endpoint.kind === 'url') await atUrl(endpoint.url, 'attach', query, call);
      else await serveRemoteCommand(endpoint.open, 'attach', query, call);
    } catch (error) {
      throw refusalOfRuntime(error);
    }
  };

  const portForward = async (call: UpgradeCall): Promise<void> => {
    const pod = findPod(pods, call.params);
    const tunnelled = isWebSocket(call.request) && isTunnel(call.request);
    const ports = parsePorts(call.at.query, isWebSocket(call.request) && !tunnelled);
    const sandbox = pods.sandbox(pod.metadata.uid ?? '');
    if (!sandbox) throw new HttpError(500, `pod not found ("${pod.metadata.name}_${pod.metadata.namespace}")`);
    try {
      const endpoint = await runtime.portForward(sandbox.id, ports, { signal: call.signal });
      if (tunnelled) counts?.webSocketStreams.inc({ subresource: 'portforward' });
      if (endpoint.kind === 'duplex') await serveForward(endpoint.open, ports, call);
      else if (tunnelled) await atRuntime(tunnelTo(endpoint.url, call, options.idleMs));
      else await toRuntime(endpoint.url, call, options);
    } catch (error) {
      throw refusalOfRuntime(error);
    }
  };

  const methods = ['GET', 'POST'];
  const at = (pattern: string, serve: (call: UpgradeCall) => Promise<void>): Route => ({
    kind: 'stream',
    methods,
    pattern,
    serve,
  });
  return [
    at('/exec/{namespace}/{pod}/{container}', exec),
    at('/exec/{namespace}/{pod}/{uid}/{container}', exec),
    at('/attach/{namespace}/{pod}/{container}', attach),
    at('/attach/{namespace}/{pod}/{uid}/{container}', attach),
    at('/portForward/{namespace}/{pod}', portForward),
    at('/portForward/{namespace}/{pod}/{uid}', portForward),
  ];
}

/** The ports a WebSocket client names in the query; a SPDY client names them stream by stream. Throws an HttpError (400). */
export function parsePorts(query: URLSearchParams, webSocket: boolean): number[] {
  if (!webSocket) return [];
  const values = query.getAll('port').filter((value) => value !== '');
  if (values.length === 0) throw new HttpError(400, 'query parameter "port" is required');
  return values.flatMap((value) =>
    value.split(',').map((text) => {
      const port = Number(text);
      if (!/^\d{1,5}$/.test(text) || port < 1 || port > 65_535)
        throw new HttpError(400, `unable to parse ${JSON.stringify(text)} as a port`);
      return port;
    }),
  );
}
