// The proxy as a whole, with tools that answer and do nothing.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import * as v from 'valibot';
import { expect, it } from 'vitest';
import { createFakeClient } from '../kube/fake-client.ts';
import { resources } from '../kube/resources.ts';
import { systemClock } from '../lib/clock.ts';
import { silentLog } from '../lib/log.ts';
import { createRegistry } from '../lib/metrics.ts';
import type { BackendContext } from './backends.ts';
import { completeKubeProxyConfiguration, kubeProxyConfigurationFields } from './config.ts';
import { close, listen } from './health.ts';
import { createProxy } from './proxy.ts';

it('told to end while it looks for its tools, it ends', async () => {
  const client = createFakeClient();
  client.seed(resources.nodes, { metadata: { name: 'n1' }, spec: {} });
  const stop = new AbortController();
  const asked: string[] = [];
  const told: string[] = [];
  const context: BackendContext = {
    clock: systemClock,
    log: silentLog,
    monitor: {
      noteOwn: () => undefined,
      ownBegins: () => undefined,
      ownEnds: () => undefined,
      listening: () => Promise.resolve(),
      watch: () => () => undefined,
      running: true,
      run: () => Promise.resolve(),
    },
    exec(command, args) {
      asked.push([command, ...args].join(' '));
      stop.abort();
      return Promise.resolve({ stdout: args.includes('--version') ? 'iptables v1.8.9 (nf_tables)' : '', stderr: '' });
    },
  };
  const fields = v.parse(kubeProxyConfigurationFields, {
    healthzBindAddress: '127.0.0.1:0',
    metricsBindAddress: '127.0.0.1:0',
    conntrack: { maxPerCore: 0, tcpEstablishedTimeout: '0s', tcpCloseWaitTimeout: '0s' },
    iptables: { localhostNodePorts: false },
  });
  const proxy = createProxy(
    {
      client,
      clock: systemClock,
      log: silentLog,
      registry: createRegistry(),
      events: { record: (about, type, reason) => void told.push(`${about.kind} ${about.name} ${type} ${reason}`) },
      nodeName: 'n1',
      context,
      detectKubeProxy: () => Promise.resolve(undefined),
      hostAddresses: () => [],
    },
    completeKubeProxyConfiguration(fields),
  );
  await proxy.run(stop.signal);
  expect(asked).not.toEqual([]);
  expect(told).toEqual(['Node n1 Normal Starting']);
}, 5_000);

it('where the address of a server is taken and that is to be the end, the node is told', async () => {
  const client = createFakeClient();
  const taken = createServer();
  await listen(taken, '127.0.0.1', 0);
  const told: string[] = [];
  const proxy = createProxy(
    {
      client,
      clock: systemClock,
      log: silentLog,
      registry: createRegistry(),
      events: { record: (_about, type, reason) => void told.push(`${type} ${reason}`) },
      nodeName: 'n1',
      // It stands by meanwhile: nothing of this host is touched.
      detectKubeProxy: () => Promise.resolve('kube-proxy'),
      hostAddresses: () => [],
    },
    completeKubeProxyConfiguration(
      v.parse(kubeProxyConfigurationFields, {
        bindAddressHardFail: true,
        healthzBindAddress: '127.0.0.1:0',
        metricsBindAddress: `127.0.0.1:${(taken.address() as AddressInfo).port}`,
      }),
    ),
  );
  const stop = new AbortController();
  try {
    await expect(proxy.run(stop.signal)).rejects.toThrow('the metrics server cannot listen');
    expect(told).toEqual(['Warning FailedToStartMetricServer']);
  } finally {
    stop.abort();
    await close(taken);
  }
}, 5_000);
