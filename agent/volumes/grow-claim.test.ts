import { describe, expect, it } from 'vitest';
import { createFakeClient } from '../../kube/fake-client.ts';
import { resources } from '../../kube/resources.ts';
import type { PersistentVolume, PersistentVolumeClaim } from '../../kube/types/volume.ts';
import { createFakeClock } from '../../lib/fake-clock.ts';
import { silentLog } from '../../lib/log.ts';
import { PluginError } from './csi/grpc-call.ts';
import { growIfLarger } from './grow-claim.ts';
import type { SetUpRequest, VolumeHost } from './volume-driver.ts';

type Status = NonNullable<PersistentVolumeClaim['status']>;
const pending: Status = {
  capacity: { storage: '1Gi' },
  allocatedResources: { storage: '2Gi' },
  allocatedResourceStatuses: { storage: 'NodeResizePending' },
  conditions: [{ type: 'FileSystemResizePending', status: 'True' }],
};
const refusal = (code: string, final = true) => new PluginError(code, final, `rpc error: code = ${code} desc = no`);

/** Lets a volume of 2Gi grow whose claim is so; tells what the claim was while it grew, what it is then, and the Events. */
async function grown(status: Status, { failure, asked = '2Gi' }: { failure?: Error; asked?: string } = {}) {
  const clock = createFakeClock();
  const client = createFakeClient({ clock });
  const events: string[] = [];
  const host = {
    client,
    clock,
    log: silentLog,
    nodeName: 'n',
    events: {
      record: (about: { kind: string }, _type: string, reason: string) => void events.push(`${about.kind} ${reason}`),
    },
  } as unknown as VolumeHost;
  const [claim] = client.seed(resources.persistentVolumeClaims, {
    metadata: { name: 'c', namespace: 'd' },
    spec: { resources: { requests: { storage: asked } } },
    status,
  });
  const now = (): Status => client.find(resources.persistentVolumeClaims, { namespace: 'd', name: 'c' })!.status!;
  let meanwhile: Status | undefined;
  const request = {
    signal: new AbortController().signal,
    pod: { metadata: { name: 'p', namespace: 'd' }, spec: { containers: [] } },
  } as unknown as SetUpRequest;
  const pv = { metadata: { name: 'pv' }, spec: { capacity: { storage: '2Gi' } } } as PersistentVolume;
  await growIfLarger(host, request, { claim: claim!, pv, readOnly: false, block: false }, async (bytes) => {
    expect(bytes).toBe(2n ** 31n);
    meanwhile = now();
    if (failure) throw failure;
  });
  return { meanwhile, after: now(), events };
}

describe('a volume that grows on the node', () => {
  it('is being resized, and then is as large as it should be', async () => {
    const { meanwhile, after, events } = await grown({
      ...pending,
      conditions: [
        ...pending.conditions!,
        { type: 'NodeResizeError', status: 'True' },
        { type: 'Own', status: 'True' },
      ],
    });
    expect(meanwhile).toMatchObject({ allocatedResourceStatuses: { storage: 'NodeResizeInProgress' } });
    expect(after).toMatchObject({ capacity: { storage: '2Gi' }, conditions: [{ type: 'Own', status: 'True' }] });
    expect(after.allocatedResourceStatuses?.storage).toBeUndefined();
    expect(events).toEqual(['Pod FileSystemResizeSuccessful', 'PersistentVolumeClaim FileSystemResizeSuccessful']);
  });

  it.each(['InvalidArgument', 'OutOfRange', 'NotFound'])(
    'that the driver refuses for good (%s) is not tried again',
    async (code) => {
      const { after, events } = await grown(pending, { failure: refusal(code) });
      expect(after).toMatchObject({
        capacity: { storage: '1Gi' },
        allocatedResourceStatuses: { storage: 'NodeResizeInfeasible' },
        conditions: [
          { type: 'FileSystemResizePending' },
          {
            type: 'NodeResizeError',
            status: 'True',
            message: `failed to expand pvc with rpc error: code = ${code} desc = no`,
          },
        ],
      });
      expect(events).toEqual(['Pod VolumeResizeFailed']);
      expect((await grown(after)).meanwhile).toBeUndefined();
    },
  );

  it('that fails otherwise is tried again, and says why it failed first', async () => {
    const { after } = await grown(pending, { failure: refusal('Internal') });
    expect(after.allocatedResourceStatuses).toEqual({ storage: 'NodeResizeInProgress' });
    expect(after.conditions?.map(({ type }) => type)).toEqual(['FileSystemResizePending', 'NodeResizeError']);
    const again = await grown(after, { failure: new Error('something else') });
    expect(again.after.conditions).toEqual(after.conditions);
    expect((await grown(after)).after.capacity).toEqual({ storage: '2Gi' });
  });

  it('that failed gives way to another size, where its owner asks for one', async () => {
    const { after } = await grown(pending, { failure: refusal('Internal') });
    const { after: then } = await grown(after, { failure: refusal('Internal'), asked: '1500Mi' });
    expect(then.allocatedResourceStatuses).toEqual({ storage: 'NodeResizeInfeasible' });
  });

  it('says nothing of a failure after which it may still be growing', async () => {
    const { after } = await grown(pending, { failure: refusal('DeadlineExceeded', false) });
    expect(after).toEqual({ ...pending, allocatedResourceStatuses: { storage: 'NodeResizeInProgress' } });
  });

  it.each([
    ['ControllerResizeInProgress', { allocatedResourceStatuses: { storage: 'ControllerResizeInProgress' } }],
    ['NodeResizeInfeasible', { allocatedResourceStatuses: { storage: 'NodeResizeInfeasible' } }],
    ['a size that no controller is done with', { allocatedResources: { storage: '2Gi' } }],
  ])('waits at %s', async (_what, more) => {
    const status = { capacity: { storage: '1Gi' }, ...more };
    expect(await grown(status)).toEqual({ meanwhile: undefined, after: status, events: [] });
  });

  it('goes by its capacity alone where no controller tells more', async () => {
    const { meanwhile, after } = await grown({ capacity: { storage: '1Gi' } });
    expect(meanwhile).toEqual({ capacity: { storage: '1Gi' } });
    expect(after.capacity).toEqual({ storage: '2Gi' });
    const failed = await grown({ capacity: { storage: '1Gi' } }, { failure: refusal('OutOfRange') });
    expect(failed.after).toEqual({ capacity: { storage: '1Gi' } });
    expect(failed.events).toEqual(['Pod VolumeResizeFailed']);
  });
});
