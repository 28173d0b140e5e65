// SPDX-License-Identifier: AGPL-3.0-only
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, variants, waitForPage } from './browser.ts'
import type { Variant } from './browser.ts'
import { Watch, checkPage } from './checks.ts'
import type { Finding } from './checks.ts'
import { fillNotifications } from './fill.ts'
import { readRoutes } from './routes.ts'
import type { RouteIds } from './routes.ts'
import { Server } from './server.ts'

/** Opens what a page can show beside itself; what it opens is checked too, then closed by Escape. */
const openings: Record<string, string[]> = {
  overview: ['[data-menu="user"]', '[data-menu="zone"]', '[data-menu="theme"]'],
  devices: ['[data-open="add"]', '[data-menu="row"]'],
  'device.overview': ['[data-menu="device"]', '[data-open="table"]', '[data-open="range"]'],
  'device.attributes': ['[data-open="add-shared"]', '[data-open="edit-attribute"]'],
  'device.commands': ['[data-open="command"]'],
  'device.settings': ['[data-open="rotate"]', '[data-open="credentials"]'],
  products: ['[data-open="add"]'],
  'product.overview': ['[data-open="delete"]'],
  'product.model': ['[data-open="key"]'],
  connectors: ['[data-menu="row"]'],
  rules: ['[data-menu="row"]'],
  rule: ['[data-act="json"]'],
  'notifications.channels': ['[data-menu="row"]', '[data-open="test"]'],
  'notifications.routing': ['[data-act="try"]', '[data-open="escalation"]', '[data-act="edit"]'],
  'notifications.silences': ['[data-open="silence"]', '[data-act="end"]'],
  'notifications.templates': ['[data-open="delete"]'],
  firmware: ['[data-open="upload"]', '[data-open="rollout"]', '[data-menu="row"]'],
  'jobs.queue': ['[data-open="job"]'],
  'jobs.workers': ['[data-open="restart"]'],
  'jobs.schedules': ['[data-open="schedule"]', '[data-menu="row"]'],
  bin: ['[data-open="purge"]'],
  'settings.users': ['[data-open="invite"]', '[data-menu="row"]'],
  'settings.apiKeys': ['[data-open="create"]'],
  'settings.license': ['[data-open="install"]', '[data-open="request"]', '[data-open="crl"]'],
}

/** Each language, theme and width is seen with its menus and dialogs open, not each of their eight combinations. */
function opens({ language, theme }: Variant): boolean {
  return (language === 'en') === (theme === 'light')
}

describe.skipIf(!hasBrowser())('every page', () => {
  const server = new Server()
  let browser: Browser
  let ids: RouteIds = {}

  beforeAll(async () => {
    await server.start()
    await server.setUp()
    await server.call('POST', '/api/v1/demo')
    const device = await server.createDevice('walked')
    const deviceId = device.id
    await fillDevice(server, device.token)
    await server.call('PATCH', `/api/v1/devices/${deviceId}/attributes/shared`, { interval: 60, mode: 'eco', range: { low: 2 } })
    await server.call('POST', `/api/v1/devices/${deviceId}/commands`, { method: 'reboot', params: { delay: 5 }, persistent: true })
    await assignPackage(server, deviceId)
    ids = {
      '/devices/': deviceId,
      '/products/': await fillProduct(server),
      '/connectors/': await addConnector(server),
      ...(await fillNotifications((method, path, body) => server.call(method, path, body))),
    }
    const binned = await server.createDevice('binned')
    await server.call('DELETE', `/api/v1/devices/${binned.id}`)
    browser = await launchBrowser()
  }, 180_000)
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  it.concurrent.each(variants)(
    'is clean, accessible and complete in $language, $theme, $width px',
    // Some forty pages: minutes where other work goes on beside.
    { timeout: 600_000 },
    async (variant) => {
      expect(await walk(variant)).toEqual([])
    },
  )

  /** All findings of all pages, each with the page it was found on. */
  async function walk(variant: Variant): Promise<string[]> {
    const context = await openContext(browser, variant)
    const watch = await Watch.open(context, server.url)
    const { page } = watch
    const found: string[] = []
    const note = (where: string, findings: Finding[]) => found.push(...findings.map((one) => `${where}: ${one.kind}: ${one.detail}`))
    const { pages, signedOutPages } = readRoutes(ids)

    for (const { path, name } of signedOutPages.filter((one) => one.name !== 'setup')) {
      await page.goto(`${server.url}${path}?lang=${variant.language}&theme=${variant.theme}`)
      await waitForPage(page, name)
      note(name, await checkPage(watch, variant))
    }
    await signIn(page, server)
    for (const { path, name } of pages) {
      await page.goto(server.url + path)
      await waitForPage(page, name)
      // Charts are drawn, the first rows are there.
      await page.waitForFunction(() => document.querySelector('main .skeleton') === null)
      note(name, await checkPage(watch, variant))
      if (name === 'device.overview') await hoverChart(page)
      for (const opening of opens(variant) ? (openings[name] ?? []) : []) {
        await page.locator(opening).first().click()
        await page.waitForTimeout(80)
        note(`${name} ${opening}`, await checkPage(watch, variant))
        await page.keyboard.press('Escape')
        await page.waitForTimeout(80)
      }
    }
    await context.close()
    return found
  }
})

