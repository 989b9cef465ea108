import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { silentLog } from '../../lib/log.ts';
import type { Node } from '../../kube/types/core.ts';
import { bridgeFile, keepBridgeNetwork } from './bridge-network.ts';

describe('the bridge network', () => {
  let confDir: string;
  beforeEach(async () => {
    confDir = await mkdtemp(join(tmpdir(), 'sv-cni-'));
  });
  afterEach(() => rm(confDir, { recursive: true, force: true }));

  const run = async (changes: readonly (readonly string[])[]): Promise<void> => {
    let podCIDRs: readonly string[] = [];
    let listener: (after: Node | undefined, before: Node | undefined) => void = () => undefined;
    const stop = new AbortController();
    const node = {
      node: () => ({ spec: { podCIDRs } }) as unknown as Node,
      onNode: (each: typeof listener) => {
        listener = each;
        return () => undefined;
      },
    };
    const done = keepBridgeNetwork({ log: silentLog, node }, { confDir }, stop.signal);
    for (const cidrs of changes) {
      podCIDRs = cidrs;
      listener(node.node(), undefined);
    }
    stop.abort();
    await done;
  };
  const ranges = async (): Promise<unknown> => {
    const parsed = JSON.parse(await readFile(join(confDir, bridgeFile), 'utf8')) as {
      plugins: { ipam?: { ranges: unknown; routes: unknown } }[];
    };
    return parsed.plugins[0]?.ipam;
  };

  it('waits for the range, then has one route for each family', async () => {
    await run([[]]);
    expect(await readdir(confDir)).toEqual([]);
    await run([['10.1.0.0/24', 'fd00:1::/64']]);
    expect(await ranges()).toMatchObject({
      ranges: [[{ subnet: '10.1.0.0/24' }], [{ subnet: 'fd00:1::/64' }]],
      routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
    });
  });

  it('follows the range of a node that was made anew', async () => {
    await run([['10.1.0.0/24'], ['10.2.0.0/24']]);
    expect(await ranges()).toMatchObject({ ranges: [[{ subnet: '10.2.0.0/24' }]] });
  });

  it('leaves a folder alone in which another network is configured', async () => {
    await writeFile(join(confDir, '10-flannel.conflist'), '{}');
    await run([['10.1.0.0/24']]);
    expect(await readdir(confDir)).toEqual(['10-flannel.conflist']);
  });
});
