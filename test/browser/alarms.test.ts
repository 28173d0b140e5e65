// SPDX-License-Identifier: AGPL-3.0-only
import type { MqttClient } from 'mqtt'
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server, admin } from './server.ts'

describe.skipIf(!hasBrowser())('rules and the alarm desk', () => {
  const server = new Server()
  let browser: Browser
  let page: Page
  let client: MqttClient
  let deviceId = ''

  beforeAll(async () => {
    await server.start()
    await server.setUp()
    const device = await server.createDevice('冷库 3 号')
    deviceId = device.id
    client = await server.connectDevice(device.token)
    browser = await launchBrowser()
    page = await (await openContext(browser)).newPage()
    page.setDefaultTimeout(30_000)
    await signIn(page, server)
  }, 120_000)
  afterAll(async () => {
    await client?.endAsync()
    await browser?.close()
    await server.remove()
  })

  const open = async (path: string, name: string) => {
    await page.goto(server.url + path)
    await waitForPage(page, name)
  }
  const say = (temperature: number) => client.publishAsync('v1/devices/me/telemetry', JSON.stringify({ temperature }), { qos: 1 })
  const row = (text: string) => page.getByRole('row').filter({ hasText: text })

  it('write a rule as a sentence, which is read back as one', async () => {
    await open('/alarms', 'alarms')
    await page.getByText('一切正常').waitFor()
    await page.getByRole('link', { name: '规则', exact: true }).click()
    await waitForPage(page, 'rules')
    await page.getByRole('link', { name: '新建规则' }).first().click()
    await waitForPage(page, 'rule.new')
    await page.locator('[name=name]').fill('冷库高温')
    await page.locator('[name=key]').fill('temperature')
    await page.locator('[name=value]').fill('-12')
    await page.getByLabel('持续').fill('0')
    await page.locator('[name=severity]').selectOption('critical')
    await page.locator('[data-part=sentence]').getByText('任何设备的 temperature 大于 -12，产生紧急告警').waitFor()
    await page.getByRole('button', { name: '保存' }).click()
    await waitForPage(page, 'rule')
    // What is stored is looked at with the rule as it is written.
    await page.locator('[data-part=preview]').getByText('会触发 0 次').waitFor()
    await open('/rules', 'rules')
    await row('冷库高温').locator('[data-rule-state=on]').waitFor()
    expect(await row('冷库高温').textContent()).toContain('任何设备的 temperature 大于 -12，产生紧急告警')
  })

  it('show an alarm while the page is open, and name who acknowledged it', async () => {
    await open('/alarms', 'alarms')
    await say(-3)
    await row('冷库 3 号').locator('[data-severity=critical]').waitFor()
    await expect.poll(() => page.title()).toContain('(1)')
    await row('冷库 3 号').locator('[data-act=ack]').click()
    await page.getByText('一切正常').waitFor()
    await page.getByRole('button', { name: '活动', exact: true }).click()
    await row('冷库 3 号').locator('[data-acked]').getByText(admin.name).waitFor()
  })

  it('tell what happened on the page of the alarm, take a comment, and see it end', async () => {
    await row('冷库 3 号').getByRole('link').first().click()
    await waitForPage(page, 'alarm')
    await page.locator('[data-event=raised]').waitFor()
    await page.locator('[data-event=acked]').getByText(admin.name).waitFor()
    await page.locator('[name=comment]').fill('已通知维修')
    await page.getByRole('button', { name: '添加备注' }).click()
    await page.locator('[data-event=comment]').getByText('已通知维修').waitFor()
    await page.locator('[name=assignee]').selectOption({ label: admin.name })
    await page.locator('[data-event=assigned]').getByText(`指派给 ${admin.name}`).waitFor()
    await page.locator('[data-act=silence]').click()
    await page.getByText('已静默 1 小时').waitFor()
    const { items } = await server.call<{ items: { matchers: string[] }[] }>('GET', '/api/v1/notifications/silences')
    expect(items[0]?.matchers).toContain(`device_id="${deviceId}"`)
    await say(-20)
    await page.locator('main [data-alarm-status=cleared]').waitFor()
    await page.locator('[data-event=cleared]').waitFor()
  })

  it('acknowledge and clear several at once', async () => {
    for (const type of ['door', 'power']) {
      await server.call('POST', '/api/v1/alarms', { deviceId, type, severity: 'minor', title: `手工 ${type}` })
    }
    await open('/alarms?severity=minor', 'alarms')
    await row('手工 door').getByRole('checkbox').check()
    await row('手工 power').getByRole('checkbox').check()
    await page.locator('[data-bulk=clear]').click()
    await page.getByText('没有符合条件的告警。').waitFor()
    await page.getByRole('button', { name: '恢复未确认' }).click()
    await row('手工 door').locator('[data-alarm-status=cleared]').waitFor()
    expect(await page.getByRole('row').count()).toBe(3)
  })

  it('leave to JSON what is more than a sentence, and refuse it with what is wrong', async () => {
    await open('/rules/new', 'rule.new')
    await page.locator('[name=name]').fill('两级')
    await page.locator('[name=key]').fill('temperature')
    await page.locator('[name=value]').fill('1')
    await page.locator('[data-act=json]').click()
    const text = page.locator('[name=document]')
    const rule = JSON.parse(await text.inputValue()) as { levels: object[] }
    const [level] = rule.levels
    await text.fill(
      JSON.stringify({
        ...rule,
        levels: [
          { ...level, severity: 'critical' },
          { ...level, severity: 'critical' },
        ],
      }),
    )
    await page.getByText('此规则只能在高级视图编辑').waitFor()
    await page.getByRole('button', { name: '保存' }).click()
    await page.locator('[data-part=problems]').getByText('/levels').first().waitFor()
    await text.fill(JSON.stringify({ ...rule, levels: [level, { ...level, severity: 'warning' }] }))
    await page.getByRole('button', { name: '保存' }).click()
    await waitForPage(page, 'rule')
    expect(await page.getByRole('button', { name: '句子' }).isDisabled()).toBe(true)
  })
})
