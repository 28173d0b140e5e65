// SPDX-License-Identifier: AGPL-3.0-only
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: [
      'core/src/**/*.test.ts',
      'core/tools/**/*.test.ts',
      'core/dashboard/src/**/*.test.ts',
      'test/gates/**/*.test.ts',
      'packages/*/src/**/*.test.ts',
      'license-tools/src/**/*.test.ts',
      'enterprise/*/src/**/*.test.ts',
    ],
    globalSetup: ['core/src/testing-database.ts'],
    pool: 'forks',
    // Two cores: more workers only make real timers late.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    dangerouslyIgnoreUnhandledErrors: false,
  },
})
