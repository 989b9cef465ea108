// Creates a container under a name that must be its own, whatever an earlier, half-done call left behind.

import { randomBytes } from 'node:crypto';
import type Docker from 'dockerode';
import type { ContainerCreateOptions } from 'dockerode';
import { RuntimeError } from '../errors.ts';
import { classifyError, type DockerConnection, statusOf, wordsOf } from './connection.ts';

export interface Making {
  /**
   * `isHalfMade` says whether the holder of the name may be removed by `remove`; else the call rejects with `already-exists`. Resolves with
   * the new container's id.
   */
  create(
    call: string,
    spec: ContainerCreateOptions,
    isHalfMade: (holder: Docker.ContainerInspectInfo) => Promise<boolean>,
    remove: (id: string) => Promise<void>,
  ): Promise<string>;
  /** Whether this process's caller was told of the container: then it is not half-made. */
  handedOut(id: string): boolean;
  handOut(id: string): void;
  forget(id: string): void;
}

export function createMaking(connection: DockerConnection): Making {
  const names = new Set<string>();
  const out = new Set<string>();
  const { docker } = connection;

  async function holderOf(call: string, error: RuntimeError): Promise<Docker.ContainerInspectInfo | undefined> {
    const id = /in use by container "?([0-9a-f]{12,64})/.exec(error.detail)?.[1];
    if (id === undefined) throw error;
    return connection.call(call, undefined, 30_000, async (abortSignal) =>
      docker
        .getContainer(id)
        .inspect({ abortSignal })
        .catch((inner: unknown) => {
          if (statusOf(inner) === 404) return undefined;
          throw inner;
        }),
    );
  }

  const createOnce = async (call: string, spec: ContainerCreateOptions): Promise<string> => {
    const container = await connection.call(call, undefined, 120_000, (abortSignal) =>
      docker.createContainer({ ...spec, abortSignal }),
    );
    return container.id;
  };

  return {
    async create(call, spec, isHalfMade, remove) {
      const name = spec.name ?? '';
      const taken = (): RuntimeError =>
        new RuntimeError('already-exists', call, `name ${JSON.stringify(name)} is reserved`);
      if (names.has(name)) throw taken();
      names.add(name);
      try {
        try {
          return await createOnce(call, spec);
        } catch (error) {
          if (!(error instanceof RuntimeError) || error.code !== 'already-exists') throw error;
          const holder = await holderOf(call, error);
          // The daemon remembers a name whose container is nowhere; only another name helps.
          if (!holder) return await createOnce(call, { ...spec, name: `${name}_${randomBytes(4).toString('hex')}` });
          if (!(await isHalfMade(holder))) throw taken();
          await remove(holder.Id);
          return await createOnce(call, spec);
        }
      } finally {
        names.delete(name);
      }
    },
    handedOut: (id) => out.has(id),
    handOut: (id) => void out.add(id),
    forget: (id) => void out.delete(id),
  };
}

const removing = /removal of container .* is already in progress/i;

/** Removes a container, running or not, with its anonymous volumes; resolves when it is gone. */
export async function removeForGood(connection: DockerConnection, call: string, id: string): Promise<void> {
  const container = connection.docker.getContainer(id);
  await connection.call(call, undefined, 120_000, async (abortSignal) => {
    try {
      await container.remove({ force: true, v: true, abortSignal });
    } catch (error) {
      if (statusOf(error) === 404) return;
      if (!removing.test(wordsOf(error))) throw error;
      // Somebody else is at it: it is gone when they are done.
      await container.wait({ condition: 'removed', abortSignal } as object).catch((inner: unknown) => {
        if (statusOf(inner) !== 404) throw classifyError(call, inner);
      });
    }
  });
}

/** Ends a container at once; ended or gone is what was wanted. */
export async function killForGood(connection: DockerConnection, call: string, id: string): Promise<void> {
  await connection.call(call, undefined, 120_000, async (abortSignal) => {
    try {
      await connection.docker.getContainer(id).kill({ signal: 'SIGKILL', abortSignal });
    } catch (error) {
      const status = statusOf(error);
      if (status !== 404 && status !== 409 && !/is not running/i.test(wordsOf(error))) throw error;
    }
  });
}
