// log, exec, attach and port-forward: passed on to the node's own server, as its client with the API server's certificate.
import type { IncomingMessage } from 'node:http';
import { request as httpsRequest } from 'node:https';
import type { Duplex } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { Node } from '../kube/types/core.ts';
import type { Pod } from '../kube/types/pod.ts';
import type { KeyPair } from '../lib/certificates.ts';
import { splice, SpliceError } from '../lib/splice.ts';
import { badRequest, Failure, notFound } from './failure.ts';
import { kindByName } from './kinds.ts';
import type { Registry } from './registry.ts';
import { type ApiRequest, isTrue, type Target } from './request.ts';
import type { OpenStream } from './watch.ts';

export interface NodeLinkDeps {
  readonly registry: Registry;
  /** Who we are to the node. */
  readonly identity: KeyPair;
}

const connectTimeoutMs = 10_000;

/** Of the node's server. */
function originOf(registry: Registry, { metadata, spec: { nodeName } }: Pod): string {
  if (!nodeName) throw badRequest(`pod ${metadata.name} does not have a host assigned`);
  const node = registry.find<Node>('nodes', undefined, nodeName);
  if (!node) throw notFound(kindByName('nodes').resource, nodeName);
  const { addresses = [], daemonEndpoints } = node.status ?? {};
  const host = addresses.find(({ type }) => type === 'InternalIP')?.address;
  const port = daemonEndpoints?.kubeletEndpoint?.Port;
  if (!host || !port)
    throw new Failure(503, 'ServiceUnavailable', `node ${nodeName} does not say where its server listens`);
  return `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

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
const streamOptions = { stdin: 'input', stdout: 'output', stderr: 'error', tty: 'tty' } as const;

/** The node's address and path for what is asked of the API server. */
function urlOf({ registry }: NodeLinkDeps, { query }: ApiRequest, target: Target): string {
  const { kind, namespace, name, subresource } = target;
  const pod = registry.read(kind, namespace, name!) as unknown as Pod;
  const origin = originOf(registry, pod);
  if (subresource === 'portforward') return `${origin}/portForward/${namespace}/${name}`;
  const container = containerOf(pod, query.get('container'));
  const asked = new URLSearchParams([...query].filter(([one]) => subresource === 'log' && logOptions.includes(one)));
  for (const [from, to] of Object.entries(streamOptions)) if (isTrue(query.get(from))) asked.append(to, '1');
  for (const command of query.getAll('command')) asked.append('command', command);
  const verb = subresource === 'log' ? 'containerLogs' : subresource;
  return `${origin}/${verb}/${namespace}/${name}/${container}?${asked}`;
}

const reasons: Readonly<Record<number, string>> = { 400: 'BadRequest', 403: 'Forbidden', 404: 'NotFound' };
const refusal = (code: number, message: string): Failure =>
  new Failure(code, reasons[code] ?? 'InternalError', message);

/** GET pods/NAME/log. Throws where the node cannot be asked or refuses. */
export async function streamLog(
  deps: NodeLinkDeps,
  request: ApiRequest,
  target: Target,
  open: OpenStream,
): Promise<undefined> {
  const { certPem: cert, keyPem: key } = deps.identity;
  const url = urlOf(deps, request, target);
  const options = { cert, key, rejectUnauthorized: false, agent: false as const, timeout: connectTimeoutMs };
  const answer = await new Promise<IncomingMessage>((resolve, reject) => {
    const outgoing = httpsRequest(url, options, resolve);
    outgoing.on('response', () => outgoing.setTimeout(0));
    outgoing.on('timeout', () => outgoing.destroy(new Error(`no answer in ${connectTimeoutMs} ms`)));
    outgoing.on('error', (error) => reject(refusal(500, `Get "${url}": ${error.message}`)));
    outgoing.end();
  });
  const { statusCode = 500 } = answer;
  if (statusCode !== 200) throw refusal(statusCode, (await text(answer)).trim() || `the node answered ${statusCode}`);
  const sink = open('text/plain');
  sink.onClose(() => answer.destroy());
  answer.setEncoding('utf8');
  answer.on('data', (chunk: string) => sink.write(chunk));
  answer.on('close', () => sink.end());
  answer.on('error', () => sink.end());
}

/** WebSocket upgrades are refused, on which kubectl falls back to SPDY; that goes through byte for byte. */
export async function spliceUpgrade(
  deps: NodeLinkDeps,
  request: ApiRequest,
  target: Target,
  message: IncomingMessage,
  socket: Duplex,
  head: Buffer,
): Promise<void> {
  const { upgrade = '' } = message.headers;
  if (!['exec', 'attach', 'portforward'].includes(target.subresource ?? ''))
    throw badRequest('this path cannot be upgraded');
  if (!/^spdy\/3\.1$/i.test(upgrade)) throw badRequest(`cannot upgrade to ${upgrade}: this server speaks SPDY/3.1`);
  const { certPem: cert, keyPem: key } = deps.identity;
  const call = { request: message, socket, head, signal: new AbortController().signal };
  const options = { idleMs: 0, server: 'the node', client: { cert, key } };
  await splice(urlOf(deps, request, target), call, options).catch((error: unknown) => {
    throw error instanceof SpliceError ? refusal(error.status, error.message) : error;
  });
}
