// The host's ids that the operator set aside for pods' user namespaces: those of the user `kubelet` in /etc/subuid and /etc/subgid, as
// getsubids(1) tells them, and as the kubelet has them.
import { exec, findProgram } from '../../lib/exec.ts';
import { readFileIfThere } from '../../lib/files.ts';
import { describeError } from '../../lib/log.ts';
import type { IdRange } from './user-namespaces.ts';

export interface SubIdsDeps {
  /** What getsubids says with these arguments; undefined where there is no such program. */
  getSubIds(args: readonly string[]): Promise<string | undefined>;
  /** /etc/passwd. */
  passwd(): Promise<string | undefined>;
}

export const hostSubIds: SubIdsDeps = {
  getSubIds: async (args) =>
    findProgram('getsubids') === undefined ? undefined : (await exec('getsubids', args, { timeoutMs: 10_000 })).stdout,
  passwd: () => readFileIfThere('/etc/passwd'),
};

const user = 'kubelet';

/** `0: kubelet 65536 7208960`; throws an Error where there is not exactly one such line. */
function parse(text: string): IdRange {
  const lines = text.replace(/\n+$/, '').split('\n');
  const [, , first, length] = lines[0]!.split(/\s+/);
  if (lines.length !== 1 || !/^\d+$/.test(first ?? '') || !/^\d+$/.test(length ?? ''))
    throw new Error(
      `getsubids ${user} says ${JSON.stringify(text)}, where one line with a first id and a number of ids is wanted: see /etc/subuid`,
    );
  return { first: Number(first), length: Number(length) };
}

/** Undefined where there is no such user, or no getsubids. Rejects where there are both and their answer is no one range for users and groups. */
export async function idsForPods({ getSubIds, passwd }: SubIdsDeps = hostSubIds): Promise<IdRange | undefined> {
  if (!(await passwd())?.split('\n').some((line) => line.startsWith(`${user}:`))) return undefined;
  const ask = (args: readonly string[]): Promise<string | undefined> =>
    getSubIds(args).catch((error: unknown) => {
      throw new Error(
        `this host has a user ${user} and getsubids, and no ids of that user for user namespaces of pods: getsubids ${args.join(' ')}: ${describeError(error)}. Give it some in /etc/subuid and /etc/subgid, or remove one of the two`,
        { cause: error },
      );
    });
  const users = await ask([user]);
  if (users === undefined) return undefined;
  const groups = await ask(['-g', user]);
  if (users !== groups)
    throw new Error(
      `mismatched subuids and subgids for user "${user}": make /etc/subuid and /etc/subgid say the same of it`,
    );
  return parse(users);
}
