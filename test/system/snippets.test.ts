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

describe.skipIf(!isInstalled('curl'))('the commands for notifications', () => {
  it('send, show what became of it, and send as scripts for another service do', async () => {
    const text = readFileSync(join(import.meta.dirname, '../../docs/how-to/notifications.md'), 'utf8')
    const commands = Array.from(text.matchAll(/```sh\n(curl [\s\S]*?)```/g), (match) => match[1]!)
    const body = { name: 'notify', scopes: ['notify.send', 'notify.read'], expiresInDays: 1 }
    const { key } = (await platform.call('POST', '/api/v1/api-keys', { body })).json<{ key: string }>()
    const env = { ...process.env, URL: `http://127.0.0.1:${platform.ports.http}`, KEY: key }
    const answers: Record<string, unknown>[] = []
    for (const command of commands) {
      const { stdout } = await run('sh', ['-c', command], { timeout: 15_000, env })
      answers.push(JSON.parse(stdout) as Record<string, unknown>)
    }
    expect(answers).toMatchObject([
      { status: 'accepted', deduplicated: false },
      { items: [{ type: 'inapp' }] },
      { code: 0, data: { errno: 0 } },
    ])
    const titles = async () =>
      (await platform.call('GET', '/api/v1/notifications/inbox')).json<{ items: { title: string }[] }>().items.map((one) => one.title)
    await vi.waitFor(async () => expect((await titles()).toSorted()).toEqual(['一号冷库', '备份完成'].toSorted()), { timeout: 20_000 })
  })
})
