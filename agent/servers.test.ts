import { describe, expect, it } from 'vitest';
import { defaultKubeletConfiguration } from './config.ts';
import { listenersOf, listenOnAll } from './servers.ts';

const log: string[] = [];
const server = (name: string, taken = false) => ({
  async listen() {
    if (taken) throw Object.assign(new Error('listen'), { code: 'EADDRINUSE' });
    log.push(`${name} listens`);
  },
  async close() {
    log.push(`${name} closes`);
  },
});
const servers = { node: server('node'), health: server('health'), readOnly: server('read-only') };

describe('listenersOf', () => {
  it.each([
    [{}, ['node 0.0.0.0:10250', 'health 127.0.0.1:10248']],
    [{ enableServer: false }, ['health 127.0.0.1:10248']],
    [{ readOnlyPort: 10_255, healthzPort: 0 }, ['node 0.0.0.0:10250', 'read-only 0.0.0.0:10255']],
    [{ enableServer: false, healthzPort: 0 }, []],
  ])('%j', (given, expected) => {
    const name = (one: unknown): string => Object.entries(servers).find(([, each]) => each === one)![0];
    const found = listenersOf({ ...defaultKubeletConfiguration(), ...given }, servers);
    expect(
      found.map((one) => `${name(one.server).replace('readOnly', 'read-only')} ${one.address}:${one.port}`),
    ).toEqual(expected);
  });
});

describe('listenOnAll', () => {
  const one = (name: string, taken = false) => ({
    what: name,
    server: server(name, taken),
    address: '127.0.0.1',
    port: 1,
  });

  it('binds all, and closes them', async () => {
    log.length = 0;
    const close = await listenOnAll([one('a'), one('b')]);
    await close();
    expect(log).toEqual(['a listens', 'b listens', 'a closes', 'b closes']);
  });

  it('leaves none open where one is taken, and says which', async () => {
    log.length = 0;
    await expect(listenOnAll([one('a'), one('b', true), one('c')])).rejects.toThrow(
      'b cannot listen on 127.0.0.1:1: another program listens there',
    );
    expect(log).toEqual(['a listens', 'a closes']);
  });
});
