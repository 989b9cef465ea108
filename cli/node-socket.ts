// The node's own socket: `stevedore status`, `why` and `rules` ask here, without the API server. Root only.
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import { chmod, mkdir, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { Agent } from '../agent/agent.ts';
import { describeError, type Log } from '../lib/log.ts';
import type { ProxyHalf } from './run-proxy.ts';

export interface NodeSocketDeps {
  readonly log: Log;
  readonly agent: Agent | undefined;
  readonly proxy: ProxyHalf | undefined;
  readonly nodeName: string;
  readonly version: string;
}

export interface NodeSocket {
  close(): Promise<void>;
}

/** Another daemon answers there. */
async function answers(path: string): Promise<boolean> {
  try {
    await askNode(path, '/status');
    return true;
  } catch {
    return false;
  }
}

export async function serveNodeSocket(deps: NodeSocketDeps, path: string): Promise<NodeSocket> {
  await mkdir(dirname(path), { recursive: true, mode: 0o755 });
  if (await answers(path))
    throw new Error(
      `another stevedore answers on ${path}: one runs here already; give this one a socketPath of its own in its StevedoreConfiguration`,
    );
  await rm(path, { force: true });
  const server = createServer((incoming, response) => {
    handle(deps, incoming, response).catch((error: unknown) => {
      response.statusCode = 500;
      response.end(describeError(error));
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, () => resolve());
  });
  await chmod(path, 0o600);
  return {
    close: () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  };
}

async function handle(deps: NodeSocketDeps, incoming: IncomingMessage, response: ServerResponse): Promise<void> {
  const url = new URL(incoming.url ?? '/', 'http://node');
  const [, page, ...rest] = url.pathname.split('/').map(decodeURIComponent);
  const answer = (value: unknown): void => {
    response.setHeader('content-type', 'application/json');
    response.end(JSON.stringify(value));
  };
  switch (page) {
    case 'status':
      answer(statusOf(deps));
      return;
    case 'why': {
      const found = deps.agent && findPod(deps.agent, rest.join('/'));
      if (found) answer(deps.agent?.workers.account(found));
      else {
        response.statusCode = 404;
        response.end(`no pod ${rest.join('/')} on this node`);
      }
      return;
    }
    case 'rules':
      if (deps.proxy) answer(await deps.proxy.describe(rest.join('/') || undefined));
      else {
        response.statusCode = 404;
        response.end('this daemon runs without the proxy half (--only agent)');
      }
      return;
    default:
      response.statusCode = 404;
      response.end(`no page ${url.pathname}`);
  }
}

function findPod(agent: Agent, name: string): string | undefined {
  const pods = agent.workers.list();
  const found = pods.find(
    ({ metadata }) =>
      metadata.uid === name || metadata.name === name || `${metadata.namespace ?? 'default'}/${metadata.name}` === name,
  );
  return found?.metadata.uid;
}

function statusOf({ agent, proxy, nodeName, version }: NodeSocketDeps) {
  return {
    version,
    node: nodeName,
    pid: process.pid,
    agent: agent && {
      registered: agent.node.registered(),
      ready: agent.node.ready(),
      conditions: agent.node.node()?.status?.conditions ?? [],
      pods: agent.workers.list().map((pod) => {
        const account = agent.workers.account(pod.metadata.uid ?? '');
        return {
          namespace: pod.metadata.namespace ?? 'default',
          name: pod.metadata.name,
          uid: pod.metadata.uid,
          phase: pod.status?.phase,
          ready: pod.status?.conditions?.find(({ type }) => type === 'Ready')?.status === 'True',
          waitingFor: account?.waitingFor ?? [],
        };
      }),
    },
    proxy: proxy?.status(),
  };
}

/** Asks the daemon on this host. Rejects where none answers. */
export function askNode<T = unknown>(socketPath: string, path: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const call = request({ socketPath, path, timeout: 10_000 }, (response) => {
      const parts: Buffer[] = [];
      response.on('data', (part: Buffer) => parts.push(part));
      response.on('end', () => {
        const text = Buffer.concat(parts).toString('utf8');
        if (response.statusCode === 200) resolve(JSON.parse(text) as T);
        else reject(new Error(text));
      });
    });
    call.on('timeout', () => call.destroy(new Error(`the daemon on ${socketPath} does not answer`)));
    call.on('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'ENOENT' || error.code === 'ECONNREFUSED'
          ? new Error(`no stevedore answers on ${socketPath}: is it running, and is this its socketPath?`)
          : error,
      ),
    );
    call.end();
  });
}
