// Watches the sockets in `plugins_registry`: each is asked what it is and handed to the handler of its type, and given up when it is gone.
//
//   socket appears ─▶ GetInfo ─▶ handler.register ─▶ NotifyRegistrationStatus(true) ─▶ registered ─▶ socket gone ─▶ handler.deregister
//                        │ fails       │ fails: NotifyRegistrationStatus(false)
//                        └─────────────┴──▶ again, after its back-off
import { type Dirent, type FSWatcher, watch } from 'node:fs';
import { lstat, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '../../../lib/clock.ts';
import { createKeyedQueue } from '../../../lib/keyed-queue.ts';
import { describeError, type Log } from '../../../lib/log.ts';
import { makeFolders } from '../make-folders.ts';
import { InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse } from './gen/plugin-registration.ts';
import { connectPlugin, type PluginConnection } from './grpc-call.ts';

export interface PluginHandler {
  /** Rejects, with words for the plugin, where it cannot be used. */
  register(plugin: { name: string; endpoint: string; versions: readonly string[] }, signal: AbortSignal): Promise<void>;
  deregister(name: string, endpoint: string, signal: AbortSignal): Promise<void>;
}

export interface PluginWatcherDeps {
  readonly clock: Clock;
  readonly log: Log;
  /** By the plugin's type: `CSIPlugin`, `DevicePlugin`, … */
  readonly handlers: Readonly<Record<string, PluginHandler>>;
}

const rescanMs = 10_000;
const callTimeoutMs = 5_000;

interface Registered {
  /** Tells one socket from another that took its path. */
  readonly identity: string;
  readonly type: string;
  readonly name: string;
  readonly endpoint: string;
}

/** Runs until the signal aborts; the registered plugins stay registered. */
export async function watchPlugins(deps: PluginWatcherDeps, folder: string, signal: AbortSignal): Promise<void> {
  const { clock, log, handlers } = deps;
  const registered = new Map<string, Registered>();

  const deregister = async (socket: string, aborting: AbortSignal): Promise<void> => {
    const plugin = registered.get(socket);
    if (!plugin) return;
    registered.delete(socket);
    const taken = [...registered.values()].some((other) => other.type === plugin.type && other.name === plugin.name);
    // Another socket of the same plugin took over.
    if (!taken) await handlers[plugin.type]?.deregister(plugin.name, plugin.endpoint, aborting);
  };

  const reconcile = async (socket: string, aborting: AbortSignal): Promise<void> => {
    const identity = await socketIdentity(socket);
    const known = registered.get(socket);
    if (identity === undefined) return await deregister(socket, aborting);
    if (known?.identity === identity) return;
    const connection = connectPlugin(socket);
    try {
      const info = await askInfo(connection, aborting);
      const endpoint = info.endpoint || socket;
      const problem = await introduce(handlers[info.type], info, endpoint, socket, aborting);
      const notice = { pluginRegistered: problem === undefined, error: problem ?? '' };
      await notify(connection, notice, aborting);
      if (problem !== undefined) throw new Error(problem);
      registered.set(socket, { identity, type: info.type, name: info.name, endpoint });
      log.info('a plugin registered', { type: info.type, plugin: info.name, endpoint });
    } finally {
      connection.close();
    }
  };

  const queue = createKeyedQueue<string>(
    {
      clock,
      reconcile,
      onError: (socket, error, retryInMs) =>
        log.warn('a plugin could not be registered; it is tried again', { socket, error, retryInMs }),
    },
    { backoff: { initialMs: 500, maxMs: 60_000 } },
  );

  // Sockets handed to the queue, each once: one that fails waits for its back-off, a rescan does not hurry it.
  const handed = new Set<string>();
  const scan = async (): Promise<void> => {
    const sockets = new Set(await socketsIn(folder));
    for (const socket of new Set([...sockets, ...registered.keys()])) {
      const identity = sockets.has(socket) ? await socketIdentity(socket) : undefined;
      const token = `${identity} ${socket}`;
      if (registered.get(socket)?.identity === identity || (identity !== undefined && handed.has(token))) continue;
      if (identity !== undefined) handed.add(token);
      queue.wake(socket);
    }
  };

  let ring: () => void = () => undefined;
  let watcher: FSWatcher | undefined;
  // The folder may vanish, or be on a disk that is not writable yet.
  const watching = async (): Promise<void> => {
    if (watcher) return;
    await makeFolders(folder, 0o755);
    watcher = watch(folder, { recursive: true, persistent: false }, () => ring());
    watcher.on('error', (error) => {
      log.warn('plugins_registry cannot be watched; it is read every 10 s', { folder, error });
      watcher?.close();
      watcher = undefined;
    });
  };
  try {
    while (!signal.aborted) {
      const rung = new Promise<void>((resolve) => {
        ring = resolve;
      });
      try {
        await watching();
        await scan();
      } catch (error) {
        log.warn('plugins_registry cannot be read; it is tried again in 10 s', { folder, error });
      }
      const pause = new AbortController();
      const sleeping = clock.sleep(rescanMs, AbortSignal.any([signal, pause.signal])).catch(() => undefined);
      await Promise.race([rung, sleeping]);
      pause.abort();
    }
  } finally {
    watcher?.close();
    await queue.stop();
  }
}

async function introduce(
  handler: PluginHandler | undefined,
  info: PluginInfo,
  endpoint: string,
  socket: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  if (!handler)
    return `RegisterPlugin error -- no handler registered for plugin type: ${info.type} at socket ${socket}`;
  try {
    await handler.register({ name: info.name, endpoint, versions: info.supportedVersions }, signal);
    return undefined;
  } catch (error) {
    if (signal.aborted) throw error;
    return `RegisterPlugin error -- plugin registration failed with err: ${describeError(error)}`;
  }
}

const askInfo = (connection: PluginConnection, signal: AbortSignal): Promise<PluginInfo> =>
  connection.call(
    '/pluginregistration.Registration/GetInfo',
    InfoRequest,
    PluginInfo,
    {},
    { signal, timeoutMs: callTimeoutMs },
  );

const notify = (connection: PluginConnection, notice: RegistrationStatus, signal: AbortSignal): Promise<unknown> =>
  connection.call(
    '/pluginregistration.Registration/NotifyRegistrationStatus',
    RegistrationStatus,
    RegistrationStatusResponse,
    notice,
    { signal, timeoutMs: callTimeoutMs },
  );

async function socketsIn(folder: string): Promise<string[]> {
  let entries: Dirent[];
  try {
    entries = await readdir(folder, { withFileTypes: true, recursive: true });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
  return entries
    .filter((each) => each.isSocket() && !each.name.startsWith('.'))
    .map((each) => join(each.parentPath, each.name));
}

async function socketIdentity(socket: string): Promise<string | undefined> {
  try {
    const found = await lstat(socket, { bigint: true });
    return found.isSocket() ? `${found.dev}:${found.ino}:${found.birthtimeNs || found.ctimeNs}` : undefined;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
