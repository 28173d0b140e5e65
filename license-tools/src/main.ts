// SPDX-License-Identifier: LicenseRef-IoT-PMS-Commercial
import { runTool } from './run.ts'

let isInterrupted = false
// What has begun is finished: a bulk run stops after its row, everything else is over in a moment.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => (isInterrupted = true))

process.exitCode = isOffline()
  ? await runTool(process.argv.slice(2), {
      env: process.env,
      stdout: (text) => process.stdout.write(text),
      stderr: (text) => process.stderr.write(text),
      isInterrupted: () => isInterrupted,
    })
  : refuse()

/** [T-1] The launcher starts us without network, processes and writes elsewhere; nothing runs without that. */
function isOffline(): boolean {
  const { permission } = process as NodeJS.Process & { permission?: { has(scope: string): boolean } }
  return permission !== undefined && !permission.has('net') && !permission.has('child') && !permission.has('fs.write')
}

function refuse(): number {
  const message =
    '请通过 bin/license-tools.mjs 启动：本工具只在无网络的进程中运行。 Start bin/license-tools.mjs: this tool runs only in a process without network.'
  if (process.argv.includes('--json')) {
    process.stdout.write(`${JSON.stringify({ ok: false, code: 'NO_PERMISSION_MODEL', message, exit: 1 })}\n`)
  }
  process.stderr.write(`NO_PERMISSION_MODEL: ${message}\n`)
  return 1
}
