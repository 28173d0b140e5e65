// SPDX-License-Identifier: AGPL-3.0-only
import { spawnSync } from 'node:child_process'
import { createServer } from 'node:net'
import { join } from 'node:path'
import type { Browser } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, waitForPage } from './browser.ts'
import { Watch } from './checks.ts'
import { fillNotifications } from './fill.ts'
import { readRoutes } from './routes.ts'
import { Server, admin, root } from './server.ts'

/** The header of every HTML answer, exactly [D-94]. */
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; media-src 'self'; worker-src 'self'; manifest-src 'self'; frame-src 'none'; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"

async function findPort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  return typeof address === 'object' && address ? address.port : 0
}

describe.skipIf(!hasBrowser())('the dashboard as it is served', () => {
  let server: Server
  let browser: Browser
  let base = ''

  beforeAll(async () => {
    const port = await findPort()
    base = `http://127.0.0.1:${port}/iot/`
    server = new Server({
      IOT_PMS_HTTP_PORT: String(port),
      IOT_PMS_PUBLIC_URL: base,
      IOT_PMS_ADMIN_EMAIL: admin.email,
      IOT_PMS_ADMIN_PASSWORD: admin.password,
    })
    await server.start()
    browser = await launchBrowser()
  })
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  it('answers every page with the strict policy and is compressed', async () => {
    for (const path of ['', 'login', 'devices', 'no/such/page']) {
      const answer = await fetch(base + path, { headers: { accept: 'text/html' } })
      expect([answer.status, answer.headers.get('content-security-policy'), answer.headers.get('cache-control')]).toEqual([
        200,
        policy,
        'no-store',
      ])
      expect(await answer.text()).not.toMatch(/<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=/)
    }
    const html = await (await fetch(base, { headers: { accept: 'text/html' } })).text()
    const scripts = [...html.matchAll(/(?:src|href)="(\.\/assets\/[^"]+)"/g)].map((match) => new URL(match[1]!, base))
    expect(scripts.length).toBeGreaterThan(1)
    for (const url of scripts) {
      const answer = await fetch(url, { headers: { 'accept-encoding': 'br' } })
      expect([answer.status, answer.headers.get('content-encoding'), answer.headers.get('cache-control')]).toEqual([
        200,
        'br',
        'public, max-age=31536000, immutable',
      ])
    }
  })

  /** Calls the API below the path. */
  async function signedIn() {
    const call = (token: string) => async (method: string, path: string, body: unknown) => {
      const headers = { 'content-type': 'application/json', ...(token ? { authorization: `Bearer ${token}` } : {}) }
      const answer = await fetch(base + path.slice(1), { method, headers, body: JSON.stringify(body) })
      const text = await answer.text()
      if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`)
      return text === '' ? undefined : (JSON.parse(text) as unknown)
    }
    const { email, password } = admin
    const { accessToken } = (await call('')('POST', '/api/v1/auth/login', { email, password })) as { accessToken: string }
    return call(accessToken)
  }

  it('works below a path: no request and no link leaves it, each page reloads [UX-19]', { timeout: 400_000 }, async () => {
    const context = await openContext(browser)
    const watch = await Watch.open(context, new URL(base).origin)
    const { page } = watch
    const outside: string[] = []
    page.on('request', (request) => {
      if (request.url().startsWith('http') && !request.url().startsWith(base)) outside.push(request.url())
    })
    page.on('websocket', (socket) => {
      if (!socket.url().includes('/iot/api/v1/stream')) outside.push(socket.url())
    })
    await page.goto(`${base}login`)
    await page.fill('input[type=email]', admin.email)
    await page.fill('input[type=password]', admin.password)
    await page.keyboard.press('Enter')
    await waitForPage(page, 'overview')
    await page.waitForSelector('[data-live="open"]')
    await page.goto(`${base}devices?add=1`)
    await page.getByRole('dialog').getByLabel('名称').fill('below')
    await page.getByRole('button', { name: '创建并连接' }).click()
    await page.getByRole('button', { name: '用浏览器发一条' }).click()
    await page.waitForSelector('[data-light="received"]')
    await page.getByRole('button', { name: '查看设备' }).click()
    await waitForPage(page, 'device.overview')
    const id = new URL(page.url()).pathname.split('/')[3]!
    await page.goto(`${base}products`)
    const productId = await page.locator('tr[data-row]').first().getAttribute('data-row')
    await page.goto(`${base}connectors/new`)
    await page.locator('[name=preset]').selectOption('plain')
    await page.locator('[name=url]').fill('mqtt://192.0.2.1')
    await page.getByLabel('已启用').uncheck()
    await page.locator('[name=name]').fill('broker below')
    await page.getByRole('button', { name: '保存' }).click()
    await waitForPage(page, 'connector')
    const connectorId = new URL(page.url()).pathname.split('/').at(-1)!
    const ids = { '/devices/': id, '/products/': productId!, '/connectors/': connectorId, ...(await fillNotifications(await signedIn())) }
    for (const { path, name } of readRoutes(ids).pages) {
      await page.goto(base + path.slice(1))
      await waitForPage(page, name)
      const links = await page.locator('a[href]').evaluateAll((all) => all.map((link) => (link as HTMLAnchorElement).href))
      outside.push(...links.filter((link) => !link.startsWith(base)))
    }
    expect(outside).toEqual([])
    expect(watch.take()).toEqual([])
    await context.close()
  })

  it('keeps its budgets', () => {
    const { status, stdout } = spawnSync(process.execPath, [join(root, 'core/dashboard/size.ts')], { encoding: 'utf8' })
    expect(status, stdout).toBe(0)
  })

  it('sends a light sign-in page and no heavy library with the first pages [UX-07] [UX-08]', async () => {
    const context = await openContext(browser)
    const page = await context.newPage()
    const scripts: { url: string; encoding: string | undefined; size: number }[] = []
    page.on('requestfinished', async (request) => {
      const url = request.url()
      if (!/\.(js|css)$/.test(new URL(url).pathname)) return
      const [response, sizes] = await Promise.all([request.response(), request.sizes()])
      scripts.push({ url, encoding: response?.headers()['content-encoding'], size: sizes.responseBodySize })
    })
    await page.goto(`${base}login`, { waitUntil: 'networkidle' })
    const total = (kind: string) => scripts.filter((one) => one.url.endsWith(kind)).reduce((sum, one) => sum + one.size, 0) / 1000
    expect(total('.js')).toBeGreaterThan(30)
    expect(total('.js')).toBeLessThan(130)
    expect(total('.css')).toBeLessThan(30)
    expect(scripts.filter((one) => one.url.includes('/assets/') && !/^(br|gzip|zstd)$/.test(one.encoding ?? ''))).toEqual([])
    expect(scripts.filter((one) => /element|uPlot|plot-|AppShell|echarts|maplibre|codemirror|gridstack/i.test(one.url))).toEqual([])
    await context.close()
  })

  it('shows the note about plain http only where it is true', async () => {
    const context = await openContext(browser)
    const page = await context.newPage()
    await page.goto(`${base}login`)
    await waitForPage(page, 'login')
    expect(await page.locator('[data-banner="insecure"]').count()).toBe(0)
    await context.close()
  })
})
