import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { normalisePem } from './trust-anchors.ts';

const certificate = (name: string): string =>
  execFileSync(
    'openssl',
    [
      'req',
      '-x509',
      '-newkey',
      'ec',
      '-pkeyopt',
      'ec_paramgen_curve:P-256',
      '-nodes',
      '-keyout',
      '/dev/null',
      '-subj',
      `/CN=${name}`,
    ],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  ).trim();
const bundle = (trustBundle: string) => ({ metadata: { name: 'b' }, spec: { trustBundle } });

describe('normalisePem', () => {
  it('has every certificate once, in one order, without what stands around them', () => {
    const [a, b] = [certificate('a'), certificate('b')];
    const one = normalisePem([bundle(`some words\n${a}\n${b}\n`), bundle(a)]);
    expect(one).toBe(normalisePem([bundle(b), bundle(a)]));
    expect(one.match(/BEGIN CERTIFICATE/g)).toHaveLength(2);
    expect(one).not.toContain('words');
  });
  it('is empty for none', () => expect(normalisePem([])).toBe(''));
});
