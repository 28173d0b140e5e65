// SPDX-License-Identifier: AGPL-3.0-only
import { execFile, execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { startTestPlatform } from '@iot-pms/core/testing'
import type { TestPlatform } from '@iot-pms/core/testing'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'

/** The README's own commands, copied out of it and run by a shell, read back from the API. */
const readme = readFileSync(join(import.meta.dirname, '../../README.md'), 'utf8')
const telegraf = readFileSync(join(import.meta.dirname, '../../docs/how-to/telegraf.md'), 'utf8')
const run = promisify(execFile)

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

function isInstalled(program: string): boolean {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`])
    return true
  } catch {
    return false
  }
}

/** Every line of the README that begins with the program, in both languages. */
function commandsOf(program: string): string[] {
  return readme
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line.startsWith(`${program} `) && line.includes('telemetry'))
}

async function runSnippet(command: string, token: string): Promise<string> {
  const filled = command
    .replaceAll(/<TOKEN>|<token>|\$TOKEN|YOUR_TOKEN|<设备令牌>|<device token>/g, token)
    .replaceAll('localhost:8080', `127.0.0.1:${platform.ports.http}`)
    .replaceAll(/-p 1883\b/g, `-p ${platform.ports.mqtt}`)
    .replaceAll(/-h localhost\b/g, '-h 127.0.0.1')
  const { stdout, stderr } = await run('sh', ['-c', filled], { timeout: 15_000 })
  return stdout + stderr
}

async function temperature(id: string): Promise<unknown> {
  const answer = await platform.call('GET', `/api/v1/devices/${id}/telemetry?keys=temperature`)
  return answer.json<{ items: { value: unknown }[] }>().items[0]?.value
}

for (const program of ['mosquitto_pub', 'curl']) {
  describe.skipIf(!isInstalled(program))(`the README's ${program} snippet`, () => {
    it('stores the point it sends', async () => {
      const commands = commandsOf(program)
      expect(commands.length).toBeGreaterThan(0)
      for (const command of new Set(commands)) {
        const device = await platform.createDevice()
        // A server that has only just started may say that it is busy.
        await vi.waitFor(() => runSnippet(command, device.token), { timeout: 20_000, interval: 500 })
        expect(await temperature(device.id), command).toBe(25.1)
      }
    })
  })
  if (!isInstalled(program)) console.log(`skipped: ${program} is not installed`)
}

describe.skipIf(!isInstalled('curl'))("the Telegraf page's curl snippet", () => {
  it('stores the line it sends', async () => {
    const command = telegraf.split('\n').find((line) => line.startsWith('curl '))!
    const device = await platform.createDevice()
    expect(await runSnippet(command, device.token)).toBe('')
    const answer = await platform.call('GET', `/api/v1/devices/${device.id}/telemetry`)
    const { items } = answer.json<{ items: { key: string; value: unknown }[] }>()
    expect(items.map(({ key, value }) => [key, value])).toEqual([
      ['boiler_count', 7],
      ['boiler_on', true],
      ['boiler_temperature', 25.1],
    ])
  })
})
