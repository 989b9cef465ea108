// Events reach a slow reader in order, or as `lost`.
import { describe, expect, it } from 'vitest';
import { createEventBuffer } from './event-buffer.ts';
import type { RuntimeEvent } from './types.ts';

const event = (id: string): RuntimeEvent => ({
  kind: 'started',
  containerId: id,
  sandboxId: undefined,
  podUid: undefined,
});

describe('the event buffer', () => {
  it('hands on in order what came before and after the reader, and ends', async () => {
    const buffer = createEventBuffer();
    buffer.push(event('a'));
    const seen: RuntimeEvent[] = [];
    const reading = (async () => {
      for await (const item of buffer.drain()) seen.push(item);
    })();
    await Promise.resolve();
    buffer.push(event('b'));
    buffer.push(event('c'));
    buffer.end();
    buffer.push(event('late'));
    await reading;
    expect(seen).toEqual([event('a'), event('b'), event('c')]);
  });

  it('says lost in place of what does not fit, and keeps what comes after', async () => {
    const buffer = createEventBuffer(3);
    for (const id of ['a', 'b', 'c', 'd', 'e']) buffer.push(event(id));
    buffer.end();
    const seen: RuntimeEvent[] = [];
    for await (const item of buffer.drain()) seen.push(item);
    expect(seen).toEqual([{ kind: 'lost' }, event('e')]);
  });
});
