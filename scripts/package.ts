// `npm run package`: dist/stevedore_VERSION_ARCH.deb and a tarball, from the build in dist/. Options: --version V (default: package.json's),
// --no-build (take dist/ as it is), --fast (larger files, made sooner: for tests), --out FOLDER.
import { createHash } from 'node:crypto';
import { constants } from 'node:fs';
import {
  chmod,
  copyFile,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { gzipSync } from 'node:zlib';
import { createProgram } from '../cli/program.ts';
import { version as programVersion } from '../cli/version.ts';
import { exec } from '../lib/exec.ts';
import { bashCompletion } from './package/bash-completion.ts';
import { commandTree } from './package/command-tree.ts';
import { manPage } from './package/man-page.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const parts = join(root, 'scripts/package/files');

interface PackageOptions {
  readonly version: string;
  readonly fast: boolean;
  readonly out: string;
}

/** Debian's names of architectures by Node's. */
const architectures: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };

function architecture(): string {
  const name = architectures[process.arch];
  if (name === undefined)
    throw new Error(`no package is made for ${process.arch}: ${Object.keys(architectures).join(', ')} are known`);
  return name;
}

const control = (version: string, installedKb: number): string => `Package: stevedore
Version: ${version}
Architecture: ${architecture()}
Maintainer: Stevedore <stevedore@localhost>
Installed-Size: ${installedKb}
Section: admin
Priority: optional
Depends: containerd | containerd.io | cri-o | docker.io, iptables, nftables, conntrack, containernetworking-plugins | kubernetes-cni, init-system-helpers, kmod, mount, procps, util-linux, libc6 (>= 2.28), libgcc-s1, libstdc++6
Recommends: apparmor
Suggests: nfs-common
Description: node half of Kubernetes as one daemon
 Stevedore does on a node what kubelet and kube-proxy do together: it joins a
 Kubernetes control plane, runs its pods through containerd, CRI-O or Docker
 Engine, and makes its Services work.
`;

async function put(path: string, text: string | Uint8Array, mode = 0o644): Promise<void> {
  await mkdir(join(path, '..'), { recursive: true });
  await writeFile(path, text);
  await chmod(path, mode);
}

const part = (name: string): Promise<string> => readFile(join(parts, name), 'utf8');

// No hard links: tar takes a file whose count of links changes while it reads for one that changed, and gives up.
const copy = (from: string, to: string): Promise<void> => copyFile(from, to, constants.COPYFILE_FICLONE);

