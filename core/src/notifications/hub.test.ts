// SPDX-License-Identifier: AGPL-3.0-only
import { createHmac } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { json, startMailServer, startProvider } from './testing.ts'

let platform: TestPlatform
let provider: Awaited<ReturnType<typeof startProvider>>
let number = 0
const soon = { timeout: 20_000, interval: 50 }
const ok = {
  feishu: json(200, { code: 0, msg: 'success' }),
  wecom: json(200, { errcode: 0 }),
  dingtalk: json(200, { errcode: 0, errmsg: 'ok' }),
}

beforeAll(async () => {
  provider = await startProvider()
  const endpoints = Object.fromEntries(
    ['feishu', 'wecom', 'dingtalk', 'telegram', 'aliyun_sms'].map((type) => [type, `${provider.url}/${type}`]),
  )
  platform = await startTestPlatform({
    notify: { endpoints, testsPerMinute: 1000 },
    outbound: { policy: 'lan', allow: ['127.0.0.1'] },
  })
})
afterAll(async () => {
  await platform.close()
  await provider.close()
})

async function newChannel(type: string, config: Record<string, unknown>, more: Record<string, unknown> = {}): Promise<string> {
  const answer = await platform.call('POST', '/api/v1/notifications/channels', {
    body: { name: `${type} ${++number}`, type, config, ...more },
  })
  expect(answer.status, answer.text).toBe(201)
  return answer.json<{ id: string }>().id
}
const feishuToken = () => `feishu${String(++number).padStart(6, '0')}`

async function send(body: Record<string, unknown>) {
  const answer = await platform.call('POST', '/api/v1/notifications/messages', { body })
  expect(answer.status, answer.text).toBeLessThan(300)
  return answer.json<{ id: string; deduplicated: boolean; deliveries: { id: string }[] }>()
}

type Shown = {
  deliveries: {
    id: string
    type: string
    state: string
    reason: string | null
    attempts: number
    step: number
    log: { outcome: string; reason: string | null }[]
  }[]
}
const read = async (id: string) => (await platform.call('GET', `/api/v1/notifications/messages/${id}`)).json<Shown>()
const expectEnd = (id: string, wanted: Record<string, unknown>) =>
  vi.waitFor(async () => expect((await read(id)).deliveries[0]).toMatchObject(wanted), soon)

