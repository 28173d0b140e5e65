// SPDX-License-Identifier: AGPL-3.0-only
import { source as axeSource } from 'axe-core'
import type { BrowserContext, Page } from 'playwright-core'
import type { Variant } from './browser.ts'

/** What must hold on every page. Each kind has a negative control in controls.test.ts. */
export const kinds = ['console', 'origin', 'policy', 'axe', 'key', 'language', 'placeholder', 'scroll', 'target', 'frame'] as const
export type Kind = (typeof kinds)[number]
export type Finding = { kind: Kind; detail: string }

const axeTags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']
const areas = [
  'alarms',
  'attributes',
  'bin',
  'commands',
  'common',
  'connect',
  'connectors',
  'device',
  'devices',
  'firmware',
  'jobs',
  'license',
  'notifications',
  'overview',
  'products',
  'reject',
  'rules',
  'settings',
  'shell',
  'start',
]

/** Collects what a page does behind its content: lines of its console, requests, broken policies. */
export class Watch {
  readonly #page: Page
  #findings: Finding[] = []

  private constructor(page: Page) {
    this.#page = page
  }

  /** To be called before the first navigation. */
  static async open(context: BrowserContext, origin: string): Promise<Watch> {
    const page = await context.newPage()
    const watch = new Watch(page)
    const add = (kind: Kind, detail: string) => watch.#findings.push({ kind, detail })
    await page.exposeFunction('reportPolicy', (detail: string) => add('policy', detail))
    await page.addInitScript(() => {
      addEventListener('securitypolicyviolation', (event) => {
        const { reportPolicy } = globalThis as unknown as { reportPolicy: (detail: string) => void }
        reportPolicy(`${event.effectiveDirective} ${event.blockedURI} ${event.sourceFile}`)
      })
    })
    page.on('console', (message) => {
      if (message.type() === 'error' || message.type() === 'warning') add('console', message.text())
    })
    page.on('pageerror', (error) => add('console', error.message))
    page.on('request', (request) => {
      const url = new URL(request.url())
      if (!['data:', 'blob:'].includes(url.protocol) && url.origin !== origin) add('origin', request.url())
    })
    page.on('websocket', (socket) => {
      if (new URL(socket.url()).host !== new URL(origin).host) add('origin', socket.url())
    })
    return watch
  }

  get page(): Page {
    return this.#page
  }

  take(): Finding[] {
    const findings = this.#findings
    this.#findings = []
    return findings
  }
}

/** Checks the page as it stands, with whatever is open on it, and what happened since the last check. */
export async function checkPage(watch: Watch, variant: Variant): Promise<Finding[]> {
  const { page } = watch
  const inside = await page.evaluate(readPage, { language: variant.language, areas, isPhone: variant.width === 390 })
  const axe = await findAxe(page)
  // Reports of broken policies come in a task of their own.
  await page.waitForTimeout(30)
  return [...watch.take(), ...inside, ...axe]
}

async function findAxe(page: Page): Promise<Finding[]> {
  // Through the debugger, so that the page's own policy stays as it is.
  if (!(await page.evaluate(() => 'axe' in globalThis))) await page.evaluate(axeSource)
  return page.evaluate(async (tags) => {
    type Results = { violations: { id: string; impact?: string; nodes: { html: string; failureSummary?: string }[] }[] }
    const { axe } = globalThis as unknown as { axe: { run(options: object): Promise<Results> } }
    const { violations } = await axe.run({ runOnly: { type: 'tag', values: tags }, resultTypes: ['violations'] })
    return violations
      .filter((one) => one.impact === 'serious' || one.impact === 'critical')
      .map((one) => ({
        kind: 'axe' as const,
        detail: `${one.id}: ${one.nodes.map((node) => `${node.html.slice(0, 160)} ${node.failureSummary?.slice(0, 200)}`).join(' | ')}`,
      }))
  }, axeTags)
}

/** Runs inside the page. */
function readPage({ language, areas: known, isPhone }: { language: string; areas: string[]; isPhone: boolean }): Finding[] {
  const findings: Finding[] = []
  const add = (kind: Kind, detail: string) => findings.push({ kind, detail })
  const isOwn = (element: Element | null) => element?.closest('[translate="no"], script, style, .lang-free') === null
  const texts: string[] = []

  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.textContent?.trim()
    const parent = node.parentElement
    if (text && parent && isOwn(parent) && parent.closest('noscript') === null && parent.checkVisibility()) texts.push(text)
  }
  for (const element of document.querySelectorAll('[placeholder], [title], [aria-label], img[alt]')) {
    if (!isOwn(element) || !element.checkVisibility()) continue
    for (const name of ['placeholder', 'title', 'aria-label', 'alt']) {
      const text = element.getAttribute(name)?.trim()
      // Times on hover are the same in both languages.
      if (text && !(name === 'title' && element.matches('time, .value'))) texts.push(text)
    }
  }

  for (const text of texts) {
    if (new RegExp(`(?:^|\\s)(?:${known.join('|')})\\.[a-z][\\w]*`).test(text)) add('key', text)
    if (/\{\w+\}/.test(text)) add('placeholder', text)
    if (language === 'en' && /[\u3000-\u9fff\uff00-\uffef]/.test(text)) add('language', text)
    // Names and units are Latin in Chinese too; four words in a row are a sentence.
    if (language !== 'en' && /(?:\b[A-Za-z][a-z']+\b[ ,.]+){3}\b[a-z']+\b/.test(text)) add('language', text)
  }

  const root = document.documentElement
  if (root.scrollWidth > root.clientWidth) add('scroll', `${root.scrollWidth - root.clientWidth} px`)
  if (isPhone) {
    for (const element of document.querySelectorAll('button, a[href], input:not([type=hidden]), select, textarea, [role=tab]')) {
      const box = element.getBoundingClientRect()
      // Links inside a sentence and controls that are only for screen readers are excepted.
      const isInline = element.matches('a, .btn.link, dd a, p a') && getComputedStyle(element).display === 'inline'
      const isHidden = !element.checkVisibility({ visibilityProperty: true }) || element.closest('.sr-only, [aria-hidden="true"]') !== null
      const isLabelled = element.matches('input[type=checkbox], input[type=radio]') && element.closest('label') !== null
      if (!isInline && !isHidden && !isLabelled && box.width > 0 && (box.width < 23.5 || box.height < 23.5)) {
        add('target', `${element.outerHTML.slice(0, 120)} ${Math.round(box.width)}×${Math.round(box.height)}`)
      }
    }
  }

  const main = document.querySelector('main#main')
  if (!main?.getAttribute('data-page')) add('frame', 'no main with data-page')
  if (main?.getAttribute('data-state') === 'loading') add('frame', 'still loading')
  if (document.querySelectorAll('h1').length !== 1) add('frame', `${document.querySelectorAll('h1').length} h1`)
  const heading = document.querySelector('h1')?.textContent?.trim() ?? ''
  if (!document.title.includes(heading)) add('frame', `the title "${document.title}" does not hold "${heading}"`)
  if (root.lang !== (language === 'en' ? 'en' : 'zh-CN')) add('frame', `html lang is ${root.lang}`)
  return findings
}
