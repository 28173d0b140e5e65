// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { Config } from '../config.ts'
import type { Log } from '../log.ts'
import { rootDir } from '../version.ts'
import { isBuildStale } from './pages.ts'

/** From a checkout the dashboard is built when it is missing or stale, in a process of its own; API and ingest are up meanwhile. */
export function buildDashboard(config: Config, log: Log, done: () => void): void {
  const folder = join(rootDir, 'core/dashboard')
  if (config.http.port === 'off' || !config.buildsDashboard || !isBuildStale(folder)) return
  log.info('building the dashboard')
  const child = spawn(process.execPath, [join(folder, 'build.ts')], { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] })
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk))
  child.once('error', (error) => log.error({ err: error }, 'the dashboard could not be built'))
  child.once('close', (code) => {
    if (code === 0) log.info('the dashboard is built')
    else log.error({ code, output: errors.slice(-2000) }, 'the dashboard could not be built')
    done()
  })
  // A build must not outlive the server.
  process.once('exit', () => child.kill())
}