describe('channels', () => {
  it('take a pasted address apart, keep their secrets, and say only how those end', async () => {
    const url = 'https://open.feishu.cn/open-apis/bot/v2/hook/0123456789abcdef-pasted'
    const made = await platform.call('POST', '/api/v1/notifications/channels', {
      body: { name: '运维', type: 'feishu', config: { url, signSecret: 'top-secret-1' } },
    })
    expect(made.status, made.text).toBe(201)
    expect(made.text).not.toContain('0123456789abcdef')
    expect(made.text).not.toContain('top-secret')
    const { id } = made.json<{ id: string }>()
    expect(made.json()).toMatchObject({
      secretsSet: ['token', 'signSecret'],
      secretTails: { token: 'sted', signSecret: 'et-1' },
      config: {},
    })
    const patched = await platform.call('PATCH', `/api/v1/notifications/channels/${id}`, {
      body: { config: { keyword: '报警' } },
      headers: { 'if-match': '"1"' },
    })
    expect(patched.json()).toMatchObject({ config: { keyword: '报警' }, secretsSet: ['token', 'signSecret'] })
    const opened = await platform.notifications.channels.open(platform.context.rootTenant, id)
    expect(opened.config).toEqual({ token: '0123456789abcdef-pasted', signSecret: 'top-secret-1', keyword: '报警' })
    const pasted = { url: 'https://open.feishu.cn/open-apis/bot/v2/hook/fedcba9876543210-other', token: null }
    for (const config of [{ url: pasted.url }, pasted]) {
      const path = `/api/v1/notifications/channels/${id}`
      expect((await platform.call('PATCH', path, { body: { config } })).status).toBe(200)
      expect((await platform.notifications.channels.open(platform.context.rootTenant, id)).config).toMatchObject({
        token: 'fedcba9876543210-other',
        signSecret: 'top-secret-1',
      })
    }
    expect(
      (await platform.call('PATCH', `/api/v1/notifications/channels/${id}`, { body: { name: 'x' }, headers: { 'if-match': '"1"' } }))
        .status,
    ).toBe(412)
  })

  it('refuse what cannot work, with a code that says why', async () => {
    const codes: [string, Record<string, unknown>, string][] = [
      ['pager', {}, 'CHANNEL_TYPE_UNKNOWN'],
      ['feishu', { token: 'a b' }, 'CHANNEL_CONFIG'],
      ['feishu', { token: 'abcdefgh', surprise: 1 }, 'CHANNEL_CONFIG'],
      ['feishu', { url: 'https://evil.example/open-apis/bot/v2/hook/abcdefgh' }, 'CHANNEL_URL_INVALID'],
      ['teams', { url: 'https://x.webhook.office.com/webhookb2/1?sig=1' }, 'CHANNEL_RETIRED'],
      ['teams', { url: 'https://evil.example/1?sig=1' }, 'CHANNEL_URL_INVALID'],
      ['webhook', { url: 'http://169.254.169.254/latest' }, 'OUTBOUND_URL_BLOCKED'],
      ['webhook', { url: 'http://[::1]:8080/' }, 'OUTBOUND_URL_BLOCKED'],
      ['webhook', { url: 'https://example.com/', signingSecret: 'whsec_short' }, 'CHANNEL_CONFIG'],
      ['webhook', { url: 'https://example.com/', headers: { host: 'x' } }, 'CHANNEL_CONFIG'],
      ['webhook', { url: 'https://example.com/', headers: { a: 'b\r\nc: d' } }, 'CHANNEL_CONFIG'],
      ['email', { host: '127.0.0.2', port: 25, security: 'none', from: 'a@b.c' }, 'OUTBOUND_URL_BLOCKED'],
      ['twilio_sms', { accountSid: 'AC12345678', authToken: 'token12345' }, 'CHANNEL_CONFIG'],
    ]
    for (const [type, config, code] of codes) {
      const answer = await platform.call('POST', '/api/v1/notifications/channels', { body: { name: `bad ${++number}`, type, config } })
      expect([answer.status, answer.json()['code']], `${type} ${JSON.stringify(config)} ${answer.text}`).toEqual([422, code])
    }
  })

  it("say the provider's own words on a test, without the channel's secret in them", async () => {
    provider.answer('feishu', (one, response) =>
      json(200, { code: 19001, msg: `token ${one.url.split('/').at(-1)} invalid` })(one, response, 0),
    )
    const token = feishuToken()
    const answer = await platform.call('POST', '/api/v1/notifications/channel-tests', { body: { type: 'feishu', config: { token } } })
    expect(answer.json()).toMatchObject({
      outcome: 'channel_disabled',
      reason: 'token',
      providerCode: '19001',
      providerMessage: 'token *** invalid',
      httpStatus: 200,
    })
    provider.answer('feishu', ok.feishu)
    const id = await newChannel('feishu', { token })
    expect((await platform.call('POST', `/api/v1/notifications/channels/${id}/test`, { body: { title: '你好' } })).json()).toMatchObject({
      outcome: 'sent',
    })
    expect(JSON.parse(provider.of('feishu').at(-1)!.body).card.header.title.content).toBe('你好')
  })
})

