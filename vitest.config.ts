import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig } from 'vitest/config';

// Unit tests stand beside their source; what needs root, a runtime or the kernel stands in test/ and is run one file at a time.
const kernel = ['test/integration/**/*.test.ts'];

// These ask things that only a real API server answers (authorizers, certificates, streams of its own): no package brings one, so they run
// where KUBEBUILDER_ASSETS names a folder with etcd and kube-apiserver, and are named where it does not.
const realServer = [
  'join',
  'node-certificates',
  'node-registration',
  'node-server',
  'node-server-load',
  'volumes-certificates',
].map((name) => `test/integration/${name}.test.ts`);
const assets = process.env.KUBEBUILDER_ASSETS;
const hasServer = assets !== undefined && ['etcd', 'kube-apiserver'].every((name) => existsSync(join(assets, name)));
if (!hasServer && process.argv.includes('integration'))
  process.stderr.write(
    `not run, for want of KUBEBUILDER_ASSETS with etcd and kube-apiserver: ${realServer.join(', ')}\n`,
  );

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['**/*.test.ts'],
          exclude: ['node_modules/**', 'dist/**', ...kernel],
          testTimeout: 20_000,
        },
      },
      {
        test: {
          name: 'integration',
          include: kernel,
          exclude: ['node_modules/**', ...(hasServer ? [] : realServer)],
          testTimeout: 120_000,
          hookTimeout: 180_000,
          fileParallelism: false,
          pool: 'forks',
        },
      },
    ],
  },
});
