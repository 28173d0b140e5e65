// SPDX-License-Identifier: AGPL-3.0-only
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, variants, waitForPage } from './browser.ts'
import { Watch, checkPage } from './checks.ts'
import { Server, admin } from './server.ts'

describe.skipIf(!hasBrowser())('the first run', () => {
  const server = new Server()
  let browser: Browser

  beforeAll(async () => {
    await server.start()
    browser = await launchBrowser()
  })
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  it.each(variants)('shows a clean set-up page in $language, $theme, $width px, whatever address was asked for', async (variant) => {
    const context = await openContext(browser, variant)
    const watch = await Watch.open(context, server.url)
    await watch.page.goto(`${server.url}/devices?lang=${variant.language}&theme=${variant.theme}`)
    await waitForPage(watch.page, 'setup')
    expect(await checkPage(watch, variant)).toEqual([])
    await watch.page.goto(server.readSetupLink())
    // A change of the fragment alone is no navigation.
    await watch.page.reload()
    await waitForPage(watch.page, 'setup')
    expect(await checkPage(watch, variant)).toEqual([])
    await context.close()
  })

  it('refuses a wrong token and a weak password in words, at their place', async () => {
    const page = await (await openContext(browser, { language: 'en' })).newPage()
    await page.goto(`${server.url}/setup?lang=en#t=${'x'.repeat(43)}`)
    await fillAdministrator(page, 'battery-12-staple')
    await page.getByRole('button', { name: 'Create' }).click()
    await page.getByRole('alert').waitFor()
    await page.goto(server.readSetupLink())
    await page.reload()
    await fillAdministrator(page, 'aaaaaaaaaaaa')
    await page.getByRole('button', { name: 'Create' }).click()
    await page.locator('[aria-invalid="true"], [role="alert"]').first().waitFor()
    expect(await page.locator('input[autocomplete="new-password"]').isVisible()).toBe(true)
    await page.context().close()
  })

  it('leads from the link to a moving chart in at most five clicks and 30 seconds [UX-02]', async () => {
    const context = await openContext(browser)
    const watch = await Watch.open(context, server.url)
    const { page } = watch
    let clicks = 0
    const click = async (name: string) => {
      clicks++
      await page.getByRole('button', { name }).click()
    }
    await page.goto(server.readSetupLink())
    const startedAt = Date.now()
    await click('下一步')
    await page.fill('input[autocomplete="name"]', admin.name)
    await page.fill('input[type="email"]', admin.email)
    await page.fill('input[autocomplete="new-password"]', admin.password)
    await click('创建')
    await click('看演示数据')
    await waitForPage(page, 'overview')
    const chart = page.locator('figure.chart').first()
    await chart.waitFor()
    const lineOf = () => page.locator('section svg.spark').first().getAttribute('data-points')
    await page.locator('section .spark').first().waitFor({ timeout: 15_000 })
    const before = await lineOf()
    await page.waitForFunction((old) => document.querySelector('section svg.spark')?.getAttribute('data-points') !== old, before, {
      timeout: 10_000,
    })
    expect(Date.now() - startedAt).toBeLessThan(30_000)
    expect(clicks).toBeLessThanOrEqual(5)
    expect(await page.locator('[data-demo]').count()).toBe(1)
    expect(await page.evaluate(() => location.hash)).toBe('')

    // The device's own chart goes on too.
    await page.locator('section li a').first().click()
    await waitForPage(page, 'device.overview')
    const points = page.locator('figure.chart[data-points]').first()
    await page.waitForFunction(() => Number(document.querySelector('figure.chart')?.getAttribute('data-points')) > 100)
    const count = Number(await points.getAttribute('data-points'))
    await page.waitForFunction((old) => Number(document.querySelector('figure.chart')?.getAttribute('data-points')) > old, count, {
      timeout: 10_000,
    })
    expect(watch.take()).toEqual([])
    await context.close()
  })

  it('is over once it is done: the page is gone and the link is dead', async () => {
    const page = await (await openContext(browser)).newPage()
    await page.goto(`${server.url}/setup`)
    await waitForPage(page, 'login')
    expect((await fetch(`${server.url}/api/v1/setup`)).status).toBe(404)
    await page.context().close()
  })

  it('clears the demo data with one click, without a trace', async () => {
    const context = await openContext(browser)
    const page = await context.newPage()
    await page.goto(`${server.url}/login`)
    await page.fill('input[type=email]', admin.email)
    await page.fill('input[type=password]', admin.password)
    await page.keyboard.press('Enter')
    await waitForPage(page, 'overview')
    await page.getByRole('button', { name: '清除' }).click()
    await page.waitForSelector('main[data-page="devices"][data-state="empty"]', { timeout: 15_000 })
    expect(await page.locator('[data-demo]').count()).toBe(0)
    await context.close()
  })
})

async function fillAdministrator(page: Page, password: string): Promise<void> {
  await page.getByRole('button', { name: 'Next' }).click()
  await page.fill('input[autocomplete="name"]', admin.name)
  await page.fill('input[type="email"]', admin.email)
  await page.fill('input[autocomplete="new-password"]', password)
}
