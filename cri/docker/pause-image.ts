// The image that every sandbox runs: ours is made here and loaded where it is missing; another one is pulled.
import { Readable } from 'node:stream';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { pauseImage, pauseImageName } from '../local-images.ts';
import { abortable, type DockerConnection } from './connection.ts';
import { pullName } from './images.ts';

export async function provideImage(connection: DockerConnection, name: string): Promise<void> {
  const { docker } = connection;
  await connection.call('RunPodSandbox', undefined, 300_000, async (abortSignal) => {
    const stream =
      name === pauseImageName
        ? await docker.loadImage(
            Readable.from([imageArchive([pauseImage(imageArchitecture())])]),
            abortable(abortSignal, {}),
          )
        : ((await docker.pull(pullName(name), { abortSignal })) as NodeJS.ReadableStream);
    let said = '';
    for await (const chunk of stream) said += chunk.toString();
    const failed = /"error":"((?:[^"\\]|\\.)*)"/.exec(said)?.[1];
    if (failed !== undefined) throw new Error(`the sandbox image ${name} cannot be provided: ${failed}`);
  });
}
