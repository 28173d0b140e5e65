// SPDX-License-Identifier: AGPL-3.0-only
import { defineConfig } from 'vitest/config'

export default defineConfig({
  root: new URL('../..', import.meta.url).pathname,
  test: {
    include: ['test/browser/**/*.test.ts'],
    globalSetup: ['test/browser/setup.ts', 'core/src/testing-database.ts'],
    pool: 'forks',
    // Most of the time is waiting; more than two would make the limits of time in the tests late.
    maxWorkers: 2,
    maxConcurrency: 2,
    testTimeout: 60_000,
    // A condition may come late on a loaded machine; that it comes is what counts.
    expect: { poll: { timeout: 15_000 } },
    hookTimeout: 60_000,
  },
})
