// SPDX-License-Identifier: AGPL-3.0-only
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { testAdmin, testApp } from '@iot-pms/core/testing'
import type { TestApp } from '@iot-pms/core/testing'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import type { Variant } from './browser.ts'
import { Watch, checkPage } from './checks.ts'
import { root } from './server.ts'

const folder = join(root, 'test-results/license')
const daySeconds = 86_400
const today = () => Math.floor(Date.now() / 1000)

/** Each language, theme and width twice; all eight together are walked by the general walk, without a license. */
const full: Variant[] = [
  { language: 'zh-CN', theme: 'light', width: 1440 },
  { language: 'en', theme: 'light', width: 390 },
  { language: 'zh-CN', theme: 'dark', width: 390 },
  { language: 'en', theme: 'dark', width: 1440 },
]
const short = full.slice(2)

/** Each state that looks different from the others, as claims; undefined: no license. */
const states: { name: string; claims: Record<string, unknown> | undefined }[] = [
  { name: 'COMMUNITY', claims: undefined },
  {
    name: 'EXPIRING',
    claims: { exp: today() + 12 * daySeconds, nbf: today() - 353 * daySeconds, limits: { devices: 2, overage_pct: 100 } },
  },
  { name: 'MISMATCH', claims: { features: ['vehicle'] } },
  { name: 'RESTRICTED', claims: { iat: today() - 400 * daySeconds, nbf: today() - 400 * daySeconds, exp: today() - 100 * daySeconds } },
]

describe.skipIf(!hasBrowser())('the license page in every state', () => {
  let app: TestApp
  let browser: Browser
  let machine: Record<string, unknown>

  beforeAll(async () => {
    app = await testApp({
      modules: [join(root, 'test/modules/greenhouse')],
      license: 'none',
      settings: { IOT_PMS_GREENHOUSE_DRIP_PORT: 'off' },
    })
    for (const name of ['one', 'two', 'three']) await app.createDevice({ name })
    const { mode, salt, factors } = (await app.call('POST', '/api/v1/license/request', { body: {} })).json<{
      mode: string
      salt: string
      factors: { k: string; h: string }[]
    }>()
    // One factor of another machine: still bound, but not all of it matches.
    machine = { mode, salt, min: 1, anchors: 0, factors: [...factors, { k: 'tpm', h: 'AAAAAAAAAAAAAAAAAAAAAA' }] }
    browser = await launchBrowser()
    mkdirSync(folder, { recursive: true })
  })
  afterAll(async () => {
    await browser?.close()
    await app?.close()
  })

  it.each(states)('is clean, accessible and complete in $name', { timeout: 240_000 }, async ({ name, claims }) => {
    await app.relicense('none')
    if (claims) {
      const wrong = { ...machine, factors: [{ k: 'install', h: 'AAAAAAAAAAAAAAAAAAAAAA' }] }
      const token = app.vendor.license({
        features: ['greenhouse', 'vehicle', 'audit'],
        machine: name === 'MISMATCH' ? wrong : machine,
        cust: { name: 'ACME' },
        ...claims,
      })
      // Signed in anew: looking at pages takes longer than a sign-in counts as fresh.
      const answer = await app.call('POST', '/api/v1/license', {
        body: { license: token, acknowledge: true },
        token: await signInByApi(),
      })
      expect(answer.status, answer.text).toBe(200)
    }
    const found: string[] = []
    for (const variant of name === 'EXPIRING' ? full : short) found.push(...(await look(name, variant)))
    expect(found).toEqual([])
  })

  async function signInByApi(): Promise<string> {
    const answer = await app.call('POST', '/api/v1/auth/login', { body: testAdmin, token: null })
    return answer.json<{ accessToken: string }>().accessToken
  }

  async function look(name: string, variant: Variant): Promise<string[]> {
    const label = `${name} ${variant.language} ${variant.theme} ${variant.width}`
    const context = await openContext(browser, variant)
    const watch = await Watch.open(context, app.url)
    const { page } = watch
    const found: string[] = []
    const check = async (what: string) => {
      // Rows and marks are drawn, dialogs have come in.
      await page.waitForFunction(() => document.querySelector('.skeleton') === null)
      await page.screenshot({ path: join(folder, `${label} ${what}.png`), fullPage: what === 'page' })
      found.push(...(await checkPage(watch, variant)).map(({ kind, detail }) => `${label} ${what}: ${kind}: ${detail}`))
    }
    await signIn(page, app, `?lang=${variant.language}&theme=${variant.theme}`, testAdmin)
    await page.goto(`${app.url}/settings/license`)
    await waitForPage(page, 'settings.license')
    await page.waitForSelector(`[data-license-state="${name}"]`)
    await check('page')
    // The other dialogs are opened by the general walk.
    for (const opening of name === 'EXPIRING' ? ['install', 'remove'] : []) {
      await page.locator(`[data-open="${opening}"]`).click()
      await page.getByRole('dialog').waitFor()
      await page.waitForTimeout(80)
      if (opening === 'install') {
        await page
          .getByRole('dialog')
          .getByRole('textbox')
          .fill(app.vendor.license({ features: ['vehicle'], exp: today() + daySeconds }))
        await page.getByRole('dialog').locator('button[type=submit]').click()
        await page.waitForSelector('[data-step="preview"]')
      }
      await check(opening)
      await page.keyboard.press('Escape')
      await page.getByRole('dialog').waitFor({ state: 'hidden' })
    }
    if (name === 'COMMUNITY') {
      await page.goto(`${app.url}/greenhouse`)
      await page.waitForSelector('main[data-state="locked"]')
      await check('locked')
    }
    await context.close()
    return found
  }
})
