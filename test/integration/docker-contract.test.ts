// The Docker adapter on a real dockerd (Debian's docker.io): the port's contract.
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe } from 'vitest';
import { type ContractSubject, runtimeContract } from '../../cri/contract.ts';
import { createDockerRuntime } from '../../cri/docker/docker-runtime.ts';
import { demoImage, demoImageName, readBusybox } from '../../cri/local-images.ts';
import type { Runtime } from '../../cri/runtime.ts';
import { systemClock } from '../../lib/clock.ts';
import { silentLog } from '../../lib/log.ts';
import { imageArchitecture, imageArchive } from '../../lib/oci-image.ts';
import { removeCgroups } from '../lab/cgroups.ts';
import { type Dockerd, startDockerd } from '../lab/dockerd.ts';

describe('Docker Engine', () => {
  let dockerd: Dockerd;
  let runtime: Runtime;
  let folder: string;
  const open = (socketPath: string, state: string): Runtime =>
    createDockerRuntime(
      { log: silentLog, clock: systemClock },
      {
        socketPath,
        cniConfDir: dockerd.cniConfDir,
        cniBinDirs: [dockerd.cniBinDir],
        stateDir: join(folder, state),
      },
    );

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sv-dk-'));
    await mkdir(join(folder, 'logs'));
    dockerd = await startDockerd({ dir: join(folder, 'd') });
    await dockerd.loadImage(imageArchive([demoImage(imageArchitecture(), await readBusybox())]));
    runtime = open(dockerd.socket, 'state');
  });

  afterAll(async () => {
    await runtime?.close();
    await dockerd?.stop();
    await removeCgroups('stevedore-contract');
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  const subject = (): ContractSubject => ({
    runtime,
    image: demoImageName,
    logDirectory: join(folder, 'logs'),
    cgroupParent: '/stevedore-contract',
    real: true,
    // Docker does not tell which user and groups a process was started with.
    quirks: ['no-user-in-status'],
    unreachable: () => open(join(folder, 'nobody.sock'), 'none'),
    pass: (ms) => sleep(ms),
  });

  runtimeContract('Docker Engine', subject);
});
