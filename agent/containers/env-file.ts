// Variables read from a file in a volume (fileKeyRef): the format, and how the file is reached without leaving the volume.
import { lstat, open, readlink } from 'node:fs/promises';
import { join } from 'node:path';

const maxBytes = 64 * 1024;

/**
 * The value of `key`, or '' where the file has none. Lines are `NAME='value'`; values in single quotes may span lines; `#` begins a comment.
 * Throws an Error that says what is wrong with the file, on which line.
 */
export function parseEnvFile(text: string, key: string): string {
  const lines = text.split('\n').map((line) => line.replace(/\r$/, ''));
  if (lines.at(-1) === '') lines.pop();
  const bad = (line: number, what: string): Error =>
    new Error(`invalid environment variable format at line ${line}: ${what}`);
  for (let index = 0; index < lines.length; index++) {
    const line = (lines[index] ?? '').replace(/^[ \t]+/, '');
    const start = index + 1;
    if (line === '' || line.startsWith('#')) continue;
    const equals = line.indexOf('=');
    if (equals < 0) throw bad(start, "missing '='");
    const name = line.slice(0, equals);
    if (name.trim() === '') throw bad(start, 'empty variable name');
    if (/[ \t]$/.test(name)) throw bad(start, "whitespace before '=' is not allowed");
    let rest = line.slice(equals + 1);
    if (/^[ \t]/.test(rest)) {
      if (name === key) return '';
      continue;
    }
    if (!rest.startsWith("'")) throw bad(start, 'value must be enclosed in single quotes');
    rest = rest.slice(1);
    let value = '';
    while (!rest.includes("'")) {
      value += `${rest}\n`;
      const next = lines[++index];
      if (next === undefined)
        throw new Error(`invalid environment variable format starting at line ${start}: unclosed single quote`);
      rest = next;
    }
    const close = rest.indexOf("'");
    const after = rest.slice(close + 1).replace(/^[ \t]+/, '');
    if (after !== '' && !after.startsWith('#')) throw bad(index + 1, 'unexpected content after closing quote');
    if (name === key) return value + rest.slice(0, close);
  }
  return '';
}

/** The path inside `root` that `path` means to a process whose root directory that is: links cannot lead out of it. */
export async function resolveInside(root: string, path: string): Promise<string> {
  let pending = path.split('/').filter((part) => part !== '' && part !== '.');
  let inside: string[] = [];
  for (let links = 0; pending.length > 0; ) {
    const [part = '', ...rest] = pending;
    pending = rest;
    if (part === '..') {
      inside = inside.slice(0, -1);
      continue;
    }
    const candidate = join(root, ...inside, part);
    const isLink = await lstat(candidate).then(
      (stats) => stats.isSymbolicLink(),
      () => false,
    );
    if (!isLink) {
      inside.push(part);
      continue;
    }
    if (++links > 255) throw new Error(`too many links in ${path}`);
    const target = await readlink(candidate);
    if (target.startsWith('/')) inside = [];
    pending = [...target.split('/').filter((each) => each !== '' && each !== '.'), ...pending];
  }
  return join(root, ...inside);
}

/** The value of `key` in the file at `path` in a volume that is mounted at `root`. Rejects where the file cannot be read or is malformed. */
export async function readEnvFile(root: string, path: string, key: string): Promise<string> {
  const file = await open(await resolveInside(root, path), 'r');
  try {
    const { size } = await file.stat();
    if (size > maxBytes) throw new Error(`the file has ${size} bytes, more than ${maxBytes}`);
    return parseEnvFile(await file.readFile('utf8'), key);
  } finally {
    await file.close();
  }
}
