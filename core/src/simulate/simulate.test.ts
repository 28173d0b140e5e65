// SPDX-License-Identifier: AGPL-3.0-only
import { countStoredPoints } from '../testing.ts'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startDeviceServer } from '../products/testing.ts'
import type { DeviceServer } from '../products/testing.ts'
import { parseOptions, runSimulate } from './cli.ts'
import { scenarios } from './scenarios.ts'
import { isClean, simulate } from './simulate.ts'
import type { SimulateOptions, Summary } from './simulate.ts'

let server: DeviceServer
let apiKey: string
beforeAll(async () => {
  server = await startDeviceServer()
  apiKey = await createKey(['device.read', 'device.write', 'device.credentials.read', 'product.read', 'product.write'])
})
afterAll(() => server.close())

async function createKey(scopes: string[]): Promise<string> {
  const answer = await server.call('POST', '/api/v1/api-keys', { body: { name: 'simulate', scopes, expiresInDays: 1 } })
  expect(answer.status, answer.text).toBe(201)
  return String(answer.body['key'])
}

function createOutput(isTTY = false) {
  const texts: string[] = []
  return { isTTY, texts, write: (text: string) => texts.push(text) }
}

function options(change: Partial<SimulateOptions> = {}): SimulateOptions {
  return {
    api: { url: server.url, apiKey },
    mqtt: { host: '127.0.0.1', port: server.mqttPort()! },
    scenario: scenarios[0]!,
    count: 5,
    ratePerS: 5,
    durationMs: 1500,
    signal: new AbortController().signal,
    output: createOutput(),
    ...change,
  }
}

type Listed = { name: string; state: string; productName: string; tags: string[]; primary: { key: string; value: number } | null }
async function listDevices(prefix: string): Promise<Listed[]> {
  return (await server.call('GET', `/api/v1/devices?sort=name&q=${prefix}`)).body['items'] as Listed[]
}

const countPoints = () => countStoredPoints(server.context)

describe('simulating devices', () => {
  it('makes the devices, sends over MQTT, and everything acknowledged is stored', async () => {
    const before = await countPoints()
    const summary = await simulate(options())
    expect(summary).toMatchObject({ devices: 5, errors: 0, skipped: 0, lastError: undefined })
    expect(isClean(summary)).toBe(true)
    expect(summary.sent).toBeGreaterThan(15)
    expect((await countPoints()) - before).toBe(summary.acknowledged * 5)
    const devices = await listDevices('sim-cold-chain-')
    expect(devices.map((one) => one.name)).toEqual([1, 2, 3, 4, 5].map((number) => `sim-cold-chain-000${number}`))
    const expected = { productName: '冷库示例', tags: ['simulated'], primary: { key: 'temperature' } }
    for (const device of devices) expect(device).toMatchObject(expected)
  })

  it('uses the devices of an earlier run again and adds what is missing', async () => {
    await simulate(options({ scenario: scenarios[2]!, count: 2, durationMs: 300 }))
    const summary = await simulate(options({ scenario: scenarios[2]!, count: 3, durationMs: 600 }))
    expect(isClean(summary)).toBe(true)
    expect(await listDevices('sim-weather-')).toHaveLength(3)
  })

  it('stops cleanly when asked, with nothing left unanswered', async () => {
    const abort = new AbortController()
    const { durationMs: _, ...endless } = options({ signal: abort.signal, ratePerS: 20 })
    const running = simulate(endless)
    setTimeout(() => abort.abort(), 1500)
    const summary: Summary = await running
    expect(isClean(summary)).toBe(true)
    await expect.poll(() => server.ingest.sessions.count).toBe(0)
  })

  it('shows one changing line on a terminal, and plain lines elsewhere', async () => {
    const terminal = createOutput(true)
    await simulate(options({ output: terminal, count: 2, durationMs: 1300 }))
    const shown = terminal.texts.filter((text) => text.startsWith('\r\u001b[K2/2 connected')).map((text) => text.slice(4))
    expect(shown[0]).toMatch(/^2\/2 connected · sent \d+ · acknowledged \d+ · \d+\/s · errors 0$/)
    const plain = createOutput()
    await simulate(options({ output: plain, count: 2, durationMs: 600 }))
    expect(plain.texts.join('')).not.toContain('\r')
    expect(plain.texts.at(-1)).toMatch(/^sent \d+ · acknowledged \d+ · \d+\/s · errors 0 · 0\.\d s\n$/)
  })

  it('counts refused connections as errors and goes on', async () => {
    const closed = options({ mqtt: { host: '127.0.0.1', port: 1 }, count: 2, durationMs: 400 })
    const summary = await simulate(closed)
    expect(summary.sent).toBe(0)
    expect(summary.errors).toBeGreaterThan(0)
    expect(summary.lastError).toContain('ECONNREFUSED')
    expect(isClean(summary)).toBe(false)
  })

  it('says what the server said, and which scopes are needed', async () => {
    const narrow = await createKey(['device.read'])
    await expect(simulate(options({ api: { url: server.url, apiKey: narrow } }))).rejects.toMatchObject({
      code: 'SERVER_REFUSED',
      message: expect.stringContaining('403 PERMISSION_DENIED') as string,
      hint: expect.stringContaining('product.write') as string,
    })
    await expect(simulate(options({ api: { url: 'http://127.0.0.1:1', apiKey } }))).rejects.toMatchObject({
      code: 'SERVER_UNREACHABLE',
      exitCode: 69,
    })
  })
})

