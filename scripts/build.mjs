// Builds dist/: the program, the Node that package.json pins beside it, and `stevedore`, which starts one with the other from any folder and
// through any link. What only some commands need (Docker's client, certificates, the inventory of a host) is in files of its own under
// parts/: a daemon that never loads them does not pay for them.
import { chmod, copyFile, link, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const dist = `${root}dist`;
const { version } = JSON.parse(await readFile(`${root}package.json`, 'utf8'));

// Imported as an ES module, node:http costs a process 14 MB and 50 ms: its namespace asks for all that it exports, WebSocket too, and for that Node loads its own undici.
const plainHttp = {
  name: 'plain-http',
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^(node:)?http$/ }, ({ kind }) =>
      kind === 'require-call' ? undefined : { path: 'node:http', namespace: 'plain-http' },
    );
    onLoad({ filter: /./, namespace: 'plain-http' }, () => ({
      contents: "module.exports = process.getBuiltinModule('node:http');",
    }));
  },
};

await mkdir(dist, { recursive: true });
await rm(`${dist}/parts`, { recursive: true, force: true });
const result = await build({
  absWorkingDir: root,
  entryPoints: ['cli/stevedore.ts'],
  outdir: dist,
  outExtension: { '.js': '.mjs' },
  chunkNames: 'parts/[hash]',
  splitting: true,
  bundle: true,
  // Of undici only the client is used; its index brings fetch, WebSocket and caches, and 10 MB.
  alias: { undici: './scripts/undici-client.cjs' },
  plugins: [plainHttp],
  platform: 'node',
  format: 'esm',
  target: 'node22',
  legalComments: 'none',
  minifySyntax: true,
  minifyWhitespace: true,
  metafile: true,
  // Optional native parts of what dockerode brings; it does without.
  external: ['*.node', 'cpu-features'],
  // Packages in CommonJS ask for Node's own modules with require.
  banner: {
    js: "import { createRequire as stevedoreRequire } from 'node:module'; const require = stevedoreRequire(import.meta.url); const __filename = import.meta.filename; const __dirname = import.meta.dirname;",
  },
  logLevel: 'warning',
});

// A link where the file system allows it: the binary is large.
const node = `${dist}/node`;
await rm(node, { force: true });
await link(`${root}node_modules/node/bin/node`, node).catch(() => copyFile(`${root}node_modules/node/bin/node`, node));
await chmod(node, 0o755);

const wrapper = `#!/bin/sh
# Starts stevedore.mjs with the Node beside it; without one, with that of the PATH.
self=$(readlink -f -- "$0") || exit 1
here=\${self%/*}
node=$here/node
# Keeps its memory small rather than its collections few: 20 MB less with 100 pods for no more processor time. Not every Node's V8 knows the word.
saver=--memory-saver-mode
if [ ! -x "$node" ]; then
  node=$(command -v node) || { echo "stevedore: no Node: neither $here/node nor one on PATH" >&2; exit 1; }
  saver=
fi
# A small young generation (at 1 MB it costs a tenth more processor time, at 16 it costs memory) and a heap that grows slowly: the daemon keeps little, and V8's defaults keep what it once used (docs/adr/0003).
# One heap for the C library too, and what it frees goes back: its usual several keep 10 MB more.
export MALLOC_ARENA_MAX="\${MALLOC_ARENA_MAX:-1}" MALLOC_TRIM_THRESHOLD_="\${MALLOC_TRIM_THRESHOLD_:-131072}"
# Room for what a start needs at once, given back half a minute later (cli/settle.ts): else V8 collects eight times before a hundred pods are looked at, and compiles anew what it dropped.
# As a service it also keeps what it compiled for its next start.
[ -z "\${CACHE_DIRECTORY:-}" ] || export NODE_COMPILE_CACHE="\${NODE_COMPILE_CACHE:-$CACHE_DIRECTORY/code}"
exec "$node" --max-semi-space-size=4 --heap-growing-percent=30 --initial-old-space-size=48 $saver "$here/stevedore.mjs" "$@"
`;
await writeFile(`${dist}/stevedore`, wrapper);
await chmod(`${dist}/stevedore`, 0o755);

const outputs = Object.values(result.metafile.outputs);
const size = outputs.reduce((sum, { bytes }) => sum + bytes, 0);
const inputs = Object.keys(result.metafile.inputs).length;
process.stdout.write(
  `dist/stevedore ${version}: ${inputs} files in ${outputs.length} of ${(size / 1e6).toFixed(1)} MB\n`,
);
