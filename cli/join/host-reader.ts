// What preflight asks of the host. An adapter: it only reads.
import { access, constants, readdir, readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { openRuntime } from '../open-runtime.ts';

export interface HostReader {
  uid(): number;
  /** A file's text without white space around it; empty where there is none. */
  text(path: string): Promise<string>;
  exists(path: string): Promise<boolean>;
  list(folder: string): Promise<string[]>;
  portFree(port: number): Promise<boolean>;
  onPath(program: string): Promise<boolean>;
  runtime(endpoint: string): Promise<{ name: string; version: string } | { error: string }>;
  /** Processes of these names, in this process's PID namespace. */
  processes(names: readonly string[]): Promise<{ name: string; pid: number }[]>;
}

const portFree = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'EADDRINUSE'));
    server.listen({ port, exclusive: true }, () => server.close(() => resolve(true)));
  });

const exists = (path: string, mode?: number): Promise<boolean> =>
  access(path, mode).then(
    () => true,
    () => false,
  );

export function createHostReader(): HostReader {
  return {
    uid: () => process.getuid?.() ?? -1,
    text: (path) =>
      readFile(path, 'utf8').then(
        (text) => text.trim(),
        () => '',
      ),
    exists: (path) => exists(path),
    list: (folder) => readdir(folder).catch(() => []),
    portFree,
    async onPath(program) {
      const folders = `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`.split(':').filter(Boolean);
      for (const folder of folders) if (await exists(join(folder, program), constants.X_OK)) return true;
      return false;
    },
    async runtime(endpoint) {
      const cni = { confDir: '/etc/cni/net.d', binDir: '/opt/cni/bin' };
      const runtime = await openRuntime(
        { log: silentLog, clock: systemClock },
        { endpoint, rootDir: '/var/lib/kubelet', cni },
      );
      try {
        const { runtimeName, runtimeVersion } = await runtime.version({ timeoutMs: 5000 });
        return { name: runtimeName, version: runtimeVersion };
      } catch (error) {
        return { error: error instanceof Error ? error.message : String(error) };
      } finally {
        await runtime.close();
      }
    },
    async processes(names) {
      const found: { name: string; pid: number }[] = [];
      for (const pid of await readdir('/proc').catch(() => [])) {
        if (!/^\d+$/.test(pid)) continue;
        const name = (await readFile(`/proc/${pid}/comm`, 'utf8').catch(() => '')).trim();
        if (names.includes(name)) found.push({ name, pid: Number(pid) });
      }
      return found;
    },
  };
}