async function hoverChart(page: Watch['page']): Promise<void> {
  const plot = page.locator('.plot').first()
  await plot.hover()
  await plot.focus()
  await page.keyboard.press('ArrowLeft')
}

/** A package, and a device that shall install it. */
async function assignPackage(server: Server, deviceId: string): Promise<void> {
  const { productId } = await server.call<{ productId: string }>('GET', `/api/v1/devices/${deviceId}`)
  const body = { productId, kind: 'firmware', title: 'Walker', version: '1.2.3', tag: 'beta', url: 'https://files.example.com/walker.bin' }
  const { id } = await server.call<{ id: string }>('POST', '/api/v1/ota-packages', body)
  await server.call('PUT', `/api/v1/devices/${deviceId}/firmware`, { packageId: id })
}

/** One that is switched off, so that its page shows nothing that changes. */
async function addConnector(server: Server): Promise<string> {
  const rules = [
    {
      topic: 'site/+/data',
      name: '{topic.2}',
      values: [{ path: 'data.t', key: 'temperature', scale: 0.1 }],
      time: { path: 'ts', unit: 's' },
    },
  ]
  const body = { name: 'Walked broker', enabled: false, url: 'mqtts://192.0.2.1:8883', topics: ['$share/iot/site/+/data'], rules }
  return (await server.call<{ id: string }>('POST', '/api/v1/connectors', body)).id
}

/** A product with something on each of its pages. */
async function fillProduct(server: Server): Promise<string> {
  const made = await server.call<{ id: string }>('POST', '/api/v1/products', {
    name: 'walked',
    model: {
      keys: { temperature: { title: { zh: '温度', en: 'Temperature' }, unit: '°C', decimals: 1, min: -30, max: 60 } },
      primaryKey: 'temperature',
    },
    transport: { telemetryTopics: ['plant/+/data'] },
    limits: { device: { messages: '20:1,600:60', telemetryMessages: '' } },
    clientRpc: { getConfig: { reply: { interval: 30 } } },
    provisioning: { strategy: 'create' },
  })
  return made.id
}

/** Values of every kind, a refused message, and a log. */
async function fillDevice(server: Server, token: string): Promise<void> {
  const client = await server.connectDevice(token, 'walked')
  const now = Date.now()
  const topic = 'v1/devices/me/telemetry'
  const points = Array.from({ length: 60 }, (_, at) => ({
    ts: now - at * 60_000,
    values: { temperature: 20 + Math.sin(at / 5), count: at, open: at % 7 < 3, mode: at % 20 < 10 ? 'auto' : 'manual', __proto__: 1 },
  }))
  await client.publishAsync(topic, JSON.stringify(points), { qos: 1 })
  await client.publishAsync(topic, '{"big":9007199254740993,"note":"<b>no</b>","list":[1,2]}', { qos: 1 })
  await client.publishAsync('v1/devices/me/attributes', '{"interval":30,"mode":"eco","serial":9007199254740993}', { qos: 1 })
  await client.publishAsync(topic, '{"temperature":', { qos: 1 }).catch(() => undefined)
  await client.endAsync()
}
