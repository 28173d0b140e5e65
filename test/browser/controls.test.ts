// SPDX-License-Identifier: AGPL-3.0-only
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, waitForPage } from './browser.ts'
import { Watch, checkPage, kinds } from './checks.ts'
import type { Kind } from './checks.ts'
import { Server } from './server.ts'

/** One fault of each kind, put into a page that is clean without it. Each must be found, or the walk proves nothing. */
const faults: Record<Kind, string> = {
  console: `console.warn('something odd')`,
  origin: `fetch('http://127.0.0.2:9/pixel.png', { mode: 'no-cors' }).catch(() => {})`,
  policy: `document.body.insertAdjacentHTML('beforeend', '<p style="margin:1px">.</p>')`,
  axe: `document.querySelector('main').insertAdjacentHTML('beforeend', '<button type="button" class="btn icon"><svg width="16" height="16"></svg></button>')`,
  key: `document.querySelector('main').append('overview.title')`,
  language: `document.querySelector('main').append('请登录')`,
  placeholder: `document.querySelector('main').append('Hello {name}')`,
  scroll: `{ const wide = document.createElement('div'); wide.className = 'wide'; wide.textContent = '.'; document.body.append(wide); wide.style.width = '700px' }`,
  target: `{ const small = document.createElement('button'); small.textContent = '.'; document.querySelector('main').append(small); small.style.cssText = 'width:12px;height:12px;padding:0' }`,
  frame: `document.querySelector('main').insertAdjacentHTML('beforeend', '<h1>again</h1>')`,
}

describe.skipIf(!hasBrowser())('the checks of the walk', () => {
  const server = new Server()
  const variant = { language: 'en', theme: 'light', width: 390 } as const
  let browser: Browser

  beforeAll(async () => {
    await server.start()
    await server.setUp()
    browser = await launchBrowser()
  })
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  async function find(fault: string, bypassCSP = false): Promise<Kind[]> {
    const context = await openContext(browser, { ...variant, bypassCSP })
    const watch = await Watch.open(context, server.url)
    await watch.page.goto(`${server.url}/login?lang=en&theme=light`)
    await waitForPage(watch.page, 'login')
    if (fault) await watch.page.evaluate(fault)
    await watch.page.waitForTimeout(100)
    const findings = await checkPage(watch, variant)
    await context.close()
    return findings.map((one) => one.kind)
  }

  it('find nothing on a page without a fault', async () => {
    expect(await find('')).toEqual([])
  })

  it.each(kinds)('find a fault of the kind "%s"', async (kind) => {
    // The policy stops such a request before it is one; the check has to see it also without that help.
    expect(await find(faults[kind], kind === 'origin')).toContain(kind)
  })

  it('find Latin sentences in Chinese', async () => {
    const context = await openContext(browser, { language: 'zh-CN' })
    const watch = await Watch.open(context, server.url)
    await watch.page.goto(`${server.url}/login?lang=zh-CN`)
    await waitForPage(watch.page, 'login')
    await watch.page.evaluate(`document.querySelector('main').append('Please sign in to go on')`)
    expect((await checkPage(watch, { language: 'zh-CN', theme: 'light', width: 1440 })).map((one) => one.kind)).toEqual(['language'])
    await context.close()
  })
})
