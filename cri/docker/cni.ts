// Calls CNI plugins for sandboxes. What was asked and answered is kept in a file for each sandbox, written before anything is asked, so
// that DEL says the same words even after a crash, a changed configuration or a sandbox that is gone.
//
//   none ──attach──▶ attaching ──▶ attached ──detach──▶ none
//                        └────────────detach───────────────▲
import { mkdir, readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ExecError, exec } from '../../lib/exec.ts';
import { writeFileAtomic } from '../../lib/files.ts';
import { describeError, type Log } from '../../lib/log.ts';
import { RuntimeError } from '../errors.ts';
import type { SandboxMetadata } from '../types.ts';
import {
  addressesOf,
  canCheck,
  capabilityArgs,
  findPlugin,
  type Network,
  type NetworkWishes,
  pluginInput,
  readNetwork,
} from './cni-config.ts';

export interface CniOptions {
  readonly confDir: string;
  readonly binDirs: readonly string[];
  readonly stateDir: string;
}

interface Attachment {
  readonly sandbox: string;
  readonly metadata: SandboxMetadata;
  readonly network: Network;
  readonly args: Readonly<Record<string, unknown>>;
  readonly netns: string;
  /** Undefined until every plugin has answered. */
  readonly result?: unknown;
}

export interface Cni {
  /** Undefined where pods can be given a network; else why not. */
  trouble(): Promise<string | undefined>;
  /** The pod's addresses. Rejects with a RuntimeError; what was half made is taken back. */
  attach(sandbox: string, metadata: SandboxMetadata, netns: string, wishes: NetworkWishes): Promise<string[]>;
  /** Takes the sandbox's network away; `netns` is empty where it is gone. Does nothing for what was never attached. */
  detach(sandbox: string, netns: string): Promise<void>;
  /** Asks the plugins whether all is as they made it. Rejects with their words. */
  check(sandbox: string, netns: string): Promise<void>;
  /** Undefined where the sandbox's network is not, or not wholly, there. */
  addresses(sandbox: string): Promise<string[] | undefined>;
  /** Sandboxes that something is remembered of. */
  known(): Promise<string[]>;
}

const device = 'eth0';
const pluginTimeoutMs = 90_000;

