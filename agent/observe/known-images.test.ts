// What is known of images, and until when.
import { expect, it } from 'vitest';
import type { Runtime } from '../../cri/runtime.ts';
import type { Image } from '../../cri/types.ts';
import { createKnownImages } from './known-images.ts';

function setUp() {
  const asked: string[] = [];
  const there = new Map([['a', 'sha256:1']]);
  let meanwhile: (() => void) | undefined;
  const { runtime, changed } = createKnownImages({
    imageStatus: async ({ image }: { image: string }) => {
      asked.push(image);
      const id = there.get(image);
      await Promise.resolve(meanwhile?.());
      return id === undefined ? undefined : ({ id } as Image);
    },
    pullImage: ({ image }: { image: string }) => Promise.resolve(void there.set(image, 'sha256:2')),
    removeImage: ({ image }: { image: string }) => Promise.resolve(void there.delete(image)),
  } as unknown as Runtime);
  const idOf = async (image: string) => (await runtime.imageStatus({ image }))?.id;
  return {
    ...{ asked, there, changed, runtime, idOf },
    during: (what: () => void) => (meanwhile = what),
  };
}

it('asks every time while changes are not told of', async () => {
  const { asked, changed, idOf } = setUp();
  expect([await idOf('a'), await idOf('a')]).toEqual(['sha256:1', 'sha256:1']);
  changed(true);
  changed(false);
  await idOf('a');
  await idOf('a');
  expect(asked.length).toBe(4);
});

it('asks once while they are, and again after each', async () => {
  const { asked, there, changed, idOf } = setUp();
  changed(true);
  await idOf('a');
  expect(await idOf('a')).toBe('sha256:1');
  expect(asked.length).toBe(1);
  there.set('a', 'sha256:3');
  changed(true);
  expect(await idOf('a')).toBe('sha256:3');
  expect(asked.length).toBe(2);
});

it('does not remember what is not there, nor an answer that a change has overtaken', async () => {
  const { asked, changed, idOf, during } = setUp();
  changed(true);
  expect(await idOf('b')).toBeUndefined();
  expect(await idOf('b')).toBeUndefined();
  expect(asked).toEqual(['b', 'b']);
  during(() => changed(true));
  await idOf('a');
  during(() => undefined);
  await idOf('a');
  expect(asked).toEqual(['b', 'b', 'a', 'a']);
});

it('forgets at what is pulled and removed here, before it is told of', async () => {
  const { changed, idOf, runtime } = setUp();
  changed(true);
  await idOf('a');
  await runtime.pullImage({ image: 'a' }, undefined, {} as never);
  expect(await idOf('a')).toBe('sha256:2');
  await runtime.removeImage({ image: 'a' });
  expect(await idOf('a')).toBeUndefined();
});

it('tells handlers of the runtime apart', async () => {
  const { asked, changed, runtime } = setUp();
  changed(true);
  await runtime.imageStatus({ image: 'a' });
  await runtime.imageStatus({ image: 'a', runtimeHandler: 'kata' });
  expect(asked.length).toBe(2);
});
