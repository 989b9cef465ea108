// One agent for each runtime socket: two would take each other's pods for leftovers and end them.
import { realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type Claim, claim, ClaimedError } from '../lib/claim.ts';
import { describeError, type Log } from '../lib/log.ts';

/** Undefined where no claim can be made there, which is logged. Rejects with a message for the operator where another agent has it. */
export async function claimRuntime(endpoint: string, holder: string, log: Log): Promise<Claim | undefined> {
  const socket = await realpath(endpoint.replace(/^unix:\/\//, '')).catch(() => undefined);
  if (socket === undefined) return undefined;
  // Beside the runtime's own, so that agents in other containers and namespaces find it too.
  const path = join(dirname(socket), `.${basename(socket)}.agent`);
  try {
    return await claim(path, holder);
  } catch (error) {
    if (error instanceof ClaimedError)
      throw new Error(
        `the container runtime on ${endpoint} is used by another agent already (${error.holder}): two agents would end each other's pods. Stop that one, or give this one a runtime of its own (containerRuntimeEndpoint)`,
        { cause: error },
      );
    log.warn('whether another agent uses this container runtime cannot be found out', {
      path,
      error: describeError(error),
    });
    return undefined;
  }
}
