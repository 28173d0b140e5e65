// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, randomBytes } from 'node:crypto'
import { connectAsync } from 'mqtt'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server } from './server.ts'

type Packages = { items: { id: string; title: string; size: number | null; checksum: string | null; isProductTarget: boolean }[] }
type DeviceFirmware = { target: { source: string; version: string } | null; state: string | null }

describe.skipIf(!hasBrowser())('firmware at the dashboard', () => {
  const server = new Server()
  let browser: Browser
  let page: Page

  beforeAll(async () => {
    await server.start()
    await server.setUp()
    browser = await launchBrowser()
    page = await (await openContext(browser)).newPage()
    await signIn(page, server)
  })
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  const list = () => server.call<Packages>('GET', '/api/v1/ota-packages')
  const firmwareOf = (id: string) => server.call<DeviceFirmware>('GET', `/api/v1/devices/${id}/firmware`)

  async function openUpload(title: string, version: string): Promise<void> {
    await page.goto(`${server.url}/firmware`)
    await waitForPage(page, 'firmware')
    await page.getByRole('button', { name: '上传' }).first().click()
    await page.getByLabel('标题').fill(title)
    await page.getByLabel('版本').fill(version)
  }

  it('is uploaded with its progress shown, and listed', async () => {
    await openUpload('Boiler', '2.0')
    const content = randomBytes(12_000_000)
    await page.locator('input[type=file]').setInputFiles({ name: 'boiler.bin', mimeType: 'application/octet-stream', buffer: content })
    const progress = page.locator('.el-drawer progress').waitFor()
    await page.locator('.el-drawer').getByRole('button', { name: '上传' }).click()
    await progress
    await page.getByText('已上传 Boiler 2.0').waitFor()
    const { items } = await list()
    expect(items).toMatchObject([{ title: 'Boiler', size: content.length, checksum: createHash('sha256').update(content).digest('hex') }])
    await page.locator(`[data-row="${items[0]!.id}"]`).getByText('11.4 MiB').waitFor()
  })

  it('shows what is wrong where it is wrong', async () => {
    await openUpload('Boiler', '2.0')
    await page.getByLabel('来源').selectOption('url')
    await page.getByLabel('外部地址').last().fill('https://files.example.com/boiler.bin')
    await page.locator('.el-drawer').getByRole('button', { name: '上传' }).click()
    await page.getByText('该产品已有同类型、同标题和版本的升级包').first().waitFor()
    expect((await list()).items).toHaveLength(1)
    await page.keyboard.press('Escape')
  })

  it('is given to a product and to a device, and its roll-out is followed with its failures', async () => {
    const [pack] = (await list()).items
    const other = await server.createDevice('pump-other')
    const device = await server.createDevice('pump-7')
    await page.goto(`${server.url}/firmware`)
    await waitForPage(page, 'firmware')
    await page.locator(`[data-row="${pack!.id}"]`).getByRole('button', { name: '升级进度' }).click()
    const drawer = page.locator('.el-drawer')
    await drawer.getByText('还没有设备分配到此升级包').waitFor()

    await drawer.getByLabel('分配给设备').fill('pump-7')
    await drawer.getByRole('button', { name: '分配', exact: true }).click()
    await drawer.locator(`[data-row="${device.id}"]`).getByText('已通知').waitFor()
    await expect.poll(() => firmwareOf(device.id), { timeout: 20_000 }).toMatchObject({ target: { source: 'device', version: '2.0' } })

    await drawer.getByRole('button', { name: '设为产品默认' }).click()
    await drawer.locator(`[data-row="${other.id}"]`).waitFor()
    expect(await firmwareOf(other.id)).toMatchObject({ target: { source: 'product' } })

    const client = await connectAsync(`mqtt://127.0.0.1:${server.ports.mqtt}`, { username: other.token })
    await client.publishAsync('v1/devices/me/telemetry', JSON.stringify({ fw_state: 'FAILED', fw_error: 'no room for 12 MB' }), { qos: 1 })
    await drawer.getByText('no room for 12 MB').waitFor()
    const failed = drawer.locator(`[data-row="${other.id}"]`)
    await failed.getByText('过程').click()
    await failed.getByText('状态：失败 · no room for 12 MB').waitFor()
    await failed.getByText('已通知设备').waitFor()
    await drawer.locator('[data-state-count="FAILED"]').click()
    await expect.poll(() => drawer.locator('[data-row]').count(), { timeout: 20_000 }).toBe(1)
    await client.endAsync()
  })

  it('is deleted after it was taken away, and after its version was typed', async () => {
    const [pack] = (await list()).items
    const devices = await server.call<{ items: { id: string }[] }>('GET', '/api/v1/devices')
    for (const { id } of devices.items) await server.call('DELETE', `/api/v1/devices/${id}/firmware`)
    await page.goto(`${server.url}/firmware`)
    await waitForPage(page, 'firmware')
    await page.locator(`[data-row="${pack!.id}"]`).getByRole('button', { name: '升级进度' }).click()
    await page.locator('.el-drawer').getByRole('button', { name: '取消产品默认' }).click()
    await page.getByText('已取消产品默认').waitFor()
    await expect
      .poll(() => server.call<{ total: number }>('GET', `/api/v1/ota-packages/${pack!.id}/devices`), { timeout: 20_000 })
      .toMatchObject({ total: 0 })
    await page.keyboard.press('Escape')
    await page.locator(`[data-row="${pack!.id}"] [data-menu="row"]`).click()
    await page.getByRole('menuitem', { name: '删除' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('输入下面的内容以确认').fill('2.0')
    await dialog.getByRole('button', { name: '删除' }).click()
    await page.waitForSelector('main[data-page="firmware"][data-state="empty"]')
    expect((await list()).items).toEqual([])
  })
})
