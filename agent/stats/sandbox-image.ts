// What the runtime makes its sandboxes of.
import type { Runtime } from '../../cri/runtime.ts';
import type { SandboxId } from '../../cri/types.ts';

const timeoutMs = 2_000;

/** From the runtime's configuration, or else (containerd 2) from what it says of a sandbox. Rejects with the runtime's error. */
export async function sandboxImage(
  runtime: Pick<Runtime, 'status' | 'sandboxStatus'>,
  one: SandboxId,
): Promise<string | undefined> {
  const { sandboxImage: configured } = await runtime.status({ timeoutMs });
  return configured ?? (await runtime.sandboxStatus(one, { timeoutMs, verbose: true })).image;
}
