// SPDX-License-Identifier: AGPL-3.0-only
import { networkInterfaces } from 'node:os'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, waitForPage } from './browser.ts'
import { Watch, checkPage } from './checks.ts'
import { Server, admin } from './server.ts'

/** An address of this machine that browsers do not trust as they trust loopback. */
const address = Object.values(networkInterfaces())
  .flat()
  .find((one) => one?.family === 'IPv4' && !one.internal)?.address

describe.skipIf(!hasBrowser() || !address)('on plain http by address [D-96]', () => {
  const server = new Server({ IOT_PMS_HTTP_HOST: '0.0.0.0', IOT_PMS_TEST_HOOKS: 'no-bisect' })
  const variant = { language: 'zh-CN', theme: 'light', width: 1440 } as const
  let browser: Browser
  let origin = ''

  beforeAll(async () => {
    await server.start()
    await server.setUp()
    origin = `http://${address}:${server.ports.http}`
    browser = await launchBrowser()
  })
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  it('everything works, quietly, and two lines say what is not as it should be', async () => {
    const context = await openContext(browser, variant)
    const watch = await Watch.open(context, origin)
    const { page } = watch
    await page.goto(`${origin}/login`)
    await waitForPage(page, 'login')
    // Browsers ignore this header on plain http and say so in the console; [SC-40] has it on every answer.
    const findings = (await checkPage(watch, variant)).filter((one) => !one.detail.includes('Cross-Origin-Opener-Policy'))
    expect(findings).toEqual([])
    expect(await page.evaluate(() => isSecureContext)).toBe(false)
    expect(await page.getByText('未启用 HTTPS，密码和令牌以明文传输').isVisible()).toBe(true)
    await page.fill('input[type=email]', admin.email)
    await page.fill('input[type=password]', admin.password)
    await page.keyboard.press('Enter')
    await waitForPage(page, 'overview')
    expect(await page.getByText('测试钩子已启用').innerText()).toContain('no-bisect')
    await page.waitForSelector('[data-live="open"]')

    await page.goto(`${origin}/devices?add=1`)
    await page.getByRole('dialog').getByLabel('名称').fill('by address')
    await page.getByRole('button', { name: '创建并连接' }).click()
    await page.waitForSelector('[data-light="waiting"]')
    expect(await page.locator('#snippet code').innerText()).toContain(`-h ${address} `)
    await page.getByRole('button', { name: '复制' }).click()
    await page.getByRole('button', { name: '复制' }).getByText('已复制').first().waitFor()
    await page.getByRole('button', { name: '用浏览器发一条' }).click()
    await page.waitForSelector('[data-light="received"]')
    const rest = (await checkPage(watch, variant)).filter((one) => !one.detail.includes('Cross-Origin-Opener-Policy'))
    expect(rest).toEqual([])
    await context.close()
  })
})
