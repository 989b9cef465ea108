// log, exec, attach and port-forward: passed on to the node's own server, as its client with the API server's certificate.
import type { IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import { connect } from 'node:tls';
import type { Node } from '../kube/types/core.ts';
import type { Pod } from '../kube/types/pod.ts';
import { badRequest, Failure, notFound } from './failure.ts';
import { kindByName } from './kinds.ts';
import type { Registry } from './registry.ts';
import { type ApiRequest, isTrue, type Target } from './request.ts';
import type { OpenStream } from './watch.ts';

export interface NodeLinkDeps {
  readonly registry: Registry;
  readonly certPem: string;
  readonly keyPem: string;
}

const connectTimeoutMs = 10_000;

function endpointOf({ registry, certPem, keyPem }: NodeLinkDeps, pod: Pod) {
  const { nodeName } = pod.spec;
  if (!nodeName) throw badRequest(`pod ${pod.metadata.name} does not have a host assigned`);
  const node = registry.find<Node>('nodes', undefined, nodeName);
  if (!node) throw notFound(kindByName('nodes').resource, nodeName);
  const { addresses = [], daemonEndpoints } = node.status ?? {};
  const types = ['InternalIP', 'ExternalIP', 'Hostname'];
  const host = types.map((type) => addresses.find((one) => one.type === type)?.address).find(Boolean);
  const port = daemonEndpoints?.kubeletEndpoint?.Port;
  if (!host || !port)
    throw new Failure(503, 'ServiceUnavailable', `node ${nodeName} does not say where its server listens`);
  return { host, port, cert: certPem, key: keyPem, rejectUnauthorized: false, timeout: connectTimeoutMs };
}

type Endpoint = ReturnType<typeof endpointOf>;

const podOf = ({ registry }: NodeLinkDeps, { kind, namespace, name }: Target): Pod =>
  registry.read(kind, namespace, name!) as unknown as Pod;

function containerOf({ metadata, spec }: Pod, asked: string | null): string {
  const { containers, initContainers = [], ephemeralContainers = [] } = spec;
  const names = [...containers, ...initContainers, ...ephemeralContainers].map(({ name }) => name);
  if (asked && !names.includes(asked)) throw badRequest(`container ${asked} is not valid for pod ${metadata.name}`);
  if (!asked && containers.length > 1)
    throw badRequest(
      `a container name must be specified for pod ${metadata.name}, choose one of: [${names.join(' ')}]`,
    );
  return asked || containers[0]!.name;
}

const logOptions = 'follow previous sinceSeconds sinceTime timestamps tailLines limitBytes stream'.split(' ');

/** GET pods/NAME/log. Throws where the node cannot be asked or refuses. */
export async function streamLog(
  deps: NodeLinkDeps,
  request: ApiRequest,
  target: Target,
  open: OpenStream,
): Promise<undefined> {
  const pod = podOf(deps, target);
  const container = containerOf(pod, request.query.get('container'));
  const query = new URLSearchParams([...request.query].filter(([name]) => logOptions.includes(name)));
  const path = `/containerLogs/${target.namespace}/${target.name}/${container}?${query}`;
  const answer = await get(endpointOf(deps, pod), path);
  if (answer.statusCode !== 200) throw await refusalOf(answer);
  const sink = open('text/plain');
  sink.onClose(() => answer.destroy());
  answer.setEncoding('utf8');
  answer.on('data', (chunk: string) => sink.write(chunk));
  answer.on('close', () => sink.end());
  answer.on('error', () => sink.end());
}

const get = (to: Endpoint, path: string): Promise<IncomingMessage> =>
  new Promise((resolve, reject) => {
    const outgoing = httpsRequest({ ...to, path, agent: false }, (answer) => {
      outgoing.setTimeout(0);
      resolve(answer);
    });
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer in ${connectTimeoutMs} ms`)));
    outgoing.on('error', (error) => reject(unreachable(to, path, error)));
    outgoing.end();
  });

const unreachable = ({ host, port }: Endpoint, path: string, error: Error): Failure =>
  new Failure(500, 'InternalError', `Get "https://${host}:${port}${path}": ${error.message}`);

const reasons: Readonly<Record<number, string>> = { 400: 'BadRequest', 403: 'Forbidden', 404: 'NotFound' };

async function refusalOf(answer: IncomingMessage): Promise<Failure> {
  const said = (await text(answer)).trim();
  const code = answer.statusCode ?? 500;
  return new Failure(code, reasons[code] ?? 'InternalError', said || `the node answered ${code}`);
}

const streamOptions = { stdin: 'input', stdout: 'output', stderr: 'error', tty: 'tty' } as const;

/** The node's path for an upgrade of exec, attach or port-forward. */
function pathOf({ query }: ApiRequest, { namespace, name, subresource }: Target, pod: Pod): string {
  if (subresource === 'portforward') return `/portForward/${namespace}/${name}`;
  const asked = new URLSearchParams();
  for (const [from, to] of Object.entries(streamOptions)) if (isTrue(query.get(from))) asked.append(to, '1');
  for (const command of query.getAll('command')) asked.append('command', command);
  return `/${subresource}/${namespace}/${name}/${containerOf(pod, query.get('container'))}?${asked}`;
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
  const pod = podOf(deps, target);
  const path = pathOf(request, target, pod);
  const to = endpointOf(deps, pod);
  const node = connect({ ...to, ALPNProtocols: ['http/1.1'] });
  await new Promise<void>((resolve, reject) => {
    node.once('secureConnect', resolve);
    node.once('timeout', () => node.destroy(new Error(`no answer in ${connectTimeoutMs} ms`)));
    node.once('error', (error) => reject(unreachable(to, path, error)));
  });
  node.setTimeout(0);
  node.setNoDelay(true);
  const lines = [`POST ${path} HTTP/1.1`, `host: ${to.host.includes(':') ? `[${to.host}]` : to.host}:${to.port}`];
  for (let at = 0; at + 1 < message.rawHeaders.length; at += 2) {
    const name = message.rawHeaders[at]!.toLowerCase();
    if (passedOn.includes(name)) lines.push(`${name}: ${message.rawHeaders[at + 1]}`);
  }
  for (const [one, other] of [
    [node, socket],
    [socket, node],
  ] as const) {
    one.on('error', () => other.destroy());
    one.on('close', () => other.destroy());
  }
  node.write(`${lines.join('\r\n')}\r\n\r\n`);
  if (head.length > 0) node.write(head);
  socket.pipe(node);
  node.pipe(socket);
}
