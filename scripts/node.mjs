// Runs a program on the Node that package.json pins, whatever Node the host has: `node scripts/node.mjs PROGRAM ARGS…`.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const pinned = fileURLToPath(new URL('../node_modules/node/bin/node', import.meta.url));
const node = existsSync(pinned) ? pinned : process.execPath;
const { status, signal } = spawnSync(node, process.argv.slice(2), { stdio: 'inherit' });
if (signal) process.kill(process.pid, signal);
process.exit(status ?? 1);
