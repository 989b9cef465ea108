// log, exec, attach and port-forward: passed on to the node's own server, as its client with the API server's certificate.
import type { IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Duplex } from 'node:stream';
import { connect } from 'node:tls';
import type { Node } from '../kube/types/core.ts';
import type { Pod } from '../kube/types/pod.ts';
import { badRequest, Failure, notFound } from './failure.ts';
import { resources } from '../kube/resources.ts';
import type { ApiRequest, Target } from './request.ts';
import type { Sink } from './watch.ts';

export interface NodeLinkDeps {
  pod(namespace: string, name: string): Pod;
  node(name: string): Node | undefined;
  readonly certPem: string;
  readonly keyPem: string;
}

interface Endpoint {
  readonly host: string;
  readonly port: number;
}

const connectTimeoutMs = 10_000;

function endpointOf(deps: NodeLinkDeps, pod: Pod): Endpoint {
  const { nodeName } = pod.spec;
  if (!nodeName) throw badRequest(`pod ${pod.metadata.name} does not have a host assigned`);
  const node = deps.node(nodeName);
  if (!node) throw notFound(resources.nodes, nodeName);
  const addresses = node.status?.addresses ?? [];
  const host = ['InternalIP', 'ExternalIP', 'Hostname']
    .map((type) => addresses.find((one) => one.type === type)?.address)
    .find(Boolean);
  const port = node.status?.daemonEndpoints?.kubeletEndpoint?.Port;
  if (!host || !port)
    throw new Failure(503, 'ServiceUnavailable', `node ${nodeName} does not say where its server listens`);
  return { host, port };
}

function containerOf(pod: Pod, asked: string | null): string {
  const { containers, initContainers = [], ephemeralContainers = [] } = pod.spec;
  const all = [...containers, ...initContainers, ...ephemeralContainers].map(({ name }) => name);
  if (asked) {
    if (all.includes(asked)) return asked;
    throw badRequest(`container ${asked} is not valid for pod ${pod.metadata.name}`);
  }
  if (containers.length === 1) return containers[0]!.name;
  const inits =
    initContainers.length > 0
      ? ` or one of the init containers: [${initContainers.map(({ name }) => name).join(' ')}]`
      : '';
  throw badRequest(
    `a container name must be specified for pod ${pod.metadata.name}, choose one of: [${containers.map(({ name }) => name).join(' ')}]${inits}`,
  );
}

const logOptions = [
  'follow',
  'previous',
  'sinceSeconds',
  'sinceTime',
  'timestamps',
  'tailLines',
  'limitBytes',
  'stream',
];

/** GET pods/NAME/log. Throws where the node cannot be asked or refuses. */
export async function streamLog(
  deps: NodeLinkDeps,
  request: ApiRequest,
  target: Target,
  open: (contentType: string) => Sink,
): Promise<void> {
  const pod = deps.pod(target.namespace!, target.name!);
  const container = containerOf(pod, request.query.get('container'));
  const to = endpointOf(deps, pod);
  const query = new URLSearchParams([...request.query].filter(([name]) => logOptions.includes(name)));
  const path = `/containerLogs/${target.namespace}/${target.name}/${container}?${query}`;
  const answer = await get(deps, to, path);
  if (answer.statusCode !== 200) throw await refusalOf(answer);
  const sink = open('text/plain');
  sink.onClose(() => answer.destroy());
  answer.setEncoding('utf8');
  answer.on('data', (chunk: string) => sink.write(chunk));
  answer.on('close', () => sink.end());
  answer.on('error', () => sink.end());
}