describe('the command', () => {
  const all = () => ['--count', '2', '--rate', '10/s', '--duration', '1s', '--url', server.url, '--mqtt', `127.0.0.1:${server.mqttPort()}`]

  it('ends with 0 when everything was stored and with 1 when not', async () => {
    const file = join(server.context.config.dataDir, 'key.txt')
    writeFileSync(file, `${apiKey}\n`)
    const output = createOutput()
    expect(await runSimulate([...all(), '--api-key-file', file], output), output.texts.join('')).toBe(0)
    expect(await runSimulate([...all(), '--api-key', apiKey, '--mqtt', '127.0.0.1:1'], createOutput())).toBe(1)
  })

  it('prints its options for --help', async () => {
    const output = createOutput()
    expect(await runSimulate(['--help'], output)).toBe(0)
    expect(output.texts.join('')).toContain('--scenario NAME       cold-chain, energy-meter, weather')
  })

  it('reads rates, times and addresses', () => {
    const read = (...args: string[]) => parseOptions(['--api-key', 'k', ...args])!
    expect(read()).toMatchObject({
      count: 10,
      ratePerS: 1,
      mqtt: { host: 'localhost', port: 1883 },
      api: { url: 'http://localhost:8080/' },
    })
    expect(read('--rate', '30/min').ratePerS).toBe(0.5)
    expect(read('--rate', '36/h').ratePerS).toBeCloseTo(0.01)
    expect(read('--duration', '10m').durationMs).toBe(600_000)
    expect(read('--mqtt', '[::1]:2883').mqtt).toEqual({ host: '::1', port: 2883 })
    expect(read('--url', 'https://iot.example.com/pms/')).toMatchObject({
      mqtt: { host: 'iot.example.com', port: 1883 },
      api: { url: 'https://iot.example.com/pms/' },
    })
  })

  it.each([
    ['--count', '0'],
    ['--count', '1.5'],
    ['--count', '20001'],
    ['--rate', '0/s'],
    ['--rate', '21/s'],
    ['--rate', '5'],
    ['--duration', '0s'],
    ['--duration', '600h'],
    ['--scenario', 'none'],
    ['--url', 'ftp://x'],
    ['--mqtt', 'host:0'],
    ['--mqtt', 'host:70000'],
    ['--unknown', '1'],
    ['--api-key-file', 'x'],
  ])('refuses %s %s with exit code 64', (name, value) => {
    expect(() => parseOptions(['--api-key', 'k', name, value])).toThrow(expect.objectContaining({ code: 'USAGE', exitCode: 64 }) as Error)
  })

  it('asks for a key', () => {
    expect(() => parseOptions([])).toThrow('--api-key is missing')
  })
})
