// SPDX-License-Identifier: AGPL-3.0-only
/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
import { existsSync } from 'node:fs'
import { chromium } from 'playwright-core'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { inject } from 'vitest'
import { admin } from './server.ts'

const candidates = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome']

export function findBrowser(): string | undefined {
  return candidates.find((path) => existsSync(path))
}

/** False where no browser is installed: the suite is then skipped, in CI it fails before. */
export const hasBrowser = (): boolean => inject('browserPath') !== ''

export function launchBrowser(): Promise<Browser> {
  return chromium.launch({ executablePath: inject('browserPath'), args: ['--no-sandbox', '--disable-gpu', '--disable-quic'] })
}

export type Variant = { language: 'zh-CN' | 'en'; theme: 'light' | 'dark'; width: 1440 | 390 }
export const variants: Variant[] = (['zh-CN', 'en'] as const).flatMap((language) =>
  (['light', 'dark'] as const).flatMap((theme) => ([1440, 390] as const).map((width) => ({ language, theme, width }))),
)

export function openContext(
  browser: Browser,
  variant: Partial<Variant> & { timeZone?: string; bypassCSP?: boolean } = {},
): Promise<BrowserContext> {
  const width = variant.width ?? 1440
  return browser.newContext({
    viewport: { width, height: width === 390 ? 844 : 900 },
    locale: variant.language ?? 'zh-CN',
    timezoneId: variant.timeZone ?? 'Asia/Shanghai',
    colorScheme: variant.theme ?? 'light',
    hasTouch: width === 390,
    reducedMotion: 'reduce',
    bypassCSP: variant.bypassCSP ?? false,
  })
}

/** Resolves when the page has its data; a page that failed says so. */
export async function waitForPage(page: Page, name?: string): Promise<void> {
  const start = name ? `main[data-page="${name}"]` : 'main'
  const wanted = `${start}[data-state="ready"], ${start}[data-state="empty"], ${start}[data-state="error"], ${start}[data-state="locked"]`
  try {
    await page.waitForSelector(wanted)
  } catch (error) {
    const main = await page
      .locator('main')
      .evaluateAll((all) => all.map((one) => `${one.outerHTML.slice(0, 120)} … ${(one as HTMLElement).innerText.slice(0, 200)}`))
    throw new Error(`${page.url()} does not come to ${wanted}; it shows ${main.join()}`, { cause: error })
  }
}

type Person = { email: string; password: string }

/** Signs in by the form, as somebody would. */
export async function signIn(page: Page, server: { url: string }, query = '', person: Person = admin): Promise<void> {
  await page.goto(`${server.url}/login${query}`)
  await page.fill('input[type=email]', person.email)
  await page.fill('input[type=password]', person.password)
  await page.keyboard.press('Enter')
  await waitForPage(page, 'overview')
}
