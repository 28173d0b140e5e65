// SPDX-License-Identifier: AGPL-3.0-only
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server, root } from './server.ts'

/**
 * The pictures of the README, from the demo data of a fresh server. `IOT_PMS_PICTURES=1` writes them to
 * docs/images; else they go to test-results, so that a test run leaves the checkout as it was.
 */
const isForReadme = process.env['IOT_PMS_PICTURES'] === '1'
const folder = join(root, isForReadme ? 'docs/images' : 'test-results/images')
/** Long enough for the ingest chart and the live lines to have a shape; only the README needs that. */
const settleMs = isForReadme ? 300_000 : 2000

describe.skipIf(!hasBrowser())('the pictures', () => {
  const server = new Server()
  let browser: Browser

  beforeAll(async () => {
    await server.start()
    await server.setUp({ siteName: '冷链示例站点' })
    await server.call('POST', '/api/v1/demo')
    browser = await launchBrowser()
    mkdirSync(folder, { recursive: true })
  })
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  it('show the overview and a device with its charts', { timeout: settleMs + 60_000 }, async () => {
    const page = await (await openContext(browser)).newPage()
    await signIn(page, server, '?lang=zh-CN&theme=light')
    const { items } = await server.call<{ items: { id: string }[] }>('GET', '/api/v1/devices?limit=1&q=02')
    await page.waitForTimeout(settleMs)
    const overview = await page.screenshot({ path: join(folder, 'overview.png') })
    await page.goto(`${server.url}/devices/${items[0]?.id}/overview`)
    await waitForPage(page, 'device.overview')
    await page.waitForFunction(() => document.querySelectorAll('figure.chart canvas').length > 1)
    await page.waitForTimeout(1000)
    const device = await page.screenshot({ path: join(folder, 'device.png') })
    expect(Math.min(overview.length, device.length)).toBeGreaterThan(30_000)
    await page.context().close()
  })
})
