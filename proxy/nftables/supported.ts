// Whether this host's kernel and nft can do what the nftables backend needs.
import { NetfilterError } from '../backend.ts';
import type { IpFamily } from '../model.ts';
import { tableFamily } from './names.ts';
import type { Exec } from './tool.ts';

const atLeast = (text: string, major: number, minor: number): boolean => {
  const [, high, low] = /(\d+)\.(\d+)/.exec(text) ?? [];
  return Number(high) > major || (Number(high) === major && Number(low) >= minor);
};

/** Why not, or undefined where it can: Linux 5.13 and nft 1.0.1, as upstream asks. */
export async function whyNotNftables(exec: Exec): Promise<string | undefined> {
  try {
    const { stdout: kernel } = await exec('uname', ['-r']);
    if (!atLeast(kernel, 5, 13)) return `the kernel is Linux ${kernel.trim()}; 5.13 or later is needed`;
    const { stdout: version } = await exec('nft', ['--version']);
    if (!atLeast(version, 1, 0) || /v1\.0\.0\b/.test(version))
      return `nft is ${version.trim()}; 1.0.1 or later is needed`;
    return undefined;
  } catch (error) {
    return `nft cannot be run: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Rejects with a NetfilterError where nothing can be written in this family; writes nothing. */
export async function checkNftables(exec: Exec, family: IpFamily): Promise<void> {
  const why = await whyNotNftables(exec);
  if (why !== undefined) throw new NetfilterError('missing', why);
  try {
    await exec('nft', ['--check', `add table ${tableFamily(family)} stevedore-probe`]);
  } catch (error) {
    throw new NetfilterError('denied', `nft may not write: ${String(error)}`, error);
  }
}
