// The client of a node that runs alone: there is no API server, and every call says so.
import type { KubeClient } from './client.ts';

export class NoApiServerError extends Error {
  override name = 'NoApiServerError';
  constructor() {
    super('this node runs without an API server (no kubeconfig is configured)');
  }
}

const refuse = (): Promise<never> => Promise.reject(new NoApiServerError());

export function createNoClient(): KubeClient {
  return {
    get: refuse,
    list: refuse,
    watch: () => ({ [Symbol.asyncIterator]: () => ({ next: refuse }) }),
    create: refuse,
    update: refuse,
    patch: refuse,
    delete: refuse,
    raw: refuse,
    close: async () => undefined,
  };
}
