// The images that need no registry: the sandbox's pause and a small HTTP demo on the host's static busybox. `stevedore dev` and the
// tests import them into the runtime.
import { readFile } from 'node:fs/promises';
import { exec } from '../lib/exec.ts';
import type { ImageArchitecture, ImageDefinition } from '../lib/oci-image.ts';
import type { TarEntry } from '../lib/tar.ts';
import { pauseExecutable } from './pause.ts';

export const pauseImageName = 'localhost/stevedore/pause:1';
export const demoImageName = 'localhost/stevedore/demo:1';

export function pauseImage(architecture: ImageArchitecture): ImageDefinition {
  return {
    names: [pauseImageName],
    architecture,
    config: { entrypoint: ['/pause'], user: '65535:65535' },
    layers: [[{ path: 'pause', data: pauseExecutable(architecture), mode: 0o755 }]],
  };
}

export interface Busybox {
  readonly executable: Uint8Array;
  readonly applets: readonly string[];
}

/** The host's statically linked busybox. Rejects with what to install where there is none. */
export async function readBusybox(paths: readonly string[] = ['/usr/bin/busybox', '/bin/busybox']): Promise<Busybox> {
  for (const path of paths) {
    const executable = await readFile(path).catch(() => undefined);
    if (!executable) continue;
    if (hasInterpreter(executable))
      throw new Error(`${path} is dynamically linked and cannot run in an image of its own: install busybox-static`);
    const { stdout } = await exec(path, ['--list']);
    return { executable, applets: stdout.split('\n').filter((name) => name !== '') };
  }
  throw new Error(`no busybox at ${paths.join(' or ')}: install the package busybox-static`);
}

/** Whether an ELF executable asks for a dynamic loader (has a PT_INTERP header). */
function hasInterpreter(elf: Buffer): boolean {
  if (elf.length < 64 || elf.readUInt32BE(0) !== 0x7f454c46) return false;
  const offset = Number(elf.readBigUInt64LE(32));
  const size = elf.readUInt16LE(54);
  for (let index = 0; index < elf.readUInt16LE(56); index++)
    if (elf.readUInt32LE(offset + index * size) === 3) return true;
  return false;
}

/** The files of a small system: busybox under every name it answers to, and the folders that programs expect. */
export function busyboxFiles(busybox: Busybox): TarEntry[] {
  const folders = ['bin', 'dev', 'etc', 'home', 'proc', 'root', 'sys', 'usr', 'usr/bin', 'var', 'var/run', 'www'];
  return [
    ...folders.map((path): TarEntry => ({ path, type: 'directory' })),
    { path: 'tmp', type: 'directory', mode: 0o1777 },
    { path: 'bin/busybox', data: busybox.executable, mode: 0o755 },
    ...busybox.applets
      .filter((name) => name !== 'busybox')
      .map((name): TarEntry => ({ path: `bin/${name}`, type: 'symlink', target: '/bin/busybox' })),
    { path: 'usr/bin/env', type: 'symlink', target: '/bin/busybox' },
    { path: 'etc/passwd', data: 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n' },
    { path: 'etc/group', data: 'root:x:0:\nnogroup:x:65534:\n' },
    { path: 'etc/nsswitch.conf', data: 'hosts: files dns\n' },
  ];
}

// As process 1 the server would not see SIGTERM (no handler, no default action), so the shell stands before it. With DRAIN_SECONDS it
// goes on answering for that long after SIGTERM.
const serve = `#!/bin/sh
stop() {
  sleep "\${DRAIN_SECONDS:-0}"
  kill "$server" 2>/dev/null
  exit 0
}
trap stop TERM INT
httpd -f -p "\${PORT:-8080}" -h /www &
server=$!
echo "demo: $(hostname) listens on port \${PORT:-8080}"
wait "$server"
`;

const answer = `#!/bin/sh
printf 'Content-Type: text/plain\\r\\n\\r\\n'
hostname
`;

/** busybox with all its applets; answers every request for `/` with the pod's hostname, on $PORT or 8080. */
export function demoImage(architecture: ImageArchitecture, busybox: Busybox): ImageDefinition {
  return {
    names: [demoImageName],
    architecture,
    config: { entrypoint: ['/bin/demo'], exposedPorts: ['8080/tcp'] },
    layers: [
      busyboxFiles(busybox),
      [
        { path: 'bin/demo', data: serve, mode: 0o755 },
        { path: 'www/cgi-bin', type: 'directory' },
        { path: 'www/cgi-bin/index.cgi', data: answer, mode: 0o755 },
        { path: 'www/healthz', data: 'ok\n' },
      ],
    ],
  };
}
