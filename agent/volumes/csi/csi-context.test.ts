import { expect, it } from 'vitest';
import { createFakeClient } from '../../../kube/fake-client.ts';
import { resources } from '../../../kube/resources.ts';
import type { PersistentVolume } from '../../../kube/types/volume.ts';
import { createFakeClock } from '../../../lib/fake-clock.ts';
import type { VolumeHost } from '../volume-driver.ts';
import { publishContext } from './csi-context.ts';
import { attachmentName } from './vol-data.ts';

it.each([
  ['ResourceExhausted', 8, ['disk.example.com']],
  ['any other trouble', 14, []],
  ['trouble without a code', undefined, []],
])('a volume that cannot be attached for %s', async (_what, errorCode, expected) => {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  const exhausted: string[] = [];
  const host = {
    client,
    clock,
    nodeName: 'n',
    node: () => undefined,
    csi: {
      exhausted(driver: string) {
        exhausted.push(driver);
        return true;
      },
    },
  } as unknown as VolumeHost;
  client.seed(resources.volumeAttachments, {
    metadata: { name: attachmentName('v1', 'disk.example.com', 'n') },
    spec: { attacher: 'disk.example.com', nodeName: 'n', source: { persistentVolumeName: 'pv' } },
    status: {
      attached: false,
      attachError: { message: 'no room', ...(errorCode === undefined ? {} : { errorCode }) },
    },
  });
  const pv = {
    metadata: { name: 'pv' },
    spec: { csi: { driver: 'disk.example.com', volumeHandle: 'v1' } },
  } as PersistentVolume;
  const sinceMs = clock.now();
  const attached = () => publishContext(host, pv, sinceMs, new AbortController().signal);
  await expect(attached()).rejects.toThrow('AttachVolume.Attach for volume "pv" : no room');
  expect(exhausted).toEqual(expected);
  await clock.advance(123_000);
  await expect(attached()).rejects.toMatchObject(
    expected.length === 0
      ? { reason: 'FailedAttachVolume' }
      : {
          reason: 'VolumeAttachmentLimitExceeded',
          message: 'Node has reached its volume attachment limit, rejecting pod. unattached volumes=[pv]: no room',
        },
  );
});
