// `vol_data.json`: what the kubelet notes beside a CSI volume, so that it can be taken down by somebody who knows nothing but the disk.
import { createHash } from 'node:crypto';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfThere, writeFileAtomic } from '../../../lib/files.ts';
import { namesIn } from '../remove-tree.ts';

export interface VolData {
  readonly specVolID?: string;
  readonly volumeHandle: string;
  readonly driverName: string;
  readonly nodeName?: string;
  readonly attachmentID?: string;
  readonly volumeLifecycleMode?: 'Persistent' | 'Ephemeral';
}

export const volDataFile = 'vol_data.json';

export async function saveVolData(folder: string, data: VolData): Promise<void> {
  await writeFileAtomic(join(folder, volDataFile), `${JSON.stringify(data)}\n`, 0o644);
}

/** Undefined where there is none, or none that says which volume it is of. */
export async function loadVolData(folder: string): Promise<VolData | undefined> {
  const text = await readFileIfThere(join(folder, volDataFile));
  if (text === undefined) return undefined;
  try {
    const data = JSON.parse(text) as Partial<VolData>;
    return data.volumeHandle && data.driverName ? (data as VolData) : undefined;
  } catch {
    return undefined;
  }
}

/** Removes the note, and what a crash left of one half written. */
export async function removeVolData(folder: string): Promise<void> {
  for (const name of await namesIn(folder))
    if (name === volDataFile || name.startsWith(`.${volDataFile}.`)) await rm(join(folder, name), { force: true });
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex');

/** Name of the VolumeAttachment that the attach controller makes. */
export const attachmentName = (handle: string, driver: string, nodeName: string): string =>
  `csi-${sha256(`${handle}${driver}${nodeName}`)}`;

/** The handle of an inline volume. */
export const inlineHandle = (podUid: string, volumeName: string): string => `csi-${sha256(`${podUid}${volumeName}`)}`;

/** As in node.status.volumesInUse and volumesAttached. */
export const uniqueVolumeName = (driver: string, handle: string): string => `kubernetes.io/csi/${driver}^${handle}`;
