// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { rootDir } from '../src/version.ts'

/** `pnpm dev`: the server restarting on each change of core/src, and Vite with hot reload in front of it. */
const server = run(['--watch-path', join(rootDir, 'core/src'), join(rootDir, 'core/src/main.ts'), 'start'], {
  IOT_PMS_BUILD_DASHBOARD: '0',
})
const pages = run([join(rootDir, 'core/dashboard/node_modules/vite/bin/vite.js'), join(rootDir, 'core/dashboard')], {})
let isStopping = false

for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, stopBoth)
for (const child of [server, pages]) child.once('exit', stopBoth)

function run(args: string[], environment: Record<string, string>): ChildProcess {
  return spawn(process.execPath, args, { cwd: rootDir, stdio: 'inherit', env: { ...process.env, ...environment } })
}

function stopBoth(): void {
  if (isStopping) return
  isStopping = true
  server.kill('SIGTERM')
  pages.kill('SIGTERM')
}