describe('a message', () => {
  it('reaches its provider once, and its log says so', async () => {
    provider.answer('feishu', ok.feishu)
    const token = feishuToken()
    const channelId = await newChannel('feishu', { token })
    const { id } = await send({ to: { channelId }, title: '温度', text: '现在 **9.5**', priority: 'urgent' })
    await expectEnd(id, { state: 'sent', attempts: 1 })
    const calls = provider.of('feishu').filter((one) => one.url.endsWith(token))
    expect(calls).toHaveLength(1)
    expect(JSON.parse(calls[0]!.body).card).toMatchObject({
      header: { template: 'red' },
      elements: [{ tag: 'markdown', content: '现在 **9.5**' }],
    })
    expect((await read(id)).deliveries[0]!.log).toMatchObject([{ outcome: 'sent' }])
  })

  it('is tried again after a failure that passes, with the wait the provider asked for', async () => {
    const calls: number[] = []
    provider.answer('hook-retry', (_, response, index) => {
      calls.push(Date.now())
      if (index === 0) response.writeHead(503, { 'retry-after': '6' }).end()
      else response.writeHead(204).end()
    })
    const channelId = await newChannel('webhook', { url: `${provider.url}/hook-retry` })
    const { id } = await send({ to: { channelId }, text: 'x' })
    await expectEnd(id, { state: 'sent', attempts: 2 })
    expect(calls[1]! - calls[0]!).toBeGreaterThanOrEqual(6000)
    expect((await read(id)).deliveries[0]!.log.map((one) => one.outcome)).toEqual(['retry', 'sent'])
  })

  it('never counts as sent what nobody understands, though it is HTTP 200', async () => {
    provider.answer('wecom', (_, response) => void response.writeHead(200).end('<html>captive portal</html>'))
    const channelId = await newChannel('wecom', { key: '00000000-0000-0000-0000-000000000001' })
    const { id } = await send({ to: { channelId }, text: 'x' })
    await vi.waitFor(async () => expect((await read(id)).deliveries[0]!.log).toMatchObject([{ outcome: 'unknown' }]), soon)
    expect((await read(id)).deliveries[0]!.state).toBe('queued')
  })

  it('falls back when its channel is out of order, which then is not tried again', async () => {
    provider.answer('feishu', json(200, { code: 19001, msg: 'token invalid' }))
    provider.answer('hook-fallback', (_, response) => void response.writeHead(200).end('whatever'))
    const first = await newChannel('feishu', { token: feishuToken() })
    const second = await newChannel('webhook', { url: `${provider.url}/hook-fallback` })
    await putRouting({
      receivers: [{ name: '值班', targets: [{ channelId: first }], fallback: [[{ channelId: second }]] }],
      route: { receiver: '值班' },
    })
    const { id } = await send({ to: { receiver: '值班' }, text: '一号冷库' })
    await vi.waitFor(
      async () =>
        expect((await read(id)).deliveries.map((one) => [one.step, one.state])).toEqual([
          [0, 'failed'],
          [1, 'sent'],
        ]),
      soon,
    )
    const channel = (await platform.call('GET', `/api/v1/notifications/channels/${first}`)).json()
    expect(channel).toMatchObject({ state: 'disabled', reason: 'token' })
    const before = provider.of('feishu').length
    const again = await send({ to: { receiver: '值班' }, text: '二号冷库' })
    await vi.waitFor(async () => expect((await read(again.id)).deliveries.map((one) => one.state)).toEqual(['failed', 'sent']), soon)
    expect(provider.of('feishu')).toHaveLength(before)
    expect((await platform.call('DELETE', `/api/v1/notifications/channels/${first}`)).json()).toMatchObject({ code: 'IN_USE' })
    provider.answer('feishu', ok.feishu)
    await platform.call('POST', `/api/v1/notifications/channels/${first}/enable`, { body: {} })
    expect((await platform.call('GET', `/api/v1/notifications/channels/${first}`)).json()).toMatchObject({ state: 'ready' })
  })

  it('is signed as a webhook over the very bytes that are sent, with the same id in every attempt', async () => {
    provider.answer('hook-signed', (_, response) => void response.writeHead(200).end())
    const answer = await platform.call('POST', '/api/v1/notifications/channels', {
      body: { name: 'signed', type: 'webhook', config: { url: `${provider.url}/hook-signed` } },
    })
    const { id: channelId, signingSecret } = answer.json<{ id: string; signingSecret: string }>()
    expect((await platform.call('GET', `/api/v1/notifications/channels/${channelId}`)).text).not.toContain(signingSecret)
    const { id, deliveries } = await send({ to: { channelId }, title: '标题', text: '正文', data: { room: '一号' } })
    await expectEnd(id, { state: 'sent' })
    const [call] = provider.of('hook-signed')
    const [messageId, ts, signature] = ['id', 'timestamp', 'signature'].map((name) => String(call!.headers[`webhook-${name}`]))
    const key = Buffer.from(signingSecret.replace('whsec_', ''), 'base64')
    expect(signature).toBe(`v1,${createHmac('sha256', key).update(`${messageId}.${ts}.${call!.body}`).digest('base64')}`)
    expect(messageId).toBe(deliveries[0]!.id)
    expect(JSON.parse(call!.body)).toMatchObject({ type: 'message', data: { title: '标题', text: '正文', room: '一号' } })
  })

  it('follows no redirect, and the channel waits for a person', async () => {
    provider.answer('hook-redirect', (_, response) => void response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end())
    const channelId = await newChannel('webhook', { url: `${provider.url}/hook-redirect` })
    const { id } = await send({ to: { channelId }, text: 'x' })
    await expectEnd(id, { state: 'failed', reason: 'redirect' })
  })

  it('does not wait for an answer without end, nor for one that breaks off', async () => {
    provider.answer('hook-endless', (_, response) => {
      response.writeHead(200)
      const timer = setInterval(() => response.write('x'.repeat(10_000)), 5)
      response.on('close', () => clearInterval(timer))
    })
    provider.answer('hook-reset', (_, response) => void response.destroy())
    const endless = await send({ to: { channelId: await newChannel('webhook', { url: `${provider.url}/hook-endless` }) }, text: 'x' })
    await expectEnd(endless.id, { state: 'sent' })
    const reset = await send({ to: { channelId: await newChannel('webhook', { url: `${provider.url}/hook-reset` }) }, text: 'x' })
    await vi.waitFor(
      async () => expect((await read(reset.id)).deliveries[0]!.log).toMatchObject([{ outcome: 'retry', reason: 'connection' }]),
      soon,
    )
  })

  it('by SMS is never sent twice when its answer was lost', async () => {
    provider.answer('aliyun_sms', (_, response) => void response.destroy())
    const channelId = await newChannel('aliyun_sms', {
      accessKeyId: 'AKID1234567890',
      accessKeySecret: 'secret1234567890',
      signName: '示例',
      templateCode: 'SMS_1',
      params: { text: '{{ text }}' },
    })
    const { id } = await send({ to: { channelId, address: '13900000000' }, text: '一号冷库超温' })
    await expectEnd(id, { state: 'failed', reason: 'uncertain', attempts: 1 })
    const [call] = provider.of('aliyun_sms')
    expect(new URL(`http://x${call!.url}`).searchParams.get('TemplateParam')).toBe('{"text":"一号冷库超温"}')
    expect((await platform.call('GET', `/api/v1/notifications/messages/${id}`)).text).toContain('+86139****') // masked
    expect((await platform.call('GET', `/api/v1/notifications/messages/${id}`)).text).not.toContain('13900000000')
  })

  it('follows a group of Telegram that has moved, in the same attempt', async () => {
    provider.answer('telegram', (one, response, index) => {
      const moved = { ok: false, error_code: 400, description: 'upgraded', parameters: { migrate_to_chat_id: -100999 } }
      json(index === 0 ? 400 : 200, index === 0 ? moved : { ok: true, result: { message_id: 5 } })(one, response, 0)
    })
    const channelId = await newChannel('telegram', { botToken: `123456:${'b'.repeat(30)}`, chatId: '-42' })
    const { id } = await send({ to: { channelId }, text: 'hello' })
    await expectEnd(id, { state: 'sent', attempts: 1 })
    expect(provider.of('telegram').map((one) => JSON.parse(one.body).chat_id)).toEqual(['-42', '-100999'])
    expect((await platform.call('GET', `/api/v1/notifications/channels/${channelId}`)).json()).toMatchObject({
      config: { chatId: '-100999' },
    })
  })

  it('by e-mail is text and HTML with a stable id; a dead mailbox ends it', async () => {
    const server = await startMailServer((address) => (address.startsWith('gone') ? '550 no such user' : '250 ok'))
    const channelId = await newChannel('email', { host: '127.0.0.1', port: server.port, security: 'none', from: 'IoT <iot@example.com>' })
    const { id, deliveries } = await send({ to: { channelId, address: 'zhang@example.com' }, title: '告警', text: '**一号** & <b>' })
    await expectEnd(id, { state: 'sent' })
    expect(server.mails[0]!.to).toEqual(['zhang@example.com'])
    expect(server.mails[0]!.data).toContain(`Message-ID: <${deliveries[0]!.id}@example.com>`)
    expect(server.mails[0]!.data).toContain('multipart/alternative')
    expect(server.mails[0]!.data).toContain('Auto-Submitted: auto-generated')
    const gone = await send({ to: { channelId, address: 'gone@example.com' }, title: 'x', text: 'x' })
    await expectEnd(gone.id, { state: 'failed', reason: 'mailbox' })
    const tls = await newChannel('email', { host: '127.0.0.1', port: server.port, security: 'starttls', from: 'iot@example.com' })
    const refused = await send({ to: { channelId: tls, address: 'zhang@example.com' }, title: 'x', text: 'x' })
    await expectEnd(refused.id, { state: 'failed', reason: 'tls' })
    await server.close()
  })
})

