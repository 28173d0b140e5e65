// SPDX-License-Identifier: AGPL-3.0-only
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createTestVendor, testAdmin, testApp } from '@iot-pms/core/testing'
import type { TestApp } from '@iot-pms/core/testing'
import type { Browser, Page } from 'playwright-core'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { root } from './server.ts'

type RequestFile = { mode: string; salt: string; factors: { k: string; h: string }[]; shortCode: string; present: string[] }

const greenhouse = join(root, 'test/modules/greenhouse')
const daySeconds = 86_400
const today = () => Math.floor(Date.now() / 1000)

/** A lic file as it comes by mail: armoured and wrapped. */
function toFile(token: string, name = 'acme.lic') {
  const lines = token.match(/.{1,64}/g) ?? []
  const text = ['-----BEGIN IOT-PMS LICENSE-----', ...lines, '-----END IOT-PMS LICENSE-----', ''].join('\r\n')
  return { name, mimeType: 'text/plain', buffer: Buffer.from(text) }
}

const jtiOf = (token: string) => (JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString()) as { jti: string }).jti

describe.skipIf(!hasBrowser())('the license page', () => {
  let app: TestApp
  let browser: Browser
  let page: Page

  beforeAll(async () => {
    app = await testApp({ modules: [greenhouse], license: 'none', settings: { IOT_PMS_GREENHOUSE_DRIP_PORT: 'off' } })
    browser = await launchBrowser()
    page = await (await openContext(browser)).newPage()
    await signIn(page, app, '', testAdmin)
  })
  afterEach(() => app.relicense('none'))
  afterAll(async () => {
    await browser?.close()
    await app?.close()
  })

  const dialog = () => page.getByRole('dialog')
  const waitForState = (state: string) => page.waitForSelector(`[data-license-state="${state}"]`)

  async function openLicense(): Promise<void> {
    await page.goto(`${app.url}/settings/license`)
    await waitForPage(page, 'settings.license')
  }

  async function offer(token: string): Promise<void> {
    await page.locator('[data-open="install"]').click()
    await dialog().locator('input[type=file]').setInputFiles(toFile(token))
  }

  async function offerAndInstall(token: string): Promise<void> {
    await offer(token)
    await page.waitForSelector('[data-step="preview"]')
    const tick = dialog().getByRole('checkbox')
    if ((await tick.count()) > 0) await tick.check()
    await dialog().getByRole('button', { name: '安装', exact: true }).click()
    await dialog().waitFor({ state: 'hidden' })
  }

  it(
    'goes the whole way: community, request, install, less, revoked, restricted, removed [UX-44] [UX-47]',
    { timeout: 120_000 },
    async () => {
      await openLicense()
      await waitForState('COMMUNITY')
      const menu = page.getByRole('navigation').getByText('未授权模块')
      await menu.click()
      await page.getByRole('link', { name: /^温室/ }).click()
      await page.waitForSelector('main[data-state="locked"] [data-locked="greenhouse"]')
      expect(await page.getByRole('heading', { level: 1 }).textContent()).toBe('温室')
      await page.getByRole('link', { name: '已有许可证？安装' }).click()
      await waitForPage(page, 'settings.license')

      await page.locator('[data-open="request"]').click()
      const downloading = page.waitForEvent('download')
      await dialog().getByRole('button', { name: '生成并下载' }).click()
      const file = await downloading
      expect(file.suggestedFilename()).toMatch(/^iot-pms-[0-9a-f]{8}-\d{8}\.req\.json$/)
      const request = JSON.parse(readFileSync(await file.path(), 'utf8')) as RequestFile
      expect(request.present).toEqual(['greenhouse'])
      await expect.poll(() => dialog().getByRole('textbox', { name: '短码' }).inputValue()).toBe(request.shortCode)
      await page.keyboard.press('Escape')

      const { mode, salt, factors } = request
      const machine = { mode, salt, factors, min: 1, anchors: 0 }
      const full = { features: ['greenhouse', 'vehicle'], limits: { devices: 10, overage_pct: 10 }, machine, cust: { name: '示例公司' } }
      await offer(app.vendor.license(full))
      await page.waitForSelector('[data-change="FEATURE_ADDED"]')
      expect(await dialog().locator('[data-change="FEATURE_ADDED"]').allTextContents()).toHaveLength(2)
      expect(await dialog().getByRole('checkbox').count()).toBe(0)
      await dialog().getByRole('button', { name: '安装', exact: true }).click()
      await waitForState('ACTIVE')
      // Without a reload, and within the promised five seconds on an idle machine.
      await menu.waitFor({ state: 'detached' })
      await expect.poll(() => page.locator('[data-feature="greenhouse"] .tag').textContent()).toBe('可用')

      await offer(app.vendor.license({ ...full, features: ['vehicle'] }))
      await page.waitForSelector('[data-change="FEATURE_REMOVED"]')
      const install = dialog().getByRole('button', { name: '安装', exact: true })
      expect(await install.isDisabled()).toBe(true)
      await dialog().getByRole('checkbox').check()
      await install.click()
      await dialog().waitFor({ state: 'hidden' })
      await menu.waitFor()

      const last = app.vendor.license({ ...full, features: ['vehicle', 'greenhouse'] })
      await offerAndInstall(last)
      await menu.waitFor({ state: 'detached' })
      await page.locator('[data-open="crl"]').click()
      const list = app.vendor.crl({ seq: 3, revoked: [{ jti: jtiOf(last), at: today(), reason: 'lost' }] })
      await dialog().locator('input[type=file]').setInputFiles(toFile(list, 'revoked.crl'))
      await dialog().getByRole('button', { name: '安装', exact: true }).click()
      await waitForState('REVOKED')
      await page.locator('[data-banner="license"]').getByText('许可证已吊销，授权功能只读').waitFor()
      await expect.poll(() => page.locator('[data-feature="greenhouse"] .tag').textContent()).toBe('只读')

      const past = { iat: today() - 400 * daySeconds, nbf: today() - 400 * daySeconds, exp: today() - 100 * daySeconds }
      await offerAndInstall(app.vendor.license({ ...full, ...past }))
      await waitForState('RESTRICTED')

      await page.locator('[data-open="remove"]').click()
      const remove = dialog().getByRole('button', { name: '移除许可证' })
      expect(await remove.isDisabled()).toBe(true)
      await dialog().getByRole('textbox').fill('移除')
      await remove.click()
      await dialog().waitFor({ state: 'hidden' })
      // The one before it takes over, revoked as it is; when all are gone it is the community again.
      await waitForState('REVOKED')
      await app.relicense('none')
      await waitForState('COMMUNITY')
      await menu.waitFor()
      await page.locator('[data-banner="license"]').waitFor({ state: 'detached' })
    },
  )

  it('says of every refusal what it is and what to do, and keeps no text of it', async () => {
    await openLicense()
    const good = app.vendor.license()
    const older = app.vendor.license()
    await offerAndInstall(app.vendor.license())
    const refusals: [string, string][] = [
      ['not a license', 'LIC_MALFORMED'],
      [`${good.slice(0, -8)}AAAAAAAA`, 'LIC_SIGNATURE'],
      [createTestVendor().license(), 'LIC_KID_UNKNOWN'],
      [app.vendor.license({ env: 'staging' }), 'LIC_ENV'],
      [app.vendor.license({ aud: 'another' }), 'LIC_AUD'],
      [app.vendor.license({ features: undefined }), 'LIC_CLAIM_MISSING'],
      [app.vendor.license({ iat: today() + 5 * daySeconds }), 'LIC_CLOCK'],
      [app.vendor.license({ crl_seq: 99 }), 'LIC_CRL_REQUIRED'],
      [older, 'LIC_SUPERSEDED'],
      ['A'.repeat(80_000), 'LIC_SIZE'],
    ]
    await page.locator('[data-open="install"]').click()
    for (const [text, code] of refusals) {
      await dialog().locator('input[type=file]').setInputFiles(toFile(text))
      await page.waitForSelector(`[data-refusal="${code}"]`)
      expect(await dialog().locator('[data-refusal] p').count(), code).toBe(2)
      expect(await dialog().getByRole('textbox').inputValue()).toBe('')
    }
    await page.keyboard.press('Escape')
    await expect.poll(() => page.getByRole('cell', { name: /LIC_SUPERSEDED/ }).count()).toBe(1)
  })

  it('takes a file that is dropped anywhere on the page, and one typed in by keyboard alone [D-68] [D-102]', async () => {
    await openLicense()
    await waitForState('COMMUNITY')
    await page.evaluate((text) => {
      const transfer = new DataTransfer()
      transfer.items.add(new File([text], 'acme.lic'))
      document.querySelector('h1')!.dispatchEvent(new DragEvent('drop', { bubbles: true, cancelable: true, dataTransfer: transfer }))
    }, app.vendor.license())
    await page.waitForSelector('[data-step="preview"] [data-change="FEATURE_ADDED"]')
    await page.keyboard.press('Escape')
    await dialog().waitFor({ state: 'hidden' })

    await page.locator('[data-open="install"]').focus()
    await page.keyboard.press('Enter')
    await dialog().waitFor()
    await dialog().getByRole('textbox').focus()
    await page.keyboard.insertText(app.vendor.license())
    await page.keyboard.press('Tab')
    await page.keyboard.press('Tab')
    await page.keyboard.press('Enter')
    await page.waitForSelector('[data-step="preview"]')
    await dialog().getByRole('button', { name: '安装', exact: true }).focus()
    await page.keyboard.press('Enter')
    await waitForState('ACTIVE')
    await app.relicense('none')
    // Another tab's or server's change arrives by itself.
    await waitForState('COMMUNITY')
    expect(await page.locator('[data-banner="license"]').count()).toBe(0)
  })

  it('reminds of the end until it is closed for the day [L-124]', async () => {
    await openLicense()
    await offerAndInstall(app.vendor.license({ exp: today() + 10 * daySeconds }))
    await waitForState('EXPIRING')
    const banner = page.locator('[data-banner="license"]')
    await page.goto(`${app.url}/devices`)
    await banner.getByRole('link', { name: '查看许可证' }).waitFor()
    await banner.getByRole('button', { name: '今天不再提示' }).click()
    await banner.waitFor({ state: 'detached' })
    await openLicense()
    await waitForState('EXPIRING')
    expect(await banner.count()).toBe(0)
  })

  it('shows its outline while it loads and why it cannot be shown', async () => {
    let answer = () => {}
    const held = new Promise<void>((resolve) => (answer = resolve))
    await page.route('**/api/v1/license', async (route) => {
      await held
      await route.fulfill({
        status: 500,
        contentType: 'application/problem+json',
        body: '{"status":500,"code":"INTERNAL","detail":"没有成功"}',
      })
    })
    await page.goto(`${app.url}/settings/license`)
    await page.waitForSelector('main[data-page="settings.license"][data-state="loading"] .skeleton')
    answer()
    await page.waitForSelector('main[data-state="error"]')
    expect(await page.getByRole('alert').getByText('INTERNAL').count()).toBe(1)
    await page.unroute('**/api/v1/license')
    await page.getByRole('button', { name: '重试' }).click()
    await waitForState('COMMUNITY')
  })

  it('is not there for a person without license.read: no word, no request [D-71]', async () => {
    const person = { email: 'viewer@example.com', password: testAdmin.password }
    await app.call('POST', '/api/v1/users', { body: { name: 'Vera', role: 'viewer', ...person } })
    const context = await openContext(browser)
    const other = await context.newPage()
    const asked: string[] = []
    other.on('request', (request) => asked.push(new URL(request.url()).pathname))
    await signIn(other, app, '', person)
    await other.goto(`${app.url}/greenhouse`)
    await waitForPage(other, 'notFound')
    expect(await other.getByRole('heading', { level: 1 }).textContent()).toBe('页面不存在')
    expect(await other.locator('body').textContent()).not.toContain('授权')
    await other.goto(`${app.url}/settings/license`)
    await other.waitForSelector('main[data-state="error"]')
    expect(await other.getByText('license.read').count()).toBe(1)
    expect(asked.filter((path) => /\/api\/v1\/(license|modules)/.test(path))).toEqual([])
    await context.close()
  })
})
