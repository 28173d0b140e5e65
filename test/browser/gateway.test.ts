// SPDX-License-Identifier: AGPL-3.0-only
import type { MqttClient } from 'mqtt'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server } from './server.ts'

type Created = { id: string; credentials: { token: string } }

describe.skipIf(!hasBrowser())('a gateway at the dashboard', () => {
  const server = new Server()
  let browser: Browser
  let page: Page
  let gateway: Created
  let client: MqttClient

  beforeAll(async () => {
    await server.start()
    await server.setUp()
    gateway = await server.call<Created>('POST', '/api/v1/devices', { name: 'Plant gateway', gateway: true })
    browser = await launchBrowser()
    page = await (await openContext(browser)).newPage()
    await signIn(page, server)
  })
  afterAll(async () => {
    await client?.endAsync(true)
    await browser?.close()
    await server.remove()
  })

  const publish = (topic: string, message: unknown) => client.publishAsync(`v1/gateway/${topic}`, JSON.stringify(message), { qos: 1 })

  it('says how children come when it has none, and lists them with their states when it has', async () => {
    await page.goto(`${server.url}/devices/${gateway.id}/children`)
    await waitForPage(page, 'device.children')
    await page.getByText('还没有子设备').waitFor()
    client = await server.connectDevice(gateway.credentials.token)
    await publish('telemetry', { 'Pump 1': [{ flow: 12.5 }], 'Pump 2': [{ flow: 3 }] })
    // States are written once a second.
    const online = () => server.call<{ total: number }>('GET', `/api/v1/devices?gatewayId=${gateway.id}&state=online&count=exact`)
    await expect.poll(async () => (await online()).total, { timeout: 20_000 }).toBe(2)
    await page.reload()
    await page.getByText('2 台子设备').waitFor()
    for (const name of ['Pump 1', 'Pump 2']) {
      const row = page.getByRole('row').filter({ hasText: name })
      await row.getByText('在线').waitFor()
    }
    // The list is live: nobody has to load it again.
    await publish('disconnect', { device: 'Pump 1' })
    await page.getByRole('row').filter({ hasText: 'Pump 1' }).getByText('离线').waitFor()
    await page.getByRole('row').filter({ hasText: 'Pump 2' }).getByText('在线').waitFor()
  })

  it('is a step away from each of its children, and they from it', async () => {
    await page.getByRole('link', { name: 'Pump 2' }).click()
    await waitForPage(page, 'device.overview')
    await page.getByText('所属网关').waitFor()
    await page.getByRole('link', { name: '经由网关 Plant gateway' }).click()
    await waitForPage(page, 'device.children')
    await page.getByText('2 台子设备').waitFor()
    // A device that is no gateway has no such tab.
    await page.getByRole('link', { name: 'Pump 1' }).click()
    await waitForPage(page, 'device.overview')
    expect(await page.getByRole('link', { name: '子设备', exact: true }).count()).toBe(0)
  })
})