describe('a rate', () => {
  it('is never passed, and what waits becomes one message where the channel digests', async () => {
    provider.answer('dingtalk', ok.dingtalk)
    const accessToken = 'd'.repeat(40)
    const perMs = 2000
    const channelId = await newChannel('dingtalk', { accessToken }, { rate: [{ count: 2, perMs }] })
    const sent = await Promise.all(Array.from({ length: 12 }, (_, i) => send({ to: { channelId }, title: `消息 ${i}`, text: `内容 ${i}` })))
    await vi.waitFor(
      async () => {
        const states = (await Promise.all(sent.map((one) => read(one.id)))).map((one) => one.deliveries[0]!.state)
        expect(states.every((state) => state === 'sent' || state === 'suppressed')).toBe(true)
        const bodies = provider
          .of('dingtalk')
          .map((one) => one.body)
          .join()
        for (let i = 0; i < 12; i++) expect(bodies).toContain(`内容 ${i}`)
      },
      { timeout: 40_000, interval: 200 },
    )
    const calls = provider.of('dingtalk').map((one) => one.at)
    expect(calls.length).toBeLessThan(12)
    // The request reaches us a moment after its slot was taken, the first of a window perhaps later than the last.
    for (let i = 2; i < calls.length; i++) expect(calls[i]! - calls[i - 2]!).toBeGreaterThan(perMs - 700)
  })
})

