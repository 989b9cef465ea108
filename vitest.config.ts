import { defineConfig } from 'vitest/config';

// Unit tests stand beside their source; what needs root, a runtime or the kernel stands in test/ and is run one file at a time.
const kernel = ['test/integration/**/*.test.ts'];

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
          testTimeout: 120_000,
          hookTimeout: 180_000,
          fileParallelism: false,
          pool: 'forks',
        },
      },
    ],
  },
});
