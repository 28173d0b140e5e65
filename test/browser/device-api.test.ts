// SPDX-License-Identifier: AGPL-3.0-only
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server, admin } from './server.ts'

type Attributes = { items: { key: string; value: unknown; kind: string }[] }
type Command = { id: string; method: string; state: string; params: unknown; response: unknown }
type Settings = Record<string, Record<string, unknown>> & { id: string; name: string }

/** How long the page may take to show what the server knows, on a busy machine. */
const patience = { timeout: 20_000 }

describe.skipIf(!hasBrowser())('attributes, commands and products at the dashboard', () => {
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

  async function open(path: string, name: string): Promise<void> {
    await page.goto(server.url + path)
    await waitForPage(page, name)
  }
  const attributesOf = (id: string, scope: string) => server.call<Attributes>('GET', `/api/v1/devices/${id}/attributes/${scope}`)
  const commandsOf = async (id: string) => (await server.call<{ items: Command[] }>('GET', `/api/v1/devices/${id}/commands`)).items

  it('sets a desired value with every digit, pushes it, and shows live whether the device agrees', async () => {
    const device = await server.createDevice('desired')
    const client = await server.connectDevice(device.token)
    const pushed = new Promise<string>((resolve) => client.once('message', (_topic, payload) => resolve(payload.toString())))
    await client.subscribeAsync('v1/devices/me/attributes', { qos: 1 })
    await open(`/devices/${device.id}/attributes`, 'device.attributes')
    await page.locator('[data-open="add-shared"]').click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('键名').fill('serial')
    await dialog.getByLabel('值').fill('9223372036854775808')
    await dialog.getByRole('button', { name: '保存' }).click()
    await dialog.getByText('整数超出 64 位范围。').waitFor()
    await dialog.getByLabel('值').fill('9007199254740993')
    await dialog.getByRole('button', { name: '保存' }).click()
    const row = page.locator('[data-scope="shared"] [data-attribute="serial"]')
    await row.getByText('9,007,199,254,740,993').first().waitFor()
    expect(await pushed).toBe('{"serial":9007199254740993}')
    expect((await attributesOf(device.id, 'shared')).items).toMatchObject([{ key: 'serial', value: '9007199254740993', kind: 'integer' }])
    await row.locator('[data-match="unknown"]').waitFor()
    await client.publishAsync('v1/devices/me/attributes', '{"serial":9007199254740992}', { qos: 1 })
    await row.locator('[data-match="different"]').waitFor()
    await client.publishAsync('v1/devices/me/attributes', '{"serial":9007199254740993}', { qos: 1 })
    await row.locator('[data-match="same"]').waitFor()
    await client.endAsync()
  })

  it('changes the type of an attribute, filters, and deletes in each scope', async () => {
    const device = await server.createDevice('typed')
    const client = await server.connectDevice(device.token)
    await client.publishAsync('v1/devices/me/attributes', '{"firmware":"1.0","other":1}', { qos: 1 })
    await client.endAsync()
    await server.call('PATCH', `/api/v1/devices/${device.id}/attributes/server`, { place: 'hall 2' })
    await open(`/devices/${device.id}/attributes`, 'device.attributes')
    await page.locator('[data-scope="server"] [data-attribute="place"]').getByRole('button', { name: '修改 place' }).click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('类型').selectOption('json')
    await dialog.getByLabel('值').fill('{"hall":2')
    await dialog.getByRole('button', { name: '保存' }).click()
    await dialog.getByText('不是合法的 JSON。').waitFor()
    await dialog.getByLabel('值').fill('{"hall":2,"code":9007199254740993}')
    await dialog.getByRole('button', { name: '保存' }).click()
    await page.getByText('{"hall":2,"code":9007199254740993}').waitFor()

    await page.getByLabel('筛选键名').fill('FIRM')
    await expect.poll(() => page.locator('[data-attribute]').count(), patience).toBe(1)
    await page.getByRole('button', { name: '删除 firmware' }).click()
    await page.getByRole('dialog').getByRole('button', { name: '删除' }).click()
    await page.locator('[data-scope="client"]').getByText('没有符合条件的属性。').waitFor()
    expect((await attributesOf(device.id, 'client')).items.map(({ key }) => key)).toEqual(['other'])
    // What the system keeps has no buttons.
    await page.getByLabel('筛选键名').fill('active')
    await page.locator('[data-attribute="active"]').getByText('只读').waitFor()
    expect(await page.locator('[data-attribute="active"] button').count()).toBe(0)
  })

  it('sets a desired value on several devices, and lists those that failed', async () => {
    const made = [await server.createDevice('bulk-1'), await server.createDevice('bulk-2'), await server.createDevice('bulk-3')]
    await open('/devices?q=bulk-', 'devices')
    await page.getByRole('checkbox', { name: '选择已加载的全部' }).check()
    await page.getByText('已选 3 台').waitFor()
    await page.locator('[data-open="bulk-attributes"]').click()
    const drawer = page.locator('.el-drawer')
    await drawer.getByLabel('键名').fill('interval')
    await drawer.getByLabel('值').fill('15')
    await server.call('DELETE', `/api/v1/devices/${made[1]!.id}`)
    await drawer.getByRole('button', { name: '设置', exact: true }).click()
    await drawer.getByText('2 台已设置').waitFor()
    await drawer.locator(`[data-failed="${made[1]!.id}"]`).getByText('bulk-2').waitFor()
    for (const { id } of [made[0]!, made[2]!]) {
      expect((await attributesOf(id, 'shared')).items).toMatchObject([{ key: 'interval', value: 15 }])
    }
    await server.call('POST', '/api/v1/bin/restore', { ids: [made[1]!.id] })
    await drawer.getByRole('button', { name: '重试失败的设备' }).click()
    await drawer.getByText('1 台已设置').waitFor()
    expect((await attributesOf(made[1]!.id, 'shared')).items).toMatchObject([{ key: 'interval', value: 15 }])
    await page.keyboard.press('Escape')
  })

  it('sends a command that the device answers, and shows the answer', async () => {
    const device = await server.createDevice('answering')
    await open(`/devices/${device.id}/commands`, 'device.commands')
    await page.getByLabel('方法').fill('setInterval')
    await page.getByLabel('参数', { exact: true }).fill('{"seconds":')
    await page.getByText('不是合法的 JSON。').waitFor()
    expect(await page.getByRole('button', { name: '发送', exact: true }).isDisabled()).toBe(true)
    await page.getByLabel('参数', { exact: true }).fill('{"seconds":60}')
    await page.getByLabel('等待时间（秒）').fill('60')
    await page.getByRole('button', { name: '发送', exact: true }).click()
    await page.locator('[data-outcome="waiting"]').waitFor()
    // The device connects only now: the call has waited for it.
    const client = await server.connectDevice(device.token)
    client.on('message', (topic, payload) => {
      const { method, params } = JSON.parse(payload.toString()) as { method: string; params: unknown }
      client.publish(
        `v1/devices/me/rpc/response/${topic.split('/').pop()}`,
        `{"did":"${method}","with":${JSON.stringify(params)},"serial":9007199254740993}`,
      )
    })
    await client.subscribeAsync('v1/devices/me/rpc/request/+', { qos: 1 })
    const outcome = page.locator('[data-outcome="answered"]')
    await outcome.getByText('设备已应答').waitFor({ timeout: 60_000 })
    const shown = await outcome.locator('code').last().innerText()
    expect(shown).toBe('{\n  "did": "setInterval",\n  "with": {\n    "seconds": 60\n  },\n  "serial": 9007199254740993\n}')
    await client.endAsync()
  })

  it('says at once that a device is offline when nobody wants to wait, and can stop waiting', async () => {
    const device = await server.createDevice('away')
    await open(`/devices/${device.id}/commands`, 'device.commands')
    await page.getByLabel('方法').fill('reboot')
    await page.getByLabel('等待设备连接').uncheck()
    await page.getByRole('button', { name: '发送', exact: true }).click()
    await page.locator('[data-outcome="failed"]').getByText('DEVICE_OFFLINE').waitFor()
    await page.getByLabel('等待设备连接').check()
    await page.getByLabel('等待时间（秒）').fill('300')
    await page.getByRole('button', { name: '发送', exact: true }).click()
    await page.getByRole('button', { name: '停止等待' }).click()
    await page.locator('[data-outcome="stopped"]').waitFor()
    expect(await commandsOf(device.id)).toEqual([])
  })

  it('stores a command, follows its states live to the end, shows its time line, cancels and sends again', async () => {
    const device = await server.createDevice('stored')
    await open(`/devices/${device.id}/commands`, 'device.commands')
    await page.getByText('持久命令的每一步都记录在这里。').waitFor()
    await page.getByLabel('方法').fill('calibrate')
    await page.getByLabel('参数', { exact: true }).fill('{"at":20.5}')
    await page.getByLabel('持久命令').check()
    await page.getByRole('button', { name: '保存并发送' }).click()
    const first = page.locator('tbody tr').first()
    await first.locator('[data-command-state="QUEUED"]').waitFor()
    await first.getByRole('button', { name: '取消命令' }).click()
    await first.locator('[data-command-state="DELETED"]').waitFor()
    await first.getByRole('button', { name: '再次发送' }).click()
    await expect.poll(() => page.locator('tbody tr').count(), patience).toBe(2)
    await first.locator('[data-command-state="QUEUED"]').waitFor()

    const client = await server.connectDevice(device.token)
    client.on('message', (topic) => client.publish(`v1/devices/me/rpc/response/${topic.split('/').pop()}`, '{"offset":0.3}', { qos: 1 }))
    await client.subscribeAsync('v1/devices/me/rpc/request/+', { qos: 1 })
    await first.locator('[data-command-state="SUCCESSFUL"]').waitFor()
    await first.getByText('{"offset":0.3}').waitFor()
    await first.locator('[data-open="command"]').click()
    const drawer = page.locator('.el-drawer')
    await expect
      .poll(async () => {
        const states = await drawer
          .locator('li [data-command-state]')
          .evaluateAll((all) => all.map((one) => one.getAttribute('data-command-state')))
        return [states[0], states.at(-1)]
      }, patience)
      .toEqual(['QUEUED', 'SUCCESSFUL'])
    await page.keyboard.press('Escape')
    expect((await commandsOf(device.id)).map(({ state, params }) => ({ state, params }))).toEqual([
      { state: 'SUCCESSFUL', params: { at: 20.5 } },
      { state: 'DELETED', params: { at: 20.5 } },
    ])
    // What was sent before is suggested.
    expect(await page.locator('datalist option').evaluateAll((all) => all.map((one) => (one as HTMLOptionElement).value))).toEqual([
      'calibrate',
    ])
    await client.endAsync()
  })

  it('makes a product, describes its keys, and shows them at its devices', async () => {
    await open('/products', 'products')
    await page.locator('[data-open="add"]').click()
    await page.getByRole('dialog').getByLabel('名称').fill('TH-20')
    await page.getByRole('dialog').getByRole('button', { name: '创建' }).click()
    await waitForPage(page, 'product.overview')
    const id = new URL(page.url()).pathname.split('/')[2]!
    await page.getByRole('link', { name: '物模型' }).click()
    await waitForPage(page, 'product.model')
    await page.locator('[data-open="key"]').click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('键名').fill('temperature')
    await dialog.getByLabel('中文名称').fill('温度')
    await dialog.getByLabel('单位').fill('°C')
    await dialog.getByLabel('小数位').fill('1')
    await dialog.getByLabel('最小值').fill('60')
    await dialog.getByLabel('最大值').fill('-30')
    await dialog.getByText('最小值大于最大值。').waitFor()
    await dialog.getByLabel('最小值').fill('-30')
    await dialog.getByLabel('最大值').fill('60')
    await dialog.getByLabel('关键值').check()
    await dialog.getByRole('button', { name: '保存' }).click()
    await page.locator('[data-row="temperature"]').getByText('温度').waitFor()
    expect(await server.call<Settings>('GET', `/api/v1/products/${id}`)).toMatchObject({
      model: { keys: { temperature: { title: { zh: '温度' }, unit: '°C', decimals: 1, min: -30, max: 60 } }, primaryKey: 'temperature' },
    })
    const made = await server.call<{ id: string; credentials: { token: string } }>('POST', '/api/v1/devices', {
      name: 'th-1',
      productId: id,
    })
    const client = await server.connectDevice(made.credentials.token)
    await client.publishAsync('v1/devices/me/telemetry', '{"temperature":4.26}', { qos: 1 })
    await client.endAsync()
    await open('/products', 'products')
    await page.locator(`[data-row="${id}"]`).getByRole('link', { name: '1', exact: true }).click()
    await waitForPage(page, 'devices')
    await page.getByText('4.3').first().waitFor()

    // It has a device, so it stays.
    await open(`/products/${id}/overview`, 'product.overview')
    await page.locator('[data-open="delete"]').click()
    await page.getByRole('dialog').getByLabel('输入下面的内容以确认').fill('TH-20')
    await page.getByRole('dialog').getByRole('button', { name: '删除' }).click()
    await page.getByRole('dialog').getByText('产品下还有设备。').waitFor()
    await page.keyboard.press('Escape')
  })

  it('leads from a rejected message to the setting that accepts it, and then accepts it', async () => {
    const { id: productId } = await server.call<{ id: string }>('POST', '/api/v1/products', { name: 'in seconds' })
    const made = await server.call<{ id: string; credentials: { token: string } }>('POST', '/api/v1/devices', { name: 'late', productId })
    const client = await server.connectDevice(made.credentials.token)
    const send = () => client.publishAsync('v1/devices/me/telemetry', '{"ts":1763690000,"values":{"t":4}}', { qos: 1 })
    await send().catch(() => undefined)
    await open(`/devices/${made.id}/rejects`, 'device.rejects')
    await page.getByText('TS_SECONDS').waitFor()
    await page.getByRole('link', { name: '修改产品设置' }).click()
    await waitForPage(page, 'product.payload')
    const unit = page.getByLabel('时间戳单位')
    await expect.poll(() => unit.evaluate((element) => element === document.activeElement), patience).toBe(true)
    await unit.selectOption('s')
    await page.getByText('时间戳乘以 1000 后保存').waitFor()
    await page.getByRole('button', { name: '保存' }).click()
    await page.getByText('已保存').first().waitFor()
    await send()
    const { items } = await server.call<{ items: { key: string; ts: number }[] }>('GET', `/api/v1/devices/${made.id}/telemetry`)
    expect(items).toMatchObject([{ key: 't', ts: 1_763_690_000_000 }])
    await client.endAsync()
  })

  it('saves topics, rates, commands and replies of a product, and refuses what is wrong in words', async () => {
    const { id } = await server.call<{ id: string }>('POST', '/api/v1/products', { name: 'all settings' })
    const save = async () => {
      await page.getByRole('button', { name: '保存' }).click()
      await page.getByRole('button', { name: '放弃修改' }).waitFor({ state: 'hidden' })
    }
    await open(`/products/${id}/transport`, 'product.transport')
    await page.getByLabel('遥测主题').fill('plant/#/x')
    await page.getByText('+ 须独占一层').waitFor()
    expect(await page.getByRole('button', { name: '保存' }).isDisabled()).toBe(true)
    await page.getByLabel('遥测主题').fill('plant/+/data')
    await save()

    await open(`/products/${id}/limits`, 'product.limits')
    const messages = page.locator('[data-limits="device"]').getByLabel('全部报文')
    await messages.selectOption('own')
    await messages.fill('20')
    await page.getByText('写法不对。').waitFor()
    await messages.fill('20:1, 600:60')
    await page.getByText('每 1 秒最多 20 条报文，且每 60 秒最多 600 条报文').waitFor()
    await save()

    await open(`/products/${id}/rpc`, 'product.rpc')
    await page.getByLabel('积压命令的发送').selectOption('sequential-response')
    await page.getByRole('button', { name: '添加答复' }).click()
    await page.getByLabel('方法').fill('getConfig')
    await page.getByLabel('答复 (JSON)').fill('{"interval":30}')
    await save()
    expect(await server.call<Settings>('GET', `/api/v1/products/${id}`)).toMatchObject({
      transport: { telemetryTopics: ['plant/+/data'] },
      limits: { device: { messages: '20:1,600:60', telemetryMessages: null } },
      rpc: { submit: 'sequential-response' },
      clientRpc: { getConfig: { reply: { interval: 30 } } },
    })
  })

  it('shows the secret of provisioning once', async () => {
    const { id } = await server.call<{ id: string }>('POST', '/api/v1/products', { name: 'provisioned' })
    await open(`/products/${id}/provisioning`, 'product.provisioning')
    await page.getByLabel('注册方式').selectOption('create')
    await page.getByRole('button', { name: '保存' }).click()
    await page.getByText('注册密钥只显示这一次').waitFor()
    const secret = await page.locator('.copy-field input').inputValue()
    expect(secret).toMatch(/^\w{8,64}$/)
    await page.reload()
    await waitForPage(page, 'product.provisioning')
    await page.getByText('已设置；留空则保持不变').waitFor()
    expect(await page.content()).not.toContain(secret)
  })

  it('is told when somebody else changed the same product meanwhile, and loses nothing', async () => {
    const { id } = await server.call<{ id: string }>('POST', '/api/v1/products', { name: 'contested' })
    await open(`/products/${id}/overview`, 'product.overview')
    await page.getByLabel('描述').fill('mine')
    await server.call('PATCH', `/api/v1/products/${id}`, { inactivityTimeoutMs: 60_000 })
    await page.getByRole('button', { name: '保存' }).click()
    await page.getByRole('alert').getByText('已被他人修改').waitFor()
    expect(await page.getByLabel('描述').inputValue()).toBe('mine')
    await page.getByRole('button', { name: '放弃修改' }).click()
    await expect.poll(() => page.getByLabel('离线时限').inputValue(), patience).toBe('1')
  })

  it('deletes a product without devices after its name was typed', async () => {
    const { id } = await server.call<{ id: string }>('POST', '/api/v1/products', { name: 'short-lived' })
    await open(`/products/${id}/overview`, 'product.overview')
    await page.locator('[data-open="delete"]').click()
    await page.getByRole('dialog').getByLabel('输入下面的内容以确认').fill('short-lived')
    await page.getByRole('dialog').getByRole('button', { name: '删除' }).click()
    await waitForPage(page, 'products')
    expect(await page.locator(`[data-row="${id}"]`).count()).toBe(0)
  })

  it('limits all devices of the installation, and products show what they inherit', async () => {
    await open('/settings/mqtt', 'settings.mqtt')
    const points = page.locator('[data-limits="device"]').getByLabel('数据点')
    await points.selectOption('own')
    await points.fill('5000:60')
    await page.getByRole('button', { name: '保存' }).click()
    await page.getByRole('button', { name: '放弃修改' }).waitFor({ state: 'hidden' })
    expect(await server.call('GET', '/api/v1/settings/device-limits')).toMatchObject({ device: { telemetryDataPoints: '5000:60' } })
    const { id } = await server.call<{ id: string }>('POST', '/api/v1/products', { name: 'inheriting' })
    await open(`/products/${id}/limits`, 'product.limits')
    await page.getByText('站点设置：每 60 秒最多 5,000 个点').waitFor()
  })

  it('shows a viewer all of it and lets a viewer change nothing', async () => {
    await server.call('POST', '/api/v1/users', { name: 'Vera', email: 'vera@example.com', role: 'viewer', password: admin.password })
    const device = await server.createDevice('looked at')
    await server.call('PATCH', `/api/v1/devices/${device.id}/attributes/shared`, { interval: 60 })
    await server.call('POST', `/api/v1/devices/${device.id}/commands`, { method: 'reboot', persistent: true })
    const other = await (await openContext(browser)).newPage()
    await other.goto(`${server.url}/login`)
    await other.fill('input[type=email]', 'vera@example.com')
    await other.fill('input[type=password]', admin.password)
    await other.keyboard.press('Enter')
    await waitForPage(other, 'overview')
    await other.goto(`${server.url}/devices/${device.id}/attributes`)
    await other.locator('[data-attribute="interval"]').waitFor()
    expect(await other.getByRole('button', { name: /^(?:添加|修改|删除)/ }).count()).toBe(0)
    await other.goto(`${server.url}/devices/${device.id}/commands`)
    await other.locator('[data-command-state="QUEUED"]').waitFor()
    await other.getByText('发送需要操作员权限').waitFor()
    expect(await other.getByRole('button', { name: '取消命令' }).count()).toBe(0)
    const { items } = await server.call<{ items: { id: string }[] }>('GET', '/api/v1/products')
    await other.goto(`${server.url}/products/${items[0]!.id}/payload`)
    await other.getByText('修改需要操作员权限').waitFor()
    expect(await other.getByLabel('时间戳单位').isDisabled()).toBe(true)
    expect(await other.getByRole('button', { name: '保存' }).count()).toBe(0)
    await other.context().close()
  })
})
