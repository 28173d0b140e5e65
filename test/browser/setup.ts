// SPDX-License-Identifier: AGPL-3.0-only
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import type { TestProject } from 'vitest/node'
import { findBrowser } from './browser.ts'
import { root } from './server.ts'

declare module 'vitest' {
  interface ProvidedContext {
    browserPath: string
  }
}

/** Builds what is tested, and says loudly when there is nothing to test it with. */
export function setup(project: TestProject): void {
  const browserPath = findBrowser()
  if (!browserPath && process.env['CI']) throw new Error('chromium is not installed: the browser suite cannot run')
  if (!browserPath) console.log('skipped: chromium is not installed')
  project.provide('browserPath', browserPath ?? '')
  if (browserPath) execFileSync(process.execPath, [join(root, 'core/dashboard/build.ts')], { stdio: ['ignore', 'ignore', 'inherit'] })
}