describe('what the API says', () => {
  it('takes a message once per key, cancels what is planned, and answers for each of a batch', async () => {
    provider.answer('feishu', ok.feishu)
    const channelId = await newChannel('feishu', { token: feishuToken() })
    const [first, second] = [
      await send({ to: { channelId }, text: 'a', dedupKey: 'k1' }),
      await send({ to: { channelId }, text: 'a', dedupKey: 'k1' }),
    ]
    expect(second).toMatchObject({ id: first.id, deduplicated: true })
    const planned = await send({ to: { channelId }, text: 'later', scheduledAt: new Date(Date.now() + 3_600_000).toISOString() })
    expect((await platform.call('POST', `/api/v1/notifications/messages/${planned.id}/cancel`, { body: {} })).json()).toEqual({
      canceled: 1,
    })
    await expectEnd(planned.id, { state: 'canceled' })
    const batch = await platform.call('POST', '/api/v1/notifications/messages/batch', {
      body: { messages: [{ to: { channelId }, text: 'b' }, { to: { receiver: 'nobody' }, text: 'b' }, { text: 'no one' }] },
    })
    expect(batch.json<{ items: { error?: { code: string } }[] }>().items.map((one) => one.error?.code)).toEqual([
      undefined,
      'NO_RECIPIENT',
      'VALIDATION_FAILED',
    ])
    const headers = { 'idempotency-key': 'one-request' }
    const body = { to: { channelId }, text: 'once' }
    const [a, b] = [
      await platform.call('POST', '/api/v1/notifications/messages', { body, headers }),
      await platform.call('POST', '/api/v1/notifications/messages', { body, headers }),
    ]
    expect(b.json()['id']).toBe(a.json()['id'])
    expect(
      (await platform.call('POST', '/api/v1/notifications/messages', { body: { to: { channelId }, text: 'a\u0000b' } })).status,
    ).toBeGreaterThanOrEqual(400)
  })

  it('is written by a template, whose versions stay', async () => {
    provider.answer('feishu', ok.feishu)
    const channelId = await newChannel('feishu', { token: feishuToken() })
    const body = {
      name: 'welcome',
      locales: { zh: { title: '你好 {{ name }}', body: '**{{ name }}** 欢迎' }, en: { body: 'Welcome {{ name }}' } },
      example: { name: '张三' },
    }
    const made = await platform.call('POST', '/api/v1/notifications/templates', { body })
    expect(made.status, made.text).toBe(201)
    const { id } = made.json<{ id: string }>()
    const { id: messageId } = await send({ to: { channelId }, template: 'welcome', data: { name: '*张*' } })
    await expectEnd(messageId, { state: 'sent' })
    const card = JSON.parse(provider.of('feishu').at(-1)!.body).card
    expect([card.header.title.content, card.elements[0].content]).toEqual(['你好 *张*', '**&#42;张&#42;** 欢迎'])
    const missing = await platform.call('POST', '/api/v1/notifications/messages', { body: { to: { channelId }, template: 'welcome' } })
    expect(missing.json()).toMatchObject({ code: 'TEMPLATE_VARIABLE' })
    const both = await platform.call('POST', '/api/v1/notifications/messages', {
      body: { to: { channelId }, template: 'welcome', text: 'x' },
    })
    expect(both.json()).toMatchObject({ code: 'MESSAGE_CONTENT' })
    const edited = await platform.call('PATCH', `/api/v1/notifications/templates/${id}`, {
      body: { locales: { zh: { body: '{{ name }}' } } },
      headers: { 'if-match': '"1"' },
    })
    expect(edited.json()).toMatchObject({ version: 2 })
    expect((await platform.call('GET', `/api/v1/notifications/templates/${id}`)).json()).toMatchObject({
      versions: [{ version: 1, locales: body.locales }],
    })
    const restored = await platform.call('POST', `/api/v1/notifications/templates/${id}/restore`, { body: { version: 1 } })
    expect(restored.json()).toMatchObject({ version: 3, locales: body.locales })
    const preview = await platform.call('POST', '/api/v1/notifications/templates/preview', {
      body: { templateId: id, channelType: 'slack' },
    })
    expect(preview.json()).toEqual({ title: '你好 张三', parts: [{ text: '*张三* 欢迎' }] })
    const broken = await platform.call('POST', '/api/v1/notifications/templates', {
      body: { name: 'broken', locales: { zh: { body: '{% if %}' } } },
    })
    expect(broken.json()).toMatchObject({ code: 'TEMPLATE_INVALID' })
    expect((await platform.call('DELETE', `/api/v1/notifications/templates/${id}`)).status).toBe(204)
  })

  it('tells people by their inbox, which is theirs', async () => {
    const me = (await platform.call('GET', '/api/v1/me')).json<{ user: { id: string } }>().user
    await send({ to: { userId: me.id }, title: '给你', text: '正文', priority: 5 })
    const inbox = async () =>
      (await platform.call('GET', '/api/v1/notifications/inbox')).json<{ items: { id: string; title: string }[]; unread: number }>()
    await vi.waitFor(async () => expect((await inbox()).items[0]).toMatchObject({ title: '给你' }), soon)
    const other = await platform.login('operator')
    expect((await platform.call('GET', '/api/v1/notifications/inbox', { token: other })).json()).toMatchObject({ items: [], unread: 0 })
    expect((await inbox()).unread).toBeGreaterThan(0)
    await platform.call('POST', '/api/v1/notifications/inbox/read', { body: {} })
    expect((await inbox()).unread).toBe(0)
  })

  it('counts what became of deliveries', async () => {
    const span = `from=${new Date(Date.now() - 3_600_000).toISOString()}&to=${new Date(Date.now() + 60_000).toISOString()}`
    const { items } = (await platform.call('GET', `/api/v1/notifications/stats?by=type&${span}`)).json<{
      items: { key: string; sent: number; successRate: number }[]
    }>()
    expect(items.find((one) => one.key === 'feishu')!.sent).toBeGreaterThan(0)
    const metrics = async () => (await platform.call('GET', '/metrics')).text
    expect(await metrics()).toContain('iot_pms_notify_attempts_total{type="feishu",outcome="sent"}')
    expect(await metrics()).toContain('iot_pms_notify_accept_to_sent_seconds_count{priority="3"}')
    // Counted every ten seconds.
    await vi.waitFor(async () => expect(await metrics()).toMatch(/iot_pms_notify_channel_up\{type="feishu",state="\w+"\} [1-9]/), soon)
    expect(await metrics()).toMatch(/iot_pms_notify_oldest_seconds \d/)
  })
})

