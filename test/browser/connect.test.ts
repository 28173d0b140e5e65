// SPDX-License-Identifier: AGPL-3.0-only
import { execFile, execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { connectAsync } from 'mqtt'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server } from './server.ts'

const run = promisify(execFile)
/** From an accepted or refused message to the light [D-59]. */
const lightMs = 2000

function isInstalled(program: string, ...args: string[]): boolean {
  try {
    execFileSync(program, args, { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
}

describe.skipIf(!hasBrowser())('the Connect panel', () => {
  const server = new Server()
  let browser: Browser
  let page: Page

  beforeAll(async () => {
    await server.start()
    await server.setUp()
    browser = await launchBrowser()
    page = await (await openContext(browser)).newPage()
    await signIn(page, server)
  })
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  /** Adds a device as somebody would; the drawer then is its Connect panel. */
  async function addDevice(name: string): Promise<void> {
    await page.goto(`${server.url}/devices?add=1`)
    await page.getByRole('dialog').getByLabel('名称').fill(name)
    await page.getByRole('button', { name: '创建并连接' }).click()
    await page.waitForSelector('[data-light="waiting"]')
  }

  /** The text of a block, as it stands on the page. */
  async function readSnippet(transport: 'MQTT' | 'HTTP', tab: string): Promise<string> {
    await page.getByRole('button', { name: transport, exact: true }).click()
    await page.getByRole('tab', { name: tab }).click()
    return page.locator('#snippet code').innerText()
  }

  async function expectGreen(): Promise<void> {
    await page.waitForSelector('[data-light="received"]', { timeout: lightMs })
  }

  it('turns green for the curl command, run exactly as it stands there', async () => {
    await addDevice('by curl')
    const command = await readSnippet('HTTP', 'curl')
    const { stdout } = await run('sh', ['-c', command])
    expect(stdout).toContain('200 OK')
    await expectGreen()
    expect(await page.locator('[data-light]').innerText()).toContain('temperature = 25.1')
    await page.getByRole('button', { name: '查看设备' }).click()
    await waitForPage(page, 'device.overview')
  })

  it.each(['MQTT', 'HTTP'] as const)('turns green for the Node.js program over %s', async (transport) => {
    await addDevice(`by Node over ${transport}`)
    const folder = mkdtempSync(join(tmpdir(), 'iot-pms-snippet-'))
    writeFileSync(join(folder, 'send.mjs'), await readSnippet(transport, 'Node.js'))
    // What `npm i mqtt` would have put there.
    mkdirSync(join(folder, 'node_modules'))
    symlinkSync(dirname(createRequire(import.meta.url).resolve('mqtt/package.json')), join(folder, 'node_modules/mqtt'))
    await runUntilStored(process.execPath, [join(folder, 'send.mjs')])
    await expectGreen()
    rmSync(folder, { recursive: true })
  })

  it.skipIf(!isInstalled('python3', '--version'))('turns green for the Python program over HTTP', async () => {
    await addDevice('by Python')
    await runUntilStored('python3', ['-u', '-c', await readSnippet('HTTP', 'Python')])
    await expectGreen()
  })

  it.skipIf(!isInstalled('python3', '--version'))(
    'shows a valid Python program over MQTT, and turns green for it where paho-mqtt 2 is installed',
    async () => {
      await addDevice('by Python over MQTT')
      const program = await readSnippet('MQTT', 'Python')
      await run('python3', ['-c', 'import ast, sys; ast.parse(sys.argv[1])', program])
      // Neither Debian 12 nor npm brings paho-mqtt 2, so a machine of the tests may be without it.
      if (!isInstalled('python3', '-c', 'from paho.mqtt.client import CallbackAPIVersion')) {
        console.log('not run: the Python program over MQTT needs paho-mqtt 2; only its syntax was checked')
        return
      }
      await runUntilStored('python3', ['-u', '-c', program])
      await expectGreen()
    },
  )

  it.skipIf(!isInstalled('mosquitto_pub', '--help') && !isInstalled('sh', '-c', 'command -v mosquitto_pub'))(
    'turns green for the mosquitto command',
    async () => {
      await addDevice('by mosquitto')
      await run('sh', ['-c', await readSnippet('MQTT', 'mosquitto')])
      await expectGreen()
    },
  )

  it('turns green for a point sent from the page itself', async () => {
    await addDevice('from here')
    await page.getByRole('button', { name: '用浏览器发一条' }).click()
    await expectGreen()
  })

  it('names the reason of each refusal within two seconds, and goes green again [UX-05]', async () => {
    const device = await server.createDevice('refused')
    await page.goto(`${server.url}/devices/${device.id}/connect`)
    await page.waitForSelector('[data-light="waiting"]')
    const topic = 'v1/devices/me/telemetry'
    const client = await connectAsync(`mqtt://127.0.0.1:${server.ports.mqtt}`, {
      username: device.token,
      protocolVersion: 5,
      reconnectPeriod: 0,
    })
    await page.waitForSelector('[data-light="connected"]', { timeout: lightMs })

    await client.publishAsync(topic, '{"temperature":', { qos: 1 }).catch(() => undefined)
    await page.waitForSelector('[data-code="PAYLOAD_MALFORMED"]', { timeout: lightMs })
    expect(await page.locator('[data-refusal]').innerText()).toMatch(
      /报文不是合法的 JSON。[\s\S]*v1\/devices\/me\/telemetry[\s\S]*\{"temperature":[\s\S]*检查引号/,
    )

    await client.publishAsync(topic, '{"ts":1763690000,"values":{"t":1}}', { qos: 1 }).catch(() => undefined)
    await page.waitForSelector('[data-code="TS_SECONDS"]', { timeout: lightMs })

    await connectAsync(`mqtt://127.0.0.1:${server.ports.mqtt}`, {
      username: 'no-such-token-at-all',
      protocolVersion: 5,
      reconnectPeriod: 0,
    }).then(
      (wrong) => wrong.endAsync(),
      () => undefined,
    )
    await page.waitForSelector('[data-code="token"]', { timeout: lightMs })
    expect(await page.locator('[data-refusal]').innerText()).toContain('有一个来自 127.0.0.1 的连接令牌不对')

    await client.publishAsync(topic, '{"temperature":25.1}', { qos: 1 })
    await expectGreen()
    expect(await page.locator('[data-refusal]').count()).toBe(0)
    await client.endAsync()

    // The tab beside it holds them with the sentence and what mends them.
    await page.getByRole('link', { name: '拒收记录' }).click()
    await page.getByText('时间戳像是秒，这里需要毫秒。').waitFor()
  })

  it('fetches the token only when somebody asks', async () => {
    const device = await server.createDevice('secret')
    const fetched: string[] = []
    page.on('request', (request) => {
      if (request.url().endsWith('/credentials')) fetched.push(request.url())
    })
    await page.goto(`${server.url}/devices/${device.id}/connect`)
    await page.locator('#snippet code').waitFor()
    expect(await page.locator('#snippet code').innerText()).not.toContain(device.token)
    expect(fetched).toEqual([])
    await page.getByRole('button', { name: '显示令牌' }).click()
    await page.waitForFunction((token) => document.querySelector('#snippet code')?.textContent?.includes(token), device.token)
    expect(fetched).toHaveLength(1)
  })
})

/** Starts a program of the panel and ends it after its first stored point; the ten of them take ten seconds. */
async function runUntilStored(command: string, args: string[]): Promise<void> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  try {
    await new Promise<void>((resolve, reject) => {
      let output = ''
      const read = (chunk: Buffer) => {
        output += chunk.toString('utf8')
        if (output.includes('stored')) resolve()
      }
      child.stdout.on('data', read)
      child.stderr.on('data', read)
      child.once('exit', (code) => reject(new Error(`ended with ${code}: ${output}`)))
    })
  } finally {
    child.kill()
  }
}
