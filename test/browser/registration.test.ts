// SPDX-License-Identifier: AGPL-3.0-only
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeTestCertificate } from '../../core/src/tls/testing.ts'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server } from './server.ts'

type Created = { id: string; credentials: { token: string } }

describe.skipIf(!hasBrowser())('devices that make themselves known, at the dashboard', () => {
  const server = new Server()
  let browser: Browser
  let page: Page

  beforeAll(async () => {
    await server.start()
    await server.setUp()
    browser = await launchBrowser()
    page = await (await openContext(browser)).newPage()
    page.setDefaultTimeout(20_000)
    await signIn(page, server)
  })
  afterAll(async () => {
    await browser?.close()
    await server.remove()
  })

  const createProduct = (name: string, more: object = {}) => server.call<{ id: string }>('POST', '/api/v1/products', { name, ...more })
  async function open(path: string, name: string): Promise<void> {
    await page.goto(server.url + path)
    await waitForPage(page, name)
  }

  it('sets up registration by certificates, with a preview of the names and its mistakes in words [X-3]', async () => {
    const { id } = await createProduct('by certificate')
    const authority = makeTestCertificate('Plant CA', { use: 'ca' })
    await open(`/products/${id}/provisioning`, 'product.provisioning')
    await page.getByLabel('注册方式').selectOption('x509-chain')
    const save = page.getByRole('button', { name: '保存' })
    expect(await save.isDisabled()).toBe(true)
    const certificate = page.getByLabel('签发机构的证书')
    await certificate.fill(authority.keyPem)
    await page.getByText('这里有私钥。请只粘贴证书。').waitFor()
    await certificate.fill(authority.cert)
    const pattern = page.getByLabel('名称规则')
    await pattern.fill('(a+)+')
    await page.getByText('括号后面不能有重复符号。').waitFor()
    await pattern.fill('^device-([0-9a-f]{12})$')
    const preview = page.locator('[data-preview]')
    await preview.getByText('0123456789ab').waitFor()
    await page.getByLabel('试一试').fill('pump-1')
    await preview.getByText('这个通用名称不符合规则').waitFor()
    await page.getByLabel('证书中的新名称').selectOption('yes')
    await page.getByLabel('已吊销的证书').fill('AB:CD')
    await page.getByText('“abcd”不是 SHA-256 指纹。').waitFor()
    await page.getByLabel('已吊销的证书').fill('AB:'.repeat(31) + 'AB')
    await save.click()
    await page.getByText('已保存').first().waitFor()
    expect(await server.call('GET', `/api/v1/products/${id}`)).toMatchObject({
      provisioning: {
        strategy: 'x509-chain',
        certificate: authority.cert.trim(),
        namePattern: '^device-([0-9a-f]{12})$',
        allowCreate: true,
        revoked: ['ab'.repeat(32)],
      },
    })
    await page.reload()
    await waitForPage(page, 'product.provisioning')
    expect(await pattern.inputValue()).toBe('^device-([0-9a-f]{12})$')

    // What only the server can see is told at its field.
    await certificate.fill(makeTestCertificate('no authority').cert)
    await save.click()
    await page.getByText('Give the certificate of an authority as PEM.').waitFor()
  })

  it('lets devices announce their values, and shows them by the names and units they gave', async () => {
    const { id: productId } = await createProduct('announcing')
    await open(`/products/${productId}/transport`, 'product.transport')
    await page.getByLabel('设备自述').selectOption('home-assistant')
    await page.getByRole('button', { name: '保存' }).click()
    await page.getByText('已保存').first().waitFor()
    const device = await server.call<Created>('POST', '/api/v1/devices', { name: 'boiler', productId })
    const client = await server.connectDevice(device.credentials.token)
    const announcement = { name: '锅炉水温', state_topic: 'boiler/state', unit_of_measurement: '°C', value_template: '{{ value_json.t }}' }
    await client.publishAsync('homeassistant/sensor/water/config', JSON.stringify(announcement), { qos: 1 })
    await client.publishAsync('boiler/state', '{"t":61.5}', { qos: 1 })
    await client.endAsync()
    await open(`/devices/${device.id}/telemetry`, 'device.telemetry')
    await page.getByText('锅炉水温').first().waitFor()
    await page.getByText('°C').first().waitFor()
    // What people say of a key counts more.
    await server.call('PATCH', `/api/v1/products/${productId}`, { model: { keys: { water: { title: { zh: '水温', en: 'Water' } } } } })
    await page.reload()
    await waitForPage(page, 'device.telemetry')
    await page.getByText('水温', { exact: true }).first().waitFor()
    expect(await page.getByText('锅炉水温').count()).toBe(0)
  })

  it('shows through which gateway a child is connected, since when, and closes its session', async () => {
    const gateway = await server.call<Created>('POST', '/api/v1/devices', { name: 'Hall gateway', gateway: true })
    const client = await server.connectDevice(gateway.credentials.token)
    await client.publishAsync('v1/gateway/telemetry', JSON.stringify({ 'Fan 1': [{ speed: 3 }] }), { qos: 1 })
    const { items } = await server.call<{ items: { id: string }[] }>('GET', '/api/v1/devices?q=Fan+1')
    await open(`/devices/${items[0]!.id}/connect`, 'device.connect')
    const session = page.locator('[data-session="gateway"]')
    await session.getByRole('link', { name: 'Hall gateway' }).waitFor()
    await session.getByText('最近活动').waitFor()
    await session.getByRole('button', { name: '断开连接' }).click()
    await page.getByText('没有打开的 MQTT 连接。').waitFor()
    expect(await session.count()).toBe(0)
    await client.endAsync()
  })
})