/** The files of the program itself, below a folder. */
async function putProgram(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  for (const name of ['stevedore', 'stevedore.mjs', 'node']) await copy(join(root, 'dist', name), join(folder, name));
  await mkdir(join(folder, 'parts'), { recursive: true });
  for (const name of await readdir(join(root, 'dist/parts')))
    await copy(join(root, 'dist/parts', name), join(folder, 'parts', name));
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

async function putTree(tree: string, version: string): Promise<void> {
  const commands = commandTree(createProgram());
  const usr = join(tree, 'usr');
  await putProgram(join(usr, 'lib/stevedore'));
  await mkdir(join(usr, 'bin'), { recursive: true });
  await symlink('../lib/stevedore/stevedore', join(usr, 'bin/stevedore'));
  await put(join(usr, 'lib/systemd/system/stevedore.service'), await readFile(join(root, 'systemd/stevedore.service')));
  await put(join(usr, 'lib/modules-load.d/stevedore.conf'), await part('modules-load.conf'));
  await put(join(usr, 'lib/sysctl.d/60-stevedore.conf'), await part('sysctl.conf'));
  await put(join(usr, 'share/stevedore/config.yaml'), await part('config.yaml'));
  await put(join(tree, 'etc/default/stevedore'), await part('default-stevedore'));
  await put(join(usr, 'share/man/man8/stevedore.8.gz'), gzipSync(manPage(commands, version), { level: 9 }));
  await put(join(usr, 'share/bash-completion/completions/stevedore'), bashCompletion(commands));
  const doc = join(usr, 'share/doc/stevedore');
  await put(
    join(doc, 'copyright'),
    `Stevedore ${version}\nLicense: Apache-2.0, whose text is in LICENSE beside this file. Node.js and the libraries in stevedore.mjs have licenses of their own.\n`,
  );
  await put(join(doc, 'LICENSE'), await readFile(join(root, 'LICENSE')));
  for (const name of ['install.md', 'join.md', 'upgrade.md', 'configuration.md', 'troubleshooting.md'])
    await put(join(doc, name), await readFile(join(root, 'docs', name)));
}

async function makeDeb({ version, fast, out }: PackageOptions): Promise<string> {
  const work = await mkdtemp(join(tmpdir(), 'stevedore-deb-'));
  try {
    await chmod(work, 0o755);
    await putTree(work, version);
    const files = await filesBelow(work);
    const sums: string[] = [];
    let bytes = 0;
    for (const file of files) {
      const data = await readFile(file);
      bytes += data.length;
      sums.push(`${createHash('md5').update(data).digest('hex')}  ${relative(work, file)}\n`);
    }
    const debian = join(work, 'DEBIAN');
    await put(join(debian, 'control'), control(version, Math.ceil(bytes / 1024)));
    await put(join(debian, 'md5sums'), sums.join(''));
    await put(join(debian, 'conffiles'), '/etc/default/stevedore\n');
    for (const name of ['postinst', 'prerm', 'postrm']) await put(join(debian, name), await part(name), 0o755);
    const path = join(out, `stevedore_${version}_${architecture()}.deb`);
    const compression = fast ? ['-Zgzip', '-z1'] : ['-Zxz', '-z6'];
    await exec('dpkg-deb', ['--root-owner-group', ...compression, '--build', work, `${path}.making`], {
      timeoutMs: 900_000,
    });
    await rename(`${path}.making`, path);
    return path;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** For hosts without dpkg: one folder with everything, to be copied where its README says. */
async function makeTarball({ version, fast, out }: PackageOptions): Promise<string> {
  const work = await mkdtemp(join(tmpdir(), 'stevedore-tar-'));
  try {
    const name = `stevedore-${version}`;
    const folder = join(work, name);
    const commands = commandTree(createProgram());
    await putProgram(folder);
    await cp(join(root, 'systemd/stevedore.service'), join(folder, 'stevedore.service'));
    await put(join(folder, 'stevedore.8'), manPage(commands, version));
    await put(join(folder, 'completion.bash'), bashCompletion(commands));
    for (const each of ['config.yaml', 'modules-load.conf', 'sysctl.conf'])
      await put(join(folder, each), await part(each));
    await put(join(folder, 'LICENSE'), await readFile(join(root, 'LICENSE')));
    await put(join(folder, 'INSTALL.md'), await readFile(join(root, 'docs/install.md')));
    const path = join(out, `${name}-linux-${architecture()}.tar.gz`);
    const env = { GZIP: '' };
    await exec(
      'tar',
      ['--owner=0', '--group=0', '-C', work, '-I', fast ? 'gzip -1' : 'gzip -9', '-cf', `${path}.making`, name],
      { env, timeoutMs: 900_000 },
    );
    await rename(`${path}.making`, path);
    return path;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

const { values } = parseArgs({
  options: {
    version: { type: 'string', default: programVersion },
    build: { type: 'boolean', default: true },
    tarball: { type: 'boolean', default: true },
    fast: { type: 'boolean', default: false },
    out: { type: 'string', default: join(root, 'dist') },
  },
  allowNegative: true,
});
if (values.build) process.stdout.write((await exec(process.execPath, [join(root, 'scripts/build.mjs')])).stdout);
await mkdir(values.out, { recursive: true });
const options: PackageOptions = { version: values.version, fast: values.fast, out: values.out };
const made = [await makeDeb(options), ...(values.tarball ? [await makeTarball(options)] : [])];
for (const path of made)
  process.stdout.write(`${relative(process.cwd(), path)}: ${((await stat(path)).size / 1e6).toFixed(1)} MB\n`);
