// SPDX-License-Identifier: AGPL-3.0-only
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { TestBroker, hasBroker } from '../../core/src/connectors/testing.ts'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server } from './server.ts'

type Found = { items: { id: string; name: string; productName: string }[] }

describe.skipIf(!hasBrowser() || !hasBroker)('connectors at the dashboard', () => {
  const server = new Server({ IOT_PMS_OUTBOUND_ALLOW: '127.0.0.1' })
  const broker = new TestBroker()
  let browser: Browser
  let page: Page
  let sending: NodeJS.Timeout

  beforeAll(async () => {
    await broker.start({ users: { iot: 'right horse' } })
    await server.start()
    await server.setUp()
    const client = await broker.connect({ username: 'iot', password: 'right horse' })
    let count = 0
    const payload = () =>
      JSON.stringify({ deviceInfo: { deviceProfileName: 'EM300' }, object: { temperature: 20 + (count++ % 10) }, rxInfo: [{ rssi: -97 }] })
    sending = setInterval(() => client.publish('application/7/device/24e124/event/up', payload(), { qos: 1 }), 200)
    browser = await launchBrowser()
    page = await (await openContext(browser)).newPage()
    await signIn(page, server)
  })
  afterAll(async () => {
    clearInterval(sending)
    await browser?.close()
    await server.remove()
    await broker.close()
  })

  it('say what they are for while there is none', async () => {
    await page.goto(`${server.url}/connectors`)
    await waitForPage(page, 'connectors')
    await page.getByText('从已有的 MQTT 服务器或平台接入。').waitFor()
    await page.getByText('至少一次 · 自代理起').waitFor()
    await page.getByRole('link', { name: '新建连接器' }).first().click()
    await waitForPage(page, 'connector.new')
    expect(new URL(page.url()).pathname).toBe('/connectors/new')
  })

  it('are made from a preset, tested before they are saved, and previewed with what the broker sent', async () => {
    await page.locator('[name=preset]').selectOption('chirpstack')
    // The preset brings an example, which the preview understands at once.
    const preview = page.locator('[data-part=preview]')
    await preview.getByText('24e124136b502217').first().waitFor()
    await page.locator('[name=name]').fill('LoRaWAN')
    await page.locator('[name=url]').fill(broker.url)
    await page.locator('[name=broker-user]').fill('iot')
    await page.locator('[name=broker-password]').fill('wrong')
    await page.locator('[data-act=test]').click()
    const test = page.locator('[data-part=test]')
    await test.getByText(/用户名/).waitFor({ timeout: 30_000 })
    await page.locator('[name=broker-password]').fill('right horse')
    await page.locator('[data-act=test]').click()
    await test.getByText('连接成功。').waitFor({ timeout: 30_000 })
    await preview.getByText('24e124', { exact: true }).waitFor()
    await preview.getByText('temperature').waitFor()
    await preview.getByText('EM300').first().waitFor()
    // The preview follows the rules as they are edited.
    await page.getByLabel('设备名').first().fill('lora-{topic.4}')
    await preview.getByText('lora-24e124').waitFor()
    await page.getByLabel('设备名').first().fill('lora-{nonsense}')
    await preview.getByText(/\{nonsense\}/).waitFor()
    await page.getByLabel('设备名').first().fill('lora-{topic.4}')
    await preview.getByText('lora-24e124').waitFor()
    await page.getByRole('button', { name: '保存' }).click()
    await waitForPage(page, 'connector')
    const { items } = await server.call<{ items: { name: string; hasPassword: boolean }[] }>('GET', '/api/v1/connectors')
    expect(items).toMatchObject([{ name: 'LoRaWAN', hasPassword: true }])
  })

  it('show that they are connected, how much comes, and the devices they bring', async () => {
    const status = page.locator('[data-part=status]')
    await status.locator('[data-connector-state=connected]').waitFor({ timeout: 30_000 })
    const find = () => server.call<Found>('GET', '/api/v1/devices?q=lora-24e124')
    await expect.poll(async () => (await find()).items[0]?.productName, { timeout: 30_000 }).toBe('EM300')
    await page
      .locator('[data-part=preview] option', { hasText: 'application/7/device' })
      .first()
      .waitFor({ state: 'attached', timeout: 20_000 })
    await page.goto(`${server.url}/connectors`)
    await waitForPage(page, 'connectors')
    const row = page.getByRole('row').filter({ hasText: 'LoRaWAN' })
    await row.locator('[data-connector-state=connected]').waitFor()
    await row.getByRole('link', { name: 'LoRaWAN' }).click()
    await waitForPage(page, 'connector')
    await page.getByRole('link', { name: '接入的设备' }).click()
    await waitForPage(page, 'device.children')
    await page.getByRole('row').filter({ hasText: 'lora-24e124' }).waitFor()
  })

  it('are switched off and on, and tell when their broker is gone', async () => {
    await page.goto(`${server.url}/connectors`)
    await waitForPage(page, 'connectors')
    const row = page.getByRole('row').filter({ hasText: 'LoRaWAN' })
    await row.locator('[data-menu=row]').click()
    await page.getByRole('menuitem', { name: '停用' }).click()
    await row.locator('[data-connector-state=off]').waitFor()
    await row.locator('[data-menu=row]').click()
    await page.getByRole('menuitem', { name: '启用' }).click()
    await row.locator('[data-connector-state=connected]').waitFor({ timeout: 30_000 })
    await broker.kill()
    await row.locator('[data-connector-state=failing]').waitFor({ timeout: 30_000 })
    await broker.resume()
    await row.locator('[data-connector-state=connected]').waitFor({ timeout: 60_000 })
    expect(await row.getByText(/连接中断|对方拒绝连接/).count(), 'the last error stays to be read').toBe(1)
  })

  it('are not saved with an address that is not allowed, and say so at the field', async () => {
    await page.goto(`${server.url}/connectors/new`)
    await waitForPage(page, 'connector.new')
    await page.locator('[name=preset]').selectOption('plain')
    await page.locator('[name=name]').fill('Forbidden')
    await page.locator('[name=url]').fill('mqtt://169.254.169.254')
    await page.getByRole('button', { name: '保存' }).click()
    await page.getByText(/metadata service/).waitFor()
    expect(await page.locator('[name=url]').getAttribute('aria-invalid')).toBe('true')
  })
})
