// `stevedore status` and `stevedore why POD`: what the daemon on this host is doing, asked of its own socket.
import type { Command } from 'commander';
import type { PodAccount } from '../agent/pods/pod-workers.ts';
import { askNode } from './node-socket.ts';

const defaultSocket = '/run/stevedore/stevedore.sock';

interface NodeStatusPage {
  readonly version: string;
  readonly node: string;
  readonly pid: number;
  readonly agent?: {
    readonly registered: boolean;
    readonly ready: boolean;
    readonly conditions: readonly { type: string; status: string; message?: string }[];
    readonly pods: readonly {
      namespace: string;
      name: string;
      phase?: string;
      ready: boolean;
      waitingFor: readonly string[];
    }[];
  };
  readonly proxy?: unknown;
}

export function registerStatus(program: Command): void {
  program
    .command('status')
    .description('what the daemon on this host is doing')
    .option('--socket <path>', 'the daemon’s socket', defaultSocket)
    .option('--json', 'print JSON')
    .action(async (flags: { socket: string; json?: boolean }) => {
      const page = await ask<NodeStatusPage>(flags.socket, '/status');
      if (page) process.stdout.write(flags.json ? `${JSON.stringify(page, null, 2)}\n` : statusText(page));
    });
  program
    .command('why')
    .description('why a pod is not (yet) as it should be, or how it came to be')
    .argument('<pod>', 'name, namespace/name or uid')
    .option('--socket <path>', 'the daemon’s socket', defaultSocket)
    .option('--json', 'print JSON')
    .action(async (pod: string, flags: { socket: string; json?: boolean }) => {
      const account = await ask<PodAccount>(flags.socket, `/why/${pod.split('/').map(encodeURIComponent).join('/')}`);
      if (account)
        process.stdout.write(flags.json ? `${JSON.stringify(account, null, 2)}\n` : whyText(account, Date.now()));
    });
}

async function ask<T>(socket: string, path: string): Promise<T | undefined> {
  try {
    return await askNode<T>(socket, path);
  } catch (error) {
    process.stderr.write(`stevedore: ${(error as Error).message}\n`);
    process.exitCode = 1;
    return undefined;
  }
}

export function statusText(page: NodeStatusPage): string {
  const lines = [`stevedore ${page.version} on ${page.node} (pid ${page.pid})`];
  if (page.agent) {
    lines.push(
      `agent: ${page.agent.registered ? 'registered' : 'not registered yet'}, ${page.agent.ready ? 'Ready' : 'not Ready'}`,
    );
    for (const { type, status, message } of page.agent.conditions)
      if ((type === 'Ready') !== (status === 'True')) lines.push(`  ${type}=${status}: ${message ?? ''}`);
    lines.push(`pods: ${page.agent.pods.length}`);
    for (const pod of page.agent.pods) {
      const waiting = pod.waitingFor.length > 0 ? `  waits for ${pod.waitingFor.join('; ')}` : '';
      lines.push(`  ${pod.namespace}/${pod.name}  ${pod.phase ?? 'Pending'}${pod.ready ? ', ready' : ''}${waiting}`);
    }
  }
  if (page.proxy !== undefined) lines.push(`proxy: ${JSON.stringify(page.proxy)}`);
  return `${lines.join('\n')}\n`;
}

const ago = (fromMs: number, nowMs: number): string => `${((nowMs - fromMs) / 1000).toFixed(1)} s ago`;

export function whyText(account: PodAccount, nowMs: number): string {
  const { metadata } = account.pod;
  const lines = [`${metadata.namespace ?? 'default'}/${metadata.name}: ${account.status?.phase ?? 'Pending'}`];
  if (account.terminating)
    lines.push(`it is ending (${account.terminating.cause}) since ${ago(account.terminating.sinceMs, nowMs)}`);
  for (const reason of account.waitingFor) lines.push(`waits for ${reason}`);
  if (account.waitingFor.length === 0) lines.push('waits for nothing');
  for (const { what, sinceMs } of account.running) lines.push(`under way: ${what}, begun ${ago(sinceMs, nowMs)}`);
  if (account.nextLookMs !== undefined)
    lines.push(`looked at again in ${Math.max(0, (account.nextLookMs - nowMs) / 1000).toFixed(1)} s`);
  lines.push('timeline:');
  for (const { what, atMs, tookMs } of account.timeline)
    lines.push(`  ${new Date(atMs).toISOString()}  ${what}${tookMs === undefined ? '' : `  (${tookMs} ms)`}`);
  return `${lines.join('\n')}\n`;
}
