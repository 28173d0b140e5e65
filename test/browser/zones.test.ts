// SPDX-License-Identifier: AGPL-3.0-only
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server } from './server.ts'

/** The repeated hour of Berlin's autumn: 02:30 comes twice [UX-32]. */
const first = Date.parse('2026-10-25T00:30:00Z')
const second = first + 3_600_000

describe.skipIf(!hasBrowser())('one instant in three zones', () => {
  const server = new Server()
  let browser: Browser
  let page: Page
  let deviceId = ''

  beforeAll(async () => {
    await server.start()
    await server.setUp({ timeZone: 'Europe/Berlin' })
    const device = await server.createDevice('clock')
    deviceId = device.id
    const body = JSON.stringify([first, second].map((ts, at) => ({ ts, values: { t: at } })))
    await fetch(`${server.url}/api/v1/${device.token}/telemetry`, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
    browser = await launchBrowser()
    page = await (await openContext(browser, { timeZone: 'Asia/Shanghai' })).newPage()
    await signIn(page, server)
  })
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  it.each([
    ['站点时区', ['2026-10-25 02:30:00.000 +01:00', '2026-10-25 02:30:00.000 +02:00']],
    ['浏览器时区', ['2026-10-25 09:30:00.000 +08:00', '2026-10-25 08:30:00.000 +08:00']],
    ['UTC', ['2026-10-25 01:30:00.000 +00:00', '2026-10-25 00:30:00.000 +00:00']],
  ])('is shown as it is in %s, on the page and in its file', async (mode, times) => {
    await page.goto(`${server.url}/devices/${deviceId}/telemetry?from=${first - 3_600_000}&to=${second + 3_600_000}`)
    await waitForPage(page, 'device.telemetry')
    await page.locator('[data-menu="zone"]').click()
    await page.getByRole('menuitem', { name: mode }).click()
    await page.locator('[data-open="table"]').click()
    await expect
      .poll(async () => (await page.locator('figure table tbody td:first-child').allInnerTexts()).map((text) => text.trim()))
      .toEqual(times)
    const [file] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: '导出 CSV' }).click()])
    const stream = await file.createReadStream()
    let csv = ''
    for await (const chunk of stream) csv += String(chunk)
    expect(csv.startsWith('\uFEFF')).toBe(true)
    for (const time of times) expect(csv).toContain(time.slice(0, 23))
  })

  it('labels the repeated hour of the axis with its offsets', async () => {
    await page.locator('[data-menu="zone"]').click()
    await page.getByRole('menuitem', { name: '站点时区' }).click()
    // What is drawn on a canvas is told by the sentence beside it.
    await expect.poll(() => page.locator('.plot').first().getAttribute('aria-label')).toContain('最小')
    await page.locator('.plot').first().focus()
    await page.keyboard.press('End')
    await page.getByText('2026-10-25 02:30:00 UTC+01:00 Europe/Berlin').waitFor()
    await page.keyboard.press('ArrowLeft')
    await page.getByText('2026-10-25 02:30:00 UTC+02:00 Europe/Berlin').waitFor()
  })
})
