import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { silentLog } from '../../lib/log.ts';
import { idsForPods } from './sub-ids.ts';
import { createUserNamespaces, type UserNamespacesOptions } from './user-namespaces.ts';

let rootDir = '';
beforeEach(() => {
  rootDir = mkdtempSync(join(tmpdir(), 'userns-'));
});
afterEach(() => rmSync(rootDir, { recursive: true, force: true }));

const pod = (uid: string, hostUsers?: boolean): Pod => ({
  metadata: { name: uid, uid },
  spec: { containers: [], ...(hostUsers === undefined ? {} : { hostUsers }) },
});
const open = async (more: Partial<UserNamespacesOptions> = {}, userNamespaces = true) => {
  const handlers = () => [{ name: '', recursiveReadOnlyMounts: true, userNamespaces }];
  const made = createUserNamespaces({ handlers, log: silentLog }, { rootDir, maxPods: 2, ...more });
  await made.load();
  return made;
};
const range = (hostId: number) => [{ hostId, containerId: 0, length: 65_536 }];

describe('user namespaces', () => {
  it("each pod has a range of its own, below which are the host's users", async () => {
    const made = await open({ ids: { first: 65_536, length: 131_072 } });
    expect(await made.of(pod('a'), '')).toBeUndefined();
    expect(await made.of(pod('a', true), '')).toBeUndefined();
    expect(await made.of(pod('a', false), '')).toEqual({ mode: 'pod', uids: range(65_536), gids: range(65_536) });
    expect((await made.of(pod('b', false), ''))?.uids).toEqual(range(131_072));
    expect((await made.of(pod('a', false), ''))?.uids).toEqual(range(65_536));
    await expect(made.of(pod('c', false), '')).rejects.toThrow('could not find an empty slot');
    await made.release('a');
    expect((await made.of(pod('c', false), ''))?.uids).toEqual(range(65_536));
  });

  it('are the same after a restart, and forgotten with the pod', async () => {
    await (await open()).of(pod('a', false), '');
    await (await open()).of(pod('b', false), '');
    const again = await open();
    expect((await again.of(pod('b', false), ''))?.uids).toEqual(range(131_072));
    expect((await again.of(pod('a', false), ''))?.uids).toEqual(range(65_536));
    await again.release('a');
    await again.release('b');
    expect(readdirSync(join(rootDir, 'userns'))).toEqual([]);
  });

  it('are refused where the runtime cannot', async () => {
    await expect((await open({}, false)).of(pod('a', false), '')).rejects.toThrow(
      "can't set `spec.hostUsers: false`, runtime does not support user namespaces",
    );
    await expect((await open()).of(pod('a', false), 'kata')).rejects.toThrow(
      'RuntimeClass handler "kata" does not support user namespaces',
    );
  });

  it("are of the ids that were set aside, and begin above the host's own", async () => {
    const first = async (options: Partial<UserNamespacesOptions>) =>
      (await (await open({ ...options, rootDir: mkdtempSync(join(rootDir, 'x')) })).of(pod('a', false), ''))?.uids;
    expect(await first({ idsPerPod: 131_072 })).toEqual([{ hostId: 131_072, containerId: 0, length: 131_072 }]);
    expect(await first({ ids: { first: 655_360, length: 131_072 } })).toEqual(range(655_360));
  });

  it.each([
    [{ ids: { first: 70_000, length: 131_072 } }, 'kubelet user assigned ID 70000 is not a multiple of 65536'],
    [{ ids: { first: 0, length: 131_072 } }, 'kubelet user assigned ID 0 must be greater or equal to 65536'],
    [{ ids: { first: 65_536, length: 70_000 } }, 'kubelet user assigned IDs length 70000 is not a multiple of 65536'],
    [{ ids: { first: 65_536, length: 65_536 } }, 'kubelet user assigned IDs are not enough to support 2 pods'],
    [{ idsPerPod: 70_000 }, 'kubelet user namespace length 70000 is not a multiple of 65536'],
  ])('cannot be made of %j', async (options, message) => await expect(open(options)).rejects.toThrow(message));

  it('stay apart when there are to be more ids for each pod, and where a range is remembered by its number', async () => {
    const before = await open();
    await before.of(pod('a', false), '');
    await before.of(pod('b', false), '');
    writeFileSync(join(rootDir, 'userns', 'old'), '4');
    const after = await open({ idsPerPod: 131_072 });
    expect((await after.of(pod('a', false), ''))?.uids).toEqual(range(65_536));
    // From 131,072 on is b's, and from 589,824 on what was the fifth range.
    const more = await Promise.all(
      ['c', 'd', 'e', 'f'].map(async (uid) => (await after.of(pod(uid, false), ''))!.uids[0]!),
    );
    expect(more.map(({ hostId }) => hostId)).toEqual([262_144, 393_216, 524_288 + 2 * 131_072, 917_504]);
  });
});

describe('the ids set aside for pods', () => {
  const passwd = async () => 'root:x:0:0::/:/bin/sh\nkubelet:x:990:990::/:/bin/false\n';
  const line = '0: kubelet 65536 7208960\n';

  it("are the user kubelet's", async () => {
    const asked: (readonly string[])[] = [];
    const getSubIds = async (args: readonly string[]) => {
      asked.push(args);
      return line;
    };
    expect(await idsForPods({ passwd, getSubIds })).toEqual({ first: 65_536, length: 7_208_960 });
    expect(asked).toEqual([['kubelet'], ['-g', 'kubelet']]);
  });

  it('are none without that user, and without getsubids', async () => {
    const getSubIds = async () => line;
    expect(await idsForPods({ passwd: async () => 'kubelet2:x:1:1::/:/bin/sh\n', getSubIds })).toBeUndefined();
    expect(await idsForPods({ passwd, getSubIds: async () => undefined })).toBeUndefined();
  });

  it('keep the agent from starting where they cannot be told', async () => {
    const getSubIds = () => Promise.reject(new Error('Error fetching ranges'));
    await expect(idsForPods({ passwd, getSubIds })).rejects.toThrow(
      'no ids of that user for user namespaces of pods: getsubids kubelet: Error fetching ranges. Give it some',
    );
  });

  it.each([
    [line, '0: kubelet 65536 65536\n', 'mismatched subuids and subgids for user "kubelet"'],
    [`${line}1: kubelet 1 2\n`, `${line}1: kubelet 1 2\n`, 'where one line with a first id'],
    ['', '', 'where one line with a first id'],
  ])('must be one range, the same for users and groups: %j %j', async (users, groups, message) => {
    const getSubIds = async ([flag]: readonly string[]) => (flag === '-g' ? groups : users);
    await expect(idsForPods({ passwd, getSubIds })).rejects.toThrow(message);
  });
});
