// Localhost seccomp profiles: Kubernetes names a file, Docker's API wants what is in it.
import { readFile } from 'node:fs/promises';
import { RuntimeError } from '../errors.ts';
import type { SecurityProfile } from '../types.ts';

export async function seccompText(call: string, profile: SecurityProfile | undefined): Promise<string | undefined> {
  if (profile?.type !== 'Localhost') return undefined;
  const path = profile.localhostRef ?? '';
  try {
    return JSON.stringify(JSON.parse(await readFile(path, 'utf8')));
  } catch (error) {
    throw new RuntimeError(
      'invalid',
      call,
      `cannot load seccomp profile ${JSON.stringify(path)}: ${(error as Error).message}`,
      error,
    );
  }
}
