// SPDX-License-Identifier: AGPL-3.0-only
import type { Browser, Page } from 'playwright-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { json, startProvider } from '../../core/src/notifications/testing.ts'
import { hasBrowser, launchBrowser, openContext, signIn, waitForPage } from './browser.ts'
import { Server } from './server.ts'

const token = 'a1b2c3d4-e5f6-7890-abcd-ef0123456789'

describe.skipIf(!hasBrowser())('notifications at the dashboard', () => {
  let provider: Awaited<ReturnType<typeof startProvider>>
  let server: Server
  let browser: Browser
  let page: Page
  /** What the robot answers. */
  let answer: unknown = { code: 0, msg: 'success' }

  beforeAll(async () => {
    provider = await startProvider()
    provider.answer('feishu', (seen, response, index) => json(200, answer)(seen, response, index))
    server = new Server({ IOT_PMS_NOTIFY_ENDPOINTS: JSON.stringify({ feishu: `${provider.url}/feishu` }) })
    await server.start()
    await server.setUp()
    browser = await launchBrowser()
    page = await (await openContext(browser)).newPage()
    page.setDefaultTimeout(30_000)
    await signIn(page, server)
  }, 120_000)
  afterAll(async () => {
    await browser?.close()
    await server?.remove()
    await provider?.close()
  })

  const open = async (path: string, name: string) => {
    await page.goto(server.url + path)
    await waitForPage(page, name)
  }
  const channelOf = async (name: string): Promise<{ id: string }> => {
    const { items } = await server.call<{ items: { id: string; name: string }[] }>('GET', '/api/v1/notifications/channels')
    return items.find((one) => one.name === name)!
  }
  const send = (channelId: string, title: string) =>
    server.call<{ id: string }>('POST', '/api/v1/notifications/messages', { to: { channelId }, title, text: '温度 **-3.1**' })

  it('say where to begin while there is no channel', async () => {
    await page.getByRole('link', { name: '通知', exact: true }).click()
    await waitForPage(page, 'notifications.overview')
    await page.getByText('先建一个渠道，再看发送情况。').waitFor()
    await page.getByRole('main').getByRole('link', { name: '渠道' }).last().click()
    await waitForPage(page, 'notifications.channels')
    await page.getByRole('link', { name: '新建渠道' }).first().click()
    await waitForPage(page, 'notifications.channel.new')
    expect(await page.getByRole('radio').count()).toBeGreaterThan(15)
  })

  it('have a robot made from its pasted address, tried before it is saved, and its secret is never read back', async () => {
    await page.getByLabel('飞书', { exact: true }).check()
    await page.locator('[name=name]').fill('冷库值班群')
    await page.locator('[name=config-address]').fill(`https://open.feishu.cn/open-apis/bot/v2/hook/${token}`)
    await page.locator('[data-act=test]').click()
    await page.locator('[data-outcome=sent]').waitFor()
    expect(provider.of('feishu').at(-1)?.url).toContain(token)
    await page.getByRole('button', { name: '保存' }).click()
    await waitForPage(page, 'notifications.channel')
    await page.getByText('已保存（••••6789），留空不变').waitFor()
    expect(await page.locator('[name=config-token]').inputValue()).toBe('')
    expect(await page.content()).not.toContain(token)
    // What was stored still sends after an edit that leaves the secret alone.
    await page.locator('[name=config-keyword]').fill('告警')
    await page.getByRole('button', { name: '保存' }).click()
    await page.locator('[data-act=test]').click()
    await page.locator('[data-outcome=sent]').waitFor()
    expect(provider.of('feishu').at(-1)?.body).toContain('告警')
  })

  it('show the words of the provider when it refuses', async () => {
    answer = { code: 19021, msg: 'sign match fail or timestamp is not within one hour from current time' }
    await open('/notifications/channels', 'notifications.channels')
    const card = page.locator('[data-channel=冷库值班群]')
    await card.locator('[data-open=test]').click()
    await card.locator('[data-act=test]').click()
    await card.locator('[data-outcome=channel_disabled]').waitFor()
    await card.getByText('签名校验失败').waitFor()
    expect(await card.locator('[data-part=provider]').textContent()).toContain('19021 · sign match fail')
    answer = { code: 0 }
  })

  it('are not saved with an address of somebody else, and say so at the field', async () => {
    await open('/notifications/channels/new', 'notifications.channel.new')
    await page.getByLabel('飞书', { exact: true }).check()
    await page.locator('[name=name]').fill('Wrong')
    await page.locator('[name=config-address]').fill('https://evil.example/open-apis/bot/v2/hook/x')
    await page.getByRole('button', { name: '保存' }).click()
    await page.getByText('open.feishu.cn').first().waitFor()
    expect(await page.locator('[name=config-address]').getAttribute('aria-invalid')).toBe('true')
  })

  it('list what was delivered, and a refused one is tried again from its page', async () => {
    const { id } = await channelOf('冷库值班群')
    await send(id, '第一条')
    await open('/notifications/log', 'notifications.log')
    const row = (title: string) => page.getByRole('row').filter({ hasText: title })
    await row('第一条').locator('[data-delivery-state=sent]').waitFor()
    answer = { code: 19024, msg: 'Key Words Not Found' }
    await send(id, '第二条')
    await row('第二条').locator('[data-delivery-state=failed]').waitFor()
    await row('第二条').getByText('缺少机器人要求的关键词').waitFor()
    await page.getByRole('group', { name: '状态' }).getByRole('button', { name: '失败' }).click()
    await row('第一条').waitFor({ state: 'detached' })
    expect(new URL(page.url()).searchParams.get('state')).toBe('failed')
    await row('第二条').getByRole('link', { name: '第二条' }).click()
    await waitForPage(page, 'notifications.message')
    const delivery = page.locator('[data-part=delivery]')
    await delivery.getByText('Key Words Not Found').first().waitFor()
    answer = { code: 0 }
    await delivery.locator('[data-act=retry]').click()
    await delivery.locator('[data-delivery-state=sent]').waitFor()
    expect(await delivery.getByRole('listitem').count()).toBeGreaterThanOrEqual(2)
    const saving = page.waitForEvent('download')
    await open('/notifications/log', 'notifications.log')
    await page.locator('[data-act=export]').click()
    expect((await saving).suggestedFilename()).toBe('deliveries.csv')
    await open('/notifications/overview', 'notifications.overview')
    await page.getByRole('row').filter({ hasText: '冷库值班群' }).getByText('100%').waitFor()
  })

  it('are routed by a tree that is read as sentences, tried before it is saved, and refused with what is wrong', async () => {
    await open('/notifications/routing', 'notifications.routing')
    const test = page.locator('[data-part=routing-test]')
    await page.locator('[data-part=receivers]').getByText('所有管理员（站内信）').waitFor()
    await page.locator('[data-act=edit]').click()
    await page.locator('[data-act=add-receiver]').click()
    const receiver = page.locator('[data-receiver-name=新接收方]')
    await receiver.getByLabel('冷库值班群').check()
    await receiver.getByLabel('名称').fill('值班')
    await receiver.getByLabel('名称').blur()
    await page.locator('[data-add-route="0"]').click()
    await page.locator('[data-receiver="0.0"]').selectOption('值班')
    // The draft is tried as it stands.
    await test.locator('[name=labels]').fill('severity=critical')
    await test.locator('[data-act=try]').click()
    await test.locator('[data-part=match]').getByText('值班').waitFor()
    await page.getByRole('button', { name: '保存' }).click()
    const tree = page.locator('[data-part=tree]')
    await tree.locator('[data-route="0.0"]').getByText('critical').waitFor()
    await tree.locator('[data-route="0.0"]').getByText('值班').waitFor()
    await test.locator('[name=labels]').fill('severity=minor')
    await test.locator('[data-act=try]').click()
    await test.locator('[data-part=match]').getByText('默认').waitFor()
    await tree.locator('[data-route="0"] > .matched').waitFor()
    // What the form has no field for is written as JSON, and the server names what is wrong in it.
    await page.locator('[data-act=edit]').click()
    await page.locator('[data-act=json]').click()
    const document = page.locator('[name=document]')
    const stored = JSON.parse(await document.inputValue()) as { route: Record<string, unknown> }
    await document.fill(JSON.stringify({ ...stored, route: { ...stored.route, receiver: 'Nobody' } }))
    await page.getByRole('button', { name: '保存' }).click()
    await page.locator('[data-part=problems]').getByText('/route/receiver').waitFor()
    page.once('dialog', (dialog) => void dialog.accept())
    await page.getByRole('button', { name: '取消' }).click()
    const kept = await server.call<{ route: { receiver: string; routes: unknown[] } }>('GET', '/api/v1/notifications/routing')
    expect(kept.route).toMatchObject({ receiver: '默认', routes: [{ matchers: ['severity="critical"'], receiver: '值班' }] })
  })

  it('are escalated by a policy that a route calls for', async () => {
    await open('/notifications/routing', 'notifications.routing')
    await page.locator('[data-open=escalation]').click()
    const dialog = page.getByRole('dialog')
    await dialog.locator('[name=escalation-name]').fill('值班升级')
    await dialog.getByLabel('冷库值班群').check()
    await dialog.getByRole('button', { name: '保存' }).click()
    await page.locator('[data-escalation-name=值班升级]').getByText('15 分钟未确认').waitFor()
    await page.locator('[data-act=edit]').click()
    await page.locator('[data-escalation="0"]').selectOption('值班升级')
    await page.getByRole('button', { name: '保存' }).click()
    await page.locator('[data-part=tree] [data-route="0"]').getByText('值班升级').waitFor()
    const kept = await server.call<{ route: { escalation?: string } }>('GET', '/api/v1/notifications/routing')
    expect(kept.route.escalation).toBe('值班升级')
  })

  it('come as their reader wants them', async () => {
    await open('/settings/notifications', 'settings.notifications')
    await page.locator('[name=least]').selectOption('major')
    await page.getByRole('group', { name: '告警' }).getByLabel('短信').uncheck()
    await page.locator('[name=quiet]').check()
    await page.getByLabel('周一').uncheck()
    await page.getByRole('button', { name: '保存' }).click()
    await page.getByText('已保存').waitFor()
    const kept = await server.call('GET', '/api/v1/notifications/preferences/me')
    expect(kept).toMatchObject({
      minSeverity: 'major',
      topics: { alarm: { sms: false } },
      quietHours: { from: '22:00', to: '07:00', mode: 'hold', days: ['tue', 'wed', 'thu', 'fri', 'sat', 'sun'] },
    })
    // There is no channel that could carry a code.
    await page.locator('[name=point-address]').fill('+8613800000000')
    await page.getByRole('button', { name: '添加并发送验证码' }).click()
    await page.locator('[data-part=points] [role=alert]').waitFor()
  })

  it('are silenced for a while with a reason, and the silence is ended by hand', async () => {
    await open('/notifications/silences', 'notifications.silences')
    await page.getByText('没有静默，所有告警都会通知。').waitFor()
    await page.locator('[data-open=silence]').click()
    const dialog = page.getByRole('dialog')
    await dialog.getByLabel('条件 1 的值').fill('warning')
    await dialog.locator('[name=span]').selectOption('8')
    await dialog.locator('[name=comment]').fill('检修')
    await dialog.getByRole('button', { name: '新建静默' }).click()
    const row = page.getByRole('row').filter({ hasText: '检修' })
    await row.locator('[data-silence-state=active]').waitFor()
    await row.getByText('severity="warning"').waitFor()
    await row.locator('[data-act=end]').click()
    await page.getByRole('dialog').getByRole('button', { name: '结束' }).click()
    await row.locator('[data-silence-state=expired]').waitFor()
    const { items } = await server.call<{ items: unknown[] }>('GET', '/api/v1/notifications/silences')
    expect(items).toMatchObject([{ matchers: ['severity="warning"'], comment: '检修', state: 'expired' }])
  })

  it('have templates in two languages, seen as they are written, with what they were before', async () => {
    await open('/notifications/templates/new', 'notifications.template.new')
    await page.locator('[name=name]').fill('cold.room')
    await page.locator('[name=title]').fill('你好 {{ name }}')
    await page.locator('[name=body]').fill('**{{ name }}** 温度过高')
    const preview = page.locator('[data-part=preview]')
    await preview.getByText('你好 张三').waitFor()
    await page.locator('[name=preview-type]').selectOption('slack')
    await preview.getByText('*张三* 温度过高').waitFor()
    await page.locator('[name=body]').fill('{{ nobody }}')
    await preview.locator('[data-part=problem]').getByText('nobody').waitFor()
    await page.locator('[name=body]').fill('{{ name }}')
    await page.getByLabel('要添加的语言').fill('en')
    await page.locator('[data-act=add-locale]').click()
    await page.locator('[name=body]').fill('Too warm, {{ name }}')
    await preview.getByText('Too warm, 张三').waitFor()
    await page.getByRole('button', { name: '保存' }).click()
    await waitForPage(page, 'notifications.template')
    await page.getByRole('button', { name: 'en', exact: true }).click()
    await page.locator('[name=body]').fill('Cold, {{ name }}')
    await page.getByRole('button', { name: '保存' }).click()
    await page.getByRole('button', { name: '还原' }).first().click()
    await page.getByRole('button', { name: 'en', exact: true }).click()
    await expect.poll(() => page.locator('[name=body]').inputValue()).toBe('Too warm, {{ name }}')
  })

  it('ring the bell, and are read in the inbox', async () => {
    await open('/notifications/channels/new', 'notifications.channel.new')
    await page.getByLabel('站内信', { exact: true }).check()
    await page.locator('[name=name]').fill('站内')
    await page.getByRole('button', { name: '保存' }).click()
    await waitForPage(page, 'notifications.channel')
    await page.locator('[data-act=test]').click()
    await page.locator('[data-outcome=sent]').waitFor()
    const bell = page.locator('[data-part=bell]')
    await page.reload()
    await bell.getByText('1').waitFor()
    await bell.click()
    await waitForPage(page, 'inbox')
    await page.locator('[data-unread=true]').getByText('收到本消息说明渠道可用。').waitFor()
    await page.locator('[data-act=read]').click()
    await page.locator('[data-unread=false]').waitFor()
    await expect.poll(() => bell.getAttribute('aria-label')).toBe('收件箱')
  })

  it('are not shown to whoever may not read them, and only to be read by who may not change them', async () => {
    const otto = { email: 'otto@example.com', password: 'a-long-enough-passphrase-7' }
    await server.call('POST', '/api/v1/users', { name: 'Otto', role: 'viewer', ...otto })
    const other = await (await openContext(browser)).newPage()
    await signIn(other, server, '', otto)
    expect(await other.getByRole('link', { name: '通知', exact: true }).count()).toBe(0)
    await other.goto(`${server.url}/notifications/channels`)
    await other.getByText('notify.read').waitFor()
    await other.context().close()
  })
})
