import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { isGone } from './errors.ts';
import { createLineSplitter, parseWatchLine } from './watch-decoder.ts';

describe('the watch decoder', () => {
  it('gives the same lines however the bytes are cut', () => {
    fc.assert(
      fc.property(
        fc.array(fc.jsonValue(), { maxLength: 8 }),
        fc.array(fc.nat(40), { maxLength: 40 }),
        (values, cuts) => {
          const lines = values.map((value) => JSON.stringify({ value, umlaut: 'äöü€𝄞' }));
          const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''));
          const split = createLineSplitter();
          const got: string[] = [];
          let at = 0;
          for (const cut of cuts) {
            got.push(...split(bytes.subarray(at, at + cut)));
            at += cut;
          }
          got.push(...split(bytes.subarray(at)));
          expect(got).toEqual(lines);
        },
      ),
    );
  });

  it('reads events, bookmarks and the end of the initial ones', () => {
    const object = { metadata: { name: 'a', resourceVersion: '7' } };
    expect(parseWatchLine('w', JSON.stringify({ type: 'ADDED', object }))).toEqual({ type: 'ADDED', object });
    expect(parseWatchLine('w', JSON.stringify({ type: 'BOOKMARK', object }))).toEqual({
      type: 'BOOKMARK',
      resourceVersion: '7',
      initialEventsEnd: false,
    });
    const end = { metadata: { resourceVersion: '8', annotations: { 'k8s.io/initial-events-end': 'true' } } };
    expect(parseWatchLine('w', JSON.stringify({ type: 'BOOKMARK', object: end }))).toMatchObject({
      initialEventsEnd: true,
    });
  });

  it('throws what the server says is wrong, and what it cannot read', () => {
    const status = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old resource version' };
    expect(() => parseWatchLine('watch /x', JSON.stringify({ type: 'ERROR', object: status }))).toThrow(
      expect.toSatisfy((error) => isGone(error) && /watch \/x: too old/.test((error as Error).message)),
    );
    expect(() => parseWatchLine('w', '{')).toThrow(/no JSON/);
    expect(() => parseWatchLine('w', '{"type":"ODD","object":{}}')).toThrow(/ODD/);
    expect(() => parseWatchLine('w', '{"type":"ADDED"}')).toThrow(/without an object/);
  });
});