const get = (deps: NodeLinkDeps, { host, port }: Endpoint, path: string): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const options = {
      host,
      port,
      path,
      cert: deps.certPem,
      key: deps.keyPem,
      rejectUnauthorized: false,
      agent: false,
      timeout: connectTimeoutMs,
    };
    const outgoing = httpsRequest(options, (answer) => {
      outgoing.setTimeout(0);
      resolve(answer);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer in ${connectTimeoutMs} ms`)));
    outgoing.on('error', (error) => reject(unreachable(host, port, path, error)));
    outgoing.end();
  });

const unreachable = (host: string, port: number, path: string, error: Error): Failure =>
  new Failure(500, 'InternalError', `Get "https://${host}:${port}${path}": ${error.message}`);

async function refusalOf(answer: IncomingMessage): Promise<Failure> {
  const chunks: Buffer[] = [];
  for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk);
  const text = Buffer.concat(chunks).toString('utf8').trim();
  const code = answer.statusCode ?? 500;
  const reasons: Record<number, string> = { 400: 'BadRequest', 401: 'Unauthorized', 403: 'Forbidden', 404: 'NotFound' };
  return new Failure(code, reasons[code] ?? 'InternalError', text || `the node answered ${code}`);
}

/** The node's path for an upgrade of exec, attach or port-forward. */
function pathOf(request: ApiRequest, target: Target, pod: Pod): string {
  const { namespace, name, subresource } = target;
  if (subresource === 'portforward') return `/portForward/${namespace}/${name}`;
  const query = new URLSearchParams();
  for (const [from, to] of [
    ['stdin', 'input'],
    ['stdout', 'output'],
    ['stderr', 'error'],
    ['tty', 'tty'],
  ] as const)
    if (request.query.get(from) === 'true' || request.query.get(from) === '1') query.append(to, '1');
  for (const command of request.query.getAll('command')) query.append('command', command);
  return `/${subresource}/${namespace}/${name}/${containerOf(pod, request.query.get('container'))}?${query}`;
}

// WebSocket upgrades are refused, on which kubectl falls back to SPDY; that goes through byte for byte.
const passedOn = ['upgrade', 'connection', 'x-stream-protocol-version', 'user-agent', 'content-length'];

export async function spliceUpgrade(
  deps: NodeLinkDeps,
  request: ApiRequest,
  target: Target,
  message: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  if (!['exec', 'attach', 'portforward'].includes(target.subresource ?? ''))
    throw badRequest('this path cannot be upgraded');
  const protocol = message.headers.upgrade ?? '';
  if (!/^spdy\/3\.1$/i.test(protocol)) throw badRequest(`cannot upgrade to ${protocol}: this server speaks SPDY/3.1`);
  const pod = deps.pod(target.namespace!, target.name!);
  const path = pathOf(request, target, pod);
  const { host, port } = endpointOf(deps, pod);
  const node = connect({
    host,
    port,
    cert: deps.certPem,
    key: deps.keyPem,
    rejectUnauthorized: false,
    ALPNProtocols: ['http/1.1'],
    timeout: connectTimeoutMs,
  });
  await new Promise<void>((resolve, reject) => {
    node.once('secureConnect', resolve);
    node.once('timeout', () => node.destroy(new Error(`no answer in ${connectTimeoutMs} ms`)));
    node.once('error', (error) => reject(unreachable(host, port, path, error)));
  });
  node.setTimeout(0);
  node.setNoDelay(true);
  const lines = [`POST ${path} HTTP/1.1`, `host: ${host.includes(':') ? `[${host}]` : host}:${port}`];
  for (let at = 0; at + 1 < message.rawHeaders.length; at += 2) {
    const name = message.rawHeaders[at]!.toLowerCase();
    if (passedOn.includes(name)) lines.push(`${name}: ${message.rawHeaders[at + 1]}`);
  }
  node.on('error', () => socket.destroy());
  socket.on('error', () => node.destroy());
  node.on('close', () => socket.destroy());
  socket.on('close', () => node.destroy());
  node.write(`${lines.join('\r\n')}\r\n\r\n`);
  if (head.length > 0) node.write(head);
  socket.pipe(node);
  node.pipe(socket);
}
