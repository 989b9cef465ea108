// GET /containerLogs/{namespace}/{pod}/{container}: what `kubectl logs` reads. Texts and status codes are the kubelet's.
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import type { Clock } from '../../lib/clock.ts';
import { isNotFound } from '../../cri/errors.ts';
import type { Runtime } from '../../cri/runtime.ts';
import type { ContainerStatus, Pod } from '../../kube/types/pod.ts';
import { containerSpec, type PodDirectory } from './directory.ts';
import { type LogReadOptions, openContainerLog } from './log-reader.ts';
import { HttpError, type PageCall, type Route } from './routes.ts';

export interface ContainerLogsDeps {
  readonly clock: Clock;
  readonly pods: PodDirectory;
  readonly runtime: Pick<Runtime, 'inspectContainer'>;
}

export interface LogQuery {
  readonly follow: boolean;
  readonly previous: boolean;
  readonly timestamps: boolean;
  readonly sinceMs: number | undefined;
  readonly tailLines: number | undefined;
  readonly limitBytes: number | undefined;
  readonly stream: 'All' | 'Stdout' | 'Stderr';
}

const undecodable = (): HttpError => new HttpError(400, '{"message": "Unable to decode query."}');
const invalid = (): HttpError => new HttpError(422, '{"message": "Invalid request."}');

function flag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name);
  if (value === null) return false;
  // As Go's conversion of query parameters: present is true, unless it says otherwise.
  return value !== 'false' && value !== '0';
}

function integer(query: URLSearchParams, name: string): number | undefined {
  const value = query.get(name);
  if (value === null) return undefined;
  if (!/^[+-]?\d{1,18}$/.test(value)) throw undecodable();
  return Number(value);
}

/** Throws an HttpError (400, 422) where the kubelet does. */
export function parseLogQuery(query: URLSearchParams, nowMs: number): LogQuery {
  const tail = query.get('tail');
  const tailLines = tail === 'all' ? undefined : integer(query, tail === null || tail === '' ? 'tailLines' : 'tail');
  const limitBytes = integer(query, 'limitBytes');
  const sinceSeconds = integer(query, 'sinceSeconds');
  const sinceTime = query.get('sinceTime') || undefined;
  const sinceTimeMs = sinceTime === undefined ? undefined : Date.parse(sinceTime);
  if (sinceTimeMs !== undefined && Number.isNaN(sinceTimeMs)) throw undecodable();
  if ((tailLines ?? 0) < 0 || (limitBytes ?? 1) < 1) throw invalid();
  if (sinceSeconds !== undefined && (sinceTime !== undefined || sinceSeconds < 1)) throw invalid();
  const stream = query.get('stream') ?? 'All';
  if (stream !== 'All' && stream !== 'Stdout' && stream !== 'Stderr') throw invalid();
  if (stream !== 'All' && tailLines !== undefined) throw invalid();
  return {
    follow: flag(query, 'follow'),
    previous: flag(query, 'previous'),
    timestamps: flag(query, 'timestamps'),
    sinceMs: sinceSeconds === undefined ? sinceTimeMs : nowMs - sinceSeconds * 1000,
    tailLines,
    limitBytes,
    stream,
  };
}

/** The container whose log is meant, by the pod's status, as `TYPE://ID`; else why there is none, in the kubelet's words. */
export function containerOfLog(
  pod: Pod,
  name: string,
  previous: boolean,
): { readonly id: string } | { readonly why: string } {
  const { status } = pod;
  const what = `container ${JSON.stringify(name)} in pod ${JSON.stringify(pod.metadata.name)}`;
  const statuses: ContainerStatus[] = [
    ...(status?.containerStatuses ?? []),
    ...(status?.initContainerStatuses ?? []),
    ...(status?.ephemeralContainerStatuses ?? []),
  ];
  const found = statuses.find((candidate) => candidate.name === name);
  if (!found) return { why: `${what} is not available` };
  const last = found.lastState?.terminated;
  const { running, terminated, waiting } = found.state ?? {};
  if (previous) return last?.containerID ? { id: last.containerID } : { why: `previous terminated ${what} not found` };
  if (running) return { id: found.containerID ?? '' };
  if (terminated) {
    const id = terminated.containerID || last?.containerID;
    return id ? { id } : { why: `${what} is terminated` };
  }
  if (last) return last.containerID ? { id: last.containerID } : { why: `${what} is terminated` };
  if (!waiting) return { why: `${what} is waiting to start - no logs yet` };
  const reasons: Readonly<Record<string, string>> = {
    ErrImagePull: "image can't be pulled",
    ImagePullBackOff: 'trying and failing to pull image',
  };
  return { why: `${what} is waiting to start: ${reasons[waiting.reason ?? ''] ?? waiting.reason ?? ''}` };
}

/** Writes the chunks at the client's pace; ends early when it goes away. */
export async function sendChunks(
  response: ServerResponse,
  chunks: AsyncIterable<Buffer>,
  signal: AbortSignal,
): Promise<void> {
  for await (const chunk of chunks) {
    if (!response.write(chunk)) await once(response, 'drain', { signal });
  }
  response.end();
}

export function containerLogsRoute(deps: ContainerLogsDeps): Route {
  const { clock, pods, runtime } = deps;

  const logPathOf = async (pod: Pod, name: string, previous: boolean, signal: AbortSignal) => {
    const meant = containerOfLog(pod, name, previous);
    if ('why' in meant) throw new HttpError(400, meant.why);
    const id = meant.id.replace(/^[^:]*:\/\//, '');
    const uid = pod.metadata.uid ?? '';
    for (const before of [previous, !previous]) {
      const known = pods.container(uid, name, { previous: before });
      if (known?.id === id && known.logPath) return { id, path: known.logPath };
    }
    try {
      return { id, path: (await runtime.inspectContainer(id, { signal })).logPath };
    } catch (error) {
      if (isNotFound(error)) throw new HttpError(400, `unable to retrieve container logs for ${meant.id}`);
      throw error;
    }
  };

  const serve = async ({ at, params, response, signal }: PageCall): Promise<void> => {
    const { namespace = '', pod: podName = '', container: name = '' } = params;
    const query = parseLogQuery(at.query, clock.now());
    const pod = pods.byName(namespace, podName);
    if (!pod) throw new HttpError(404, `pod ${JSON.stringify(podName)} does not exist`);
    if (!containerSpec(pod, name))
      throw new HttpError(404, `container ${JSON.stringify(name)} not found in pod ${JSON.stringify(podName)}`);
    const { id, path } = await logPathOf(pod, name, query.previous, signal);
    const options: LogReadOptions = {
      ...query,
      path,
      ended: query.follow ? (until) => pods.ended(id, until) : undefined,
    };
    const chunks = await openContainerLog(options, signal).catch((error: unknown) => {
      throw new HttpError(400, `failed to open log file ${JSON.stringify(path)}: ${(error as Error).message}`);
    });
    response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' });
    // A follower sees that it is connected before the first line comes.
    response.flushHeaders();
    await sendChunks(response, chunks, signal);
  };

  return { kind: 'page', methods: ['GET'], pattern: '/containerLogs/{namespace}/{pod}/{container}', serve };
}
