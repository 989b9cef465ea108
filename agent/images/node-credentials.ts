// The node's own registry credentials, from docker's configuration files: every pod may pull with them.
import { join } from 'node:path';
import type { Log } from '../../lib/log.ts';
import { readFileIfThere } from '../../lib/files.ts';
import { type KeyringEntry, parseDockercfg, parseDockerConfigJson } from './keyring.ts';

/** Looked through in this order; the first file that holds credentials counts. */
export const credentialFiles = (rootDir: string, home = '/root'): readonly string[] => [
  join(rootDir, 'config.json'),
  join(home, '.docker', 'config.json'),
  '/.docker/config.json',
  join(rootDir, '.dockercfg'),
  join(home, '.dockercfg'),
  '/.dockercfg',
];

/** Reads the files anew each time: they are small, pulls are rare, and rotation needs no restart. */
export async function readNodeCredentials(log: Log, files: readonly string[]): Promise<KeyringEntry[]> {
  for (const path of files) {
    try {
      const content = await readFileIfThere(path);
      if (content === undefined) continue;
      return path.endsWith('.dockercfg') ? parseDockercfg(content) : parseDockerConfigJson(content);
    } catch (error) {
      log.warn('registry credentials of the node cannot be read; the next file is tried', { path, error });
    }
  }
  return [];
}
