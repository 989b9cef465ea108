// Tells systemd that the daemon is ready, alive or ending. Node has no AF_UNIX datagrams, so systemd's own tool is asked.
import { exec } from '../lib/exec.ts';
import { describeError, type Log } from '../lib/log.ts';

/** Does nothing outside a systemd unit. A notice that cannot be given is logged, not thrown. */
export async function notifySystemd(state: string, log: Log): Promise<void> {
  if (!process.env.NOTIFY_SOCKET) return;
  try {
    await exec('systemd-notify', [state], { timeoutMs: 5_000 });
  } catch (error) {
    log.warn('systemd was not told', { state, error: describeError(error) });
  }
}
