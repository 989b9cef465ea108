import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Pod } from '../../kube/types/pod.ts';
import { silentLog } from '../../lib/log.ts';
import { createUserNamespaces } from './user-namespaces.ts';

let rootDir = '';
beforeEach(() => {
  rootDir = mkdtempSync(join(tmpdir(), 'userns-'));
});
afterEach(() => rmSync(rootDir, { recursive: true, force: true }));

const pod = (uid: string, hostUsers?: boolean): Pod => ({
  metadata: { name: uid, uid },
  spec: { containers: [], ...(hostUsers === undefined ? {} : { hostUsers }) },
});
const open = async (maxPods = 2, userNamespaces = true) => {
  const handlers = () => [{ name: '', recursiveReadOnlyMounts: true, userNamespaces }];
  const made = createUserNamespaces({ handlers, log: silentLog }, { rootDir, maxPods });
  await made.load();
  return made;
};
const range = (hostId: number) => [{ hostId, containerId: 0, length: 65_536 }];

describe('user namespaces', () => {
  it("each pod has a range of its own, below which are the host's users", async () => {
    const made = await open();
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
    await expect((await open(2, false)).of(pod('a', false), '')).rejects.toThrow(
      "can't set `spec.hostUsers: false`, runtime does not support user namespaces",
    );
    await expect((await open()).of(pod('a', false), 'kata')).rejects.toThrow(
      'RuntimeClass handler "kata" does not support user namespaces',
    );
  });
});
