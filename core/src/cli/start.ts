// SPDX-License-Identifier: AGPL-3.0-only
import { flushCompileCache } from 'node:module'
import { parseArgs } from 'node:util'
import { readConfig } from '../config.ts'
import type { Config } from '../config.ts'
import { exitCodes } from '../errors.ts'
import { createLog } from '../log.ts'
import type { Log } from '../log.ts'
import { startPlatform } from '../start.ts'
import type { Platform } from '../start.ts'

/** Longest time a stop may take before the process ends anyway. */
const stopTimeoutMs = 9500

/** `iot-pms start`: runs until SIGTERM or SIGINT, then drains and ends with 0; a second signal ends at once. */
export async function runStart(args: string[]): Promise<undefined> {
  const options = { demo: { type: 'boolean', default: false }, 'no-restore-point': { type: 'boolean', default: false } } as const
  const { values } = parseArgs({ args, options, strict: true, allowPositionals: true })
  const config = readConfig()
  const log = createLog(config.logLevel)
  const starting = startPlatform(config, log, { restorePoint: !values['no-restore-point'] })
  const stopped = onSignal(async () => (await starting).stop())
  endOnUnknownErrors(log, async () => (await starting).stop())
  const platform = await starting
  announce(platform, config)
  // Also for a process that will be killed.
  flushCompileCache()
  if (values.demo) await platform.demo.load()
  await stopped
  // The log line is written and nothing else is left to do; open handles of libraries must not keep us.
  process.exit(0)
}

/**
 * [RE-77] An error that belongs to no request, session or job leaves the process in an unknown state: it is
 * logged, what was accepted is still committed, and a supervisor starts anew.
 */
function endOnUnknownErrors(log: Log, stop: () => Promise<void>): void {
  let isEnding = false
  const end = (error: unknown) => {
    log.error({ err: error }, 'an unexpected error, the server ends')
    process.stderr.write(
      `${JSON.stringify({ code: 'INTERNAL', message: 'an unexpected error', hint: 'The log has the cause; please report it.' })}\n`,
    )
    if (isEnding) return
    isEnding = true
    setTimeout(() => process.exit(exitCodes.internal), stopTimeoutMs).unref()
    void stop().finally(() => process.exit(exitCodes.internal))
  }
  process.on('uncaughtException', end)
  process.on('unhandledRejection', end)
}

function onSignal(stop: () => Promise<void>): Promise<void> {
  return new Promise((resolve) => {
    let isStopping = false
    const handle = () => {
      if (isStopping) process.exit(exitCodes.internal)
      isStopping = true
      setTimeout(() => process.exit(exitCodes.internal), stopTimeoutMs).unref()
      stop().then(resolve, () => process.exit(exitCodes.internal))
    }
    process.on('SIGTERM', handle)
    process.on('SIGINT', handle)
  })
}

/** What a person looks for in the terminal, in a frame among the log lines. */
function announce(platform: Platform, config: Config): void {
  const { ports, setupLink } = platform
  const address = config.publicUrl?.href ?? (ports.http === undefined ? undefined : `http://localhost:${ports.http}/`)
  const lines = [
    ...(address ? [`IoT PMS   ${address}`] : []),
    ...(ports.mqtt === undefined ? [] : [`MQTT      port ${ports.mqtt}`]),
    ...(ports.mqtts === undefined ? [] : [`MQTT/TLS  port ${ports.mqtts}`]),
    ...(setupLink ? ['', '初始设置（60 分钟内有效，只能用一次） Set-up link, valid once for 60 minutes:', setupLink] : []),
  ]
  process.stdout.write(`\n${'─'.repeat(76)}\n${lines.map((line) => `  ${line}`).join('\n')}\n${'─'.repeat(76)}\n\n`)
}
