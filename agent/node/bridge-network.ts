// A bridge network made of the node's own pod range, for nodes to which nobody brings a network plugin. Written only where the operator asked
// for it and nothing else configures a network; a file that is not ours is never touched.
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { aborted } from '../../lib/abort.ts';
import { readFileIfThere, writeFileAtomic } from '../../lib/files.ts';
import type { Log } from '../../lib/log.ts';
import type { Node } from '../../kube/types/core.ts';
import type { NodeAgent } from './node-agent.ts';

export interface BridgeNetworkDeps {
  readonly log: Log;
  readonly node: Pick<NodeAgent, 'node' | 'onNode'>;
}

export interface BridgeNetworkOptions {
  /** Where the runtime reads its networks. */
  readonly confDir: string;
  /** Default `stevedore0`. */
  readonly bridge?: string;
}

export const bridgeFile = '10-stevedore-bridge.conflist';

const podCidrsOf = (node: Node | undefined): readonly string[] =>
  node?.spec.podCIDRs ?? (node?.spec.podCIDR ? [node.spec.podCIDR] : []);

/** The configuration's text, for one range or one of each family. */
export function bridgeNetwork(podCidrs: readonly string[], bridge: string): string {
  const network = {
    cniVersion: '1.0.0',
    name: 'stevedore-bridge',
    plugins: [
      {
        type: 'bridge',
        bridge,
        isGateway: true,
        ipMasq: true,
        // A pod reaches itself through its Service.
        hairpinMode: true,
        ipam: {
          type: 'host-local',
          ranges: podCidrs.map((subnet) => [{ subnet }]),
          routes: podCidrs.map((subnet) => ({ dst: subnet.includes(':') ? '::/0' : '0.0.0.0/0' })),
        },
      },
      { type: 'portmap', capabilities: { portMappings: true }, snat: true },
    ],
  };
  return `${JSON.stringify(network, null, 2)}\n`;
}

/** Writes the network when the node's range is known and whenever it changes, until the signal aborts. */
export async function keepBridgeNetwork(
  deps: BridgeNetworkDeps,
  options: BridgeNetworkOptions,
  signal: AbortSignal,
): Promise<void> {
  const { log, node } = deps;
  const path = join(options.confDir, bridgeFile);
  let told: string | undefined;

  const write = async (): Promise<void> => {
    const cidrs = podCidrsOf(node.node());
    if (cidrs.length === 0) return;
    const text = bridgeNetwork(cidrs, options.bridge ?? 'stevedore0');
    if ((await readFileIfThere(path)) === text) return;
    await mkdir(options.confDir, { recursive: true });
    const others = (await readdir(options.confDir)).filter(
      (name) => name !== bridgeFile && /\.(conf|conflist|json)$/.test(name),
    );
    if (others.length > 0) {
      if (told !== others[0])
        log.info('cni.writeBridge: the folder configures a network already; none is written', {
          folder: options.confDir,
          file: others[0] ?? '',
        });
      told = others[0];
      return;
    }
    await writeFileAtomic(path, text, 0o644);
    log.info('a bridge network of the node’s pod range was written', { file: path, podCIDRs: cidrs.join(',') });
  };

  // One after the other; a failure is said, and the next change of the node tries again.
  let writing: Promise<void> = Promise.resolve();
  const next = (): void => {
    writing = writing
      .then(write)
      .catch((error: unknown) =>
        log.warn('the bridge network could not be written; tried again when the node changes', { file: path, error }),
      );
  };
  const unsubscribe = node.onNode(next);
  next();
  await aborted(signal);
  unsubscribe();
  await writing;
}