describe('alerts', () => {
  it('become messages of their group with the transaction that raised them, and not without it', async () => {
    provider.answer('hook-alerts', (_, response) => void response.writeHead(200).end())
    const channelId = await newChannel('webhook', { url: `${provider.url}/hook-alerts` })
    await putRouting({
      route: { receiver: 'ops', groupBy: ['rule_id'], groupWaitMs: 0, groupIntervalMs: 1000 },
      receivers: [{ name: 'ops', sendResolved: true, targets: [{ channelId }] }],
    })
    const { context, notifications } = platform
    const scope = context.rootTenant
    const labels = { severity: 'critical', rule_id: 'r1', device_id: 'd1' }
    const raise = (status: 'firing' | 'resolved', fails = false) =>
      context.db.withTenant(scope, async (tx) => {
        await notifications.raise(tx, scope, { id: 'alarm-1', status, labels, data: { device: '一号冷库*', title: '超温' } })
        if (fails) throw new Error('undone')
      })
    await expect(raise('firing', true)).rejects.toThrow('undone')
    await raise('firing')
    const bodies = () => provider.of('hook-alerts').map((one) => JSON.parse(one.body))
    await vi.waitFor(
      () =>
        expect(bodies()).toMatchObject([
          { type: 'alarm.raised', data: { group: { reason: 'first' }, alerts: [{ id: 'alarm-1', status: 'firing' }] } },
        ]),
      soon,
    )
    await raise('resolved')
    await vi.waitFor(() => expect(bodies()[1]).toMatchObject({ type: 'alarm.cleared', data: { group: { reason: 'all_resolved' } } }), soon)
    const [message] = (await platform.call('GET', '/api/v1/notifications/messages?limit=50'))
      .json<{ items: { source: string; title: string; text: string; priority: number }[] }>()
      .items.filter((one) => one.source === 'alert')
      .slice(-1)
    expect(message).toMatchObject({ title: '【紧急】一号冷库* 超温', priority: 1 })
    expect(message!.text).toContain('**一号冷库\\***')
  })

  it('keep quiet while they are silenced, and are told when the silence is over', async () => {
    const { context, notifications } = platform
    const scope = context.rootTenant
    const now = Date.now()
    const bad = await platform.call('POST', '/api/v1/notifications/silences', {
      body: { matchers: ['a=~".*"'], startsAt: new Date(now).toISOString(), endsAt: new Date(now + 1000).toISOString(), comment: 'x' },
    })
    expect(bad.json()).toMatchObject({ code: 'SILENCE_INVALID' })
    const made = await platform.call('POST', '/api/v1/notifications/silences', {
      body: {
        matchers: ['rule_id="r2"'],
        startsAt: new Date(now - 1000).toISOString(),
        endsAt: new Date(now + 3_600_000).toISOString(),
        comment: '检修',
      },
    })
    expect(made.status, made.text).toBe(201)
    const before = provider.of('hook-alerts').length
    const labels = (rule: string) => ({ severity: 'major', rule_id: rule })
    await context.db.withTenant(scope, async (tx) => {
      await notifications.raise(tx, scope, { id: 'alarm-2', status: 'firing', labels: labels('r2'), data: { title: 'silenced' } })
      await notifications.raise(tx, scope, { id: 'alarm-3', status: 'firing', labels: labels('r3'), data: { title: 'loud' } })
    })
    const later = () =>
      provider
        .of('hook-alerts')
        .slice(before)
        .map((one) => one.body)
        .join()
    await vi.waitFor(() => expect(later()).toContain('alarm-3'), soon)
    expect(later()).not.toContain('alarm-2')
    const list = (await platform.call('GET', '/api/v1/notifications/silences')).json<{
      items: { id: string; mutes: number; state: string }[]
    }>().items
    expect(list[0]).toMatchObject({ mutes: 1, state: 'active' })
    expect((await platform.call('DELETE', `/api/v1/notifications/silences/${list[0]!.id}`)).status).toBe(204)
    await vi.waitFor(() => expect(later()).toContain('alarm-2'), soon)
  })

  it('can be tried in the tree and in virtual time', async () => {
    const tested = await platform.call('POST', '/api/v1/notifications/routing/test', { body: { labels: { rule_id: 'r1' } } })
    expect(tested.json()).toMatchObject({ matches: [{ path: '0', receiver: 'ops', groupWaitMs: 0, muted: false }] })
    const simulated = await platform.call('POST', '/api/v1/notifications/simulate', {
      body: { untilMs: 10_000, events: [{ atMs: 0, alert: 'A', status: 'firing', labels: { rule_id: 'r' } }] },
    })
    expect(simulated.json()).toEqual({
      notifications: [{ atMs: 0, route: '0', receiver: 'ops', reason: 'first', firing: ['A'], resolved: [] }],
    })
    const bad = await platform.call('PUT', '/api/v1/notifications/routing', {
      body: { route: { receiver: 'a', routes: [{ receiver: 'b', routes: [{ surprise: 1 }] }] }, receivers: [{ name: 'a', targets: [] }] },
    })
    expect(bad.json()).toMatchObject({ code: 'ROUTING_INVALID' })
  })
})

async function putRouting(routing: Record<string, unknown>): Promise<void> {
  const answer = await platform.call('PUT', '/api/v1/notifications/routing', { body: routing })
  expect(answer.status, answer.text).toBe(200)
}