export function createCni(deps: { readonly log: Log }, options: CniOptions): Cni {
  const folder = join(options.stateDir, 'networks');
  const fileOf = (sandbox: string): string => join(folder, `${sandbox}.json`);
  let attachments: Promise<Map<string, Attachment>> | undefined;

  const loaded = (): Promise<Map<string, Attachment>> => (attachments ??= load());
  async function load(): Promise<Map<string, Attachment>> {
    const found = new Map<string, Attachment>();
    for (const name of await readdir(folder).catch(() => [])) {
      if (!name.endsWith('.json') || name.startsWith('.')) continue;
      try {
        const value = JSON.parse(await readFile(join(folder, name), 'utf8')) as Attachment;
        found.set(value.sandbox, value);
      } catch (error) {
        deps.log.warn('a sandbox’s network file cannot be read; it is left alone', {
          file: join(folder, name),
          error: describeError(error),
        });
      }
    }
    return found;
  }

  async function keep(attachment: Attachment): Promise<void> {
    await mkdir(folder, { recursive: true, mode: 0o700 });
    await writeFileAtomic(fileOf(attachment.sandbox), JSON.stringify(attachment), 0o600);
    (await loaded()).set(attachment.sandbox, attachment);
  }

  async function run(command: 'ADD' | 'DEL' | 'CHECK', of: Attachment, at: number, netns: string, prev: unknown) {
    const plugin = of.network.plugins[at]!;
    const path = await findPlugin(plugin.type, options.binDirs);
    if (!path)
      throw new Error(`failed to find plugin ${JSON.stringify(plugin.type)} in path ${options.binDirs.join(':')}`);
    const { name, namespace, uid } = of.metadata;
    try {
      const { stdout } = await exec(path, [], {
        input: JSON.stringify(pluginInput(of.network, plugin, of.args, prev)),
        timeoutMs: pluginTimeoutMs,
        env: {
          CNI_COMMAND: command,
          CNI_CONTAINERID: of.sandbox,
          CNI_NETNS: netns,
          CNI_IFNAME: device,
          CNI_PATH: options.binDirs.join(':'),
          CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_INFRA_CONTAINER_ID=${of.sandbox};K8S_POD_UID=${uid}`,
        },
      });
      return stdout.trim() === '' ? prev : (JSON.parse(stdout) as unknown);
    } catch (error) {
      throw new Error(
        `plugin type=${JSON.stringify(plugin.type)} failed (${command.toLowerCase()}): ${wordsOfPlugin(error)}`,
        {
          cause: error,
        },
      );
    }
  }

  async function undo(of: Attachment, netns: string): Promise<void> {
    try {
      for (let at = of.network.plugins.length - 1; at >= 0; at--) await run('DEL', of, at, netns, of.result);
    } catch (error) {
      // A network that never stood must not hold its sandbox for ever: what could not be made may not be taken away either.
      if (of.result !== undefined) throw error;
      deps.log.warn('a pod network that could not be made could not be taken back whole either; it is let go', {
        sandbox: of.sandbox,
        error: describeError(error),
      });
    }
    await rm(fileOf(of.sandbox), { force: true });
    (await loaded()).delete(of.sandbox);
  }

  return {
    async trouble() {
      const read = await readNetwork(options.confDir, options.binDirs);
      return 'trouble' in read ? read.trouble : undefined;
    },

    async attach(sandbox, metadata, netns, wishes) {
      const fail = (why: string, cause?: unknown): never => {
        throw new RuntimeError(
          'unknown',
          'RunPodSandbox',
          `failed to setup network for sandbox ${JSON.stringify(sandbox)}: ${why}`,
          cause,
        );
      };
      const read = await readNetwork(options.confDir, options.binDirs);
      if ('trouble' in read) return fail(read.trouble);
      const attachment: Attachment = { sandbox, metadata, network: read.network, args: capabilityArgs(wishes), netns };
      await keep(attachment);
      try {
        let result: unknown;
        for (let at = 0; at < read.network.plugins.length; at++)
          result = await run('ADD', attachment, at, netns, result);
        const ips = addressesOf(result);
        if (ips.length === 0) throw new Error('the plugins gave no address');
        await keep({ ...attachment, result });
        return ips;
      } catch (error) {
        await undo(attachment, netns);
        return fail(describeError(error), error);
      }
    },

    async detach(sandbox, netns) {
      const attachment = (await loaded()).get(sandbox);
      if (!attachment) return;
      try {
        await undo(attachment, netns);
      } catch (error) {
        throw new RuntimeError(
          'unknown',
          'StopPodSandbox',
          `failed to destroy network for sandbox ${JSON.stringify(sandbox)}: ${describeError(error)}`,
          error,
        );
      }
    },

    async check(sandbox, netns) {
      const attachment = (await loaded()).get(sandbox);
      if (!attachment || attachment.result === undefined || !canCheck(attachment.network)) return;
      for (let at = 0; at < attachment.network.plugins.length; at++)
        await run('CHECK', attachment, at, netns, attachment.result);
    },

    async addresses(sandbox) {
      const attachment = (await loaded()).get(sandbox);
      return attachment?.result === undefined ? undefined : addressesOf(attachment.result);
    },

    known: async () => [...(await loaded()).keys()],
  };
}

/** A plugin that fails says why as JSON on its standard output. */
function wordsOfPlugin(error: unknown): string {
  if (!(error instanceof ExecError)) return describeError(error);
  try {
    const { msg, details } = JSON.parse(error.stdout) as { msg?: string; details?: string };
    if (msg) return details ? `${msg}: ${details}` : msg;
  } catch {
    // No JSON: its own words are in the error's.
  }
  return error.message;
}
