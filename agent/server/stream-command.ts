// exec and attach where the runtime hands over the streams themselves: we speak SPDY or WebSocket with the client and tell it how it ended.
import { describeError } from '../../lib/log.ts';
import { RuntimeError } from '../../cri/errors.ts';
import type { StreamOpener } from '../../cri/types.ts';
import type { UpgradeCall } from './routes.ts';
import { spdyCommand } from './spdy-command.ts';
import { isWebSocket } from './spdy-upgrade.ts';
import { exitStatus, failedStatus, StatusError } from './stream-protocol.ts';
import type { CommandQuery } from './streams.ts';
import { webSocketCommand } from './web-socket-command.ts';

/** Resolves when the stream has ended. Rejects with an HttpError as long as the client got no answer. */
export async function serveRemoteCommand(
  open: StreamOpener,
  what: 'exec' | 'attach',
  query: CommandQuery,
  call: UpgradeCall,
): Promise<void> {
  const connection = isWebSocket(call.request) ? await webSocketCommand(query, call) : await spdyCommand(query, call);
  if (!connection) return;
  const signal = AbortSignal.any([connection.signal, call.signal]);
  try {
    const code = await open(connection.channels, signal);
    await connection.sendStatus(exitStatus(code));
  } catch (error) {
    if (signal.aborted) return;
    if (error instanceof StatusError) return await connection.sendStatus(error.status).catch(() => undefined);
    const doing = what === 'exec' ? 'executing command in container' : 'attaching to container';
    const detail = error instanceof RuntimeError ? error.detail : describeError(error);
    await connection.sendStatus(failedStatus(`error ${doing}: ${detail}`)).catch(() => undefined);
  } finally {
    await connection.close();
  }
}
