import { describe, expect, it } from 'vitest';
import { describeError } from './log.ts';

describe('the words of an error', () => {
  it('say the chain of causes, each once', () => {
    const error = new Error('cannot start', { cause: new Error('no socket', { cause: new Error('ENOENT') }) });
    expect(describeError(error)).toBe('cannot start: no socket: ENOENT');
    expect(describeError(new Error('cannot start: ENOENT', { cause: new Error('ENOENT') }))).toBe(
      'cannot start: ENOENT',
    );
  });
  it('do not repeat what a cause only says with another prefix', () => {
    const wire = new Error('2 UNKNOWN: no such image');
    const call = new Error('PullImage: no such image', { cause: wire });
    expect(describeError(new Error('no such image', { cause: call }))).toBe('no such image');
    expect(describeError(call)).toBe('PullImage: no such image');
  });
});
