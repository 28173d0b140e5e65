// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { signTwilio } from './channels/twilio-sms.ts'
import { json, startProvider } from './testing.ts'

let platform: TestPlatform
let provider: Awaited<ReturnType<typeof startProvider>>
const soon = { timeout: 30_000, interval: 50 }
const publicUrl = 'https://iot.example/'

beforeAll(async () => {
  provider = await startProvider()
  platform = await startTestPlatform({
    publicUrl: new URL(publicUrl),
    notify: {
      endpoints: Object.fromEntries(['feishu', 'twilio_sms', 'aliyun_sms'].map((type) => [type, `${provider.url}/${type}`])),
      testsPerMinute: 1000,
    },
    outbound: { policy: 'lan', allow: ['127.0.0.1'] },
  })
})
afterAll(async () => {
  await platform.close()
  await provider.close()
})

const call = (method: string, path: string, body?: unknown, token?: null) =>
  platform.call(method, `/api/v1/notifications${path}`, {
    ...(body === undefined ? {} : { body }),
    ...(token === null ? { token } : {}),
  })
async function make(path: string, body: unknown, method = 'POST'): Promise<{ id: string; callbackUrl?: string }> {
  const answer = await call(method, path, body)
  expect(answer.status, answer.text).toBeLessThan(300)
  return answer.json()
}
let number = 0
async function newHook(name: string): Promise<string> {
  provider.answer(name, (_, response) => void response.writeHead(204).end())
  return (await make('/channels', { name: `${name} ${++number}`, type: 'webhook', config: { url: `${provider.url}/${name}` } })).id
}
const raise = (id: string, status: 'firing' | 'resolved' = 'firing') =>
  platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
    platform.notifications.raise(tx, platform.context.rootTenant, {
      id,
      status,
      labels: { a: id, severity: 'critical' },
      data: { title: id },
    }),
  )
const seen = (hook: string, alert: string) => provider.of(hook).filter((one) => one.body.includes(alert))

describe('an escalation', () => {
  let first: string
  let second: string
  let id: string
  beforeAll(async () => {
    first = await newHook('hook-first')
    second = await newHook('hook-second')
    id = (
      await make('/escalations', {
        name: '值班升级',
        steps: [
          { afterMs: 1000, targets: [{ channelId: first }] },
          // Late enough for what must come before it, on a slow machine too.
          { afterMs: 8000, targets: [{ channelId: second }] },
        ],
      })
    ).id
    const inbox = { name: 'inbox', targets: [] }
    await make(
      '/routing',
      { route: { receiver: 'inbox', groupBy: ['a'], groupWaitMs: 0, escalation: '值班升级' }, receivers: [inbox] },
      'PUT',
    )
  })

  it('is checked, and cannot go while a route calls for it', async () => {
    const bad = {
      name: 'x',
      steps: [
        { afterMs: 5, targets: [{ channelId: first }] },
        { afterMs: 5, targets: [] },
      ],
    }
    expect((await call('POST', '/escalations', bad)).json()).toMatchObject({
      code: 'UNPROCESSABLE',
      errors: [{ pointer: '/steps/1/afterMs' }, { pointer: '/steps/1/targets' }],
    })
    expect(
      (await call('POST', '/escalations', { name: '值班升级', steps: [{ afterMs: 0, targets: [{ channelId: first }] }] })).status,
    ).toBe(409)
    expect((await call('DELETE', `/escalations/${id}`)).json()).toMatchObject({ code: 'IN_USE' })
    expect((await call('DELETE', `/channels/${first}`)).json()).toMatchObject({
      code: 'IN_USE',
      errors: [{ detail: 'Escalation 值班升级.' }],
    })
    expect((await call('PATCH', `/escalations/${id}`, { name: 'other' })).json()).toMatchObject({ code: 'IN_USE' })
    const routing = { route: { receiver: 'r', escalation: 'nobody' }, receivers: [{ name: 'r', targets: [] }] }
    expect((await call('PUT', '/routing', routing)).json()).toMatchObject({ code: 'ROUTING_INVALID' })
  })

  it('tells further people one step after the other while nobody acknowledges', async () => {
    await raise('ignored')
    await vi.waitFor(() => expect(seen('hook-second', 'ignored')).toHaveLength(1), soon)
    expect(seen('hook-first', 'ignored')).toHaveLength(1)
    expect(JSON.parse(seen('hook-second', 'ignored')[0]!.body)).toMatchObject({ data: { group: { reason: 'escalation' } } })
    expect(seen('hook-first', 'ignored')[0]!.at).toBeLessThanOrEqual(seen('hook-second', 'ignored')[0]!.at)
  })

  it('ends with the alert', async () => {
    await raise('short')
    await vi.waitFor(() => expect(seen('hook-first', 'short')).toHaveLength(1), soon)
    await raise('short', 'resolved')
    await raise('marker')
    await vi.waitFor(() => expect(seen('hook-second', 'marker')).toHaveLength(1), soon)
    expect(seen('hook-second', 'short')).toEqual([])
  })

  it('ends when somebody acknowledges by the link in a message, and whoever listens hears of it', async () => {
    const heard: { ids: string[]; by: string }[] = []
    platform.notifications.onAcknowledged(async (_, __, acked) => void heard.push(acked))
    await raise('linked')
    const inbox = async () =>
      (await call('GET', '/inbox'))
        .json<{ items: { id: string; title: string; links: { url: string }[] }[] }>()
        .items.find((one) => one.title.includes('linked'))
    await vi.waitFor(async () => expect(await inbox()).toBeDefined(), soon)
    const { url } = (await inbox())!.links.at(-1)!
    expect(url.startsWith(`${publicUrl}n/`)).toBe(true)
    const path = new URL(url).pathname
    const looked = await platform.call('GET', path, { token: null, headers: { accept: 'text/html' } })
    expect([
      looked.status,
      looked.text.includes('linked'),
      looked.headers.get('content-security-policy')?.includes("default-src 'none'"),
    ]).toEqual([200, true, true])
    // To look changes nothing.
    expect(heard).toEqual([])
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    const done = await platform.call('POST', path, { token: null, headers, body: '' })
    expect([done.status, done.text.includes('已确认')]).toEqual([200, true])
    expect(heard).toEqual([{ ids: ['linked'], by: expect.stringMatching(/^user:/) }])
    await platform.call('POST', path, { token: null, headers, body: '' })
    expect(heard.at(-1)).toMatchObject({ ids: [] })
    expect((await platform.call('GET', `/n/${'A'.repeat(22)}.${'B'.repeat(22)}`, { token: null })).status).toBe(404)
    await raise('after')
    await vi.waitFor(() => expect(seen('hook-second', 'after')).toHaveLength(1), soon)
    expect(seen('hook-second', 'linked')).toEqual([])
    const stored = await platform.context.db.withTenant(platform.context.rootTenant, (tx) =>
      tx.execute(sql`select * from notify_ack_tokens`),
    )
    expect(JSON.stringify(stored)).not.toContain(path.split('.').at(-1))
  })
})

describe('reports of a provider', () => {
  async function sentBy(type: string, config: Record<string, unknown>, reply: unknown, status = 200) {
    provider.answer(type, json(status, reply))
    const channel = await make('/channels', { name: `sms ${++number}`, type, config })
    const { callbackUrl } = (await call('GET', `/channels/${channel.id}`)).json<{ callbackUrl: string }>()
    const { id } = await make('/messages', {
      to: { channelId: channel.id, address: `+8613900000${String(++number).padStart(3, '0')}` },
      text: 'x',
    })
    type Shown = { deliveries: { id: string; state: string; reason: string | null; events: { kind: string; detail: string | null }[] }[] }
    const read = async () => (await call('GET', `/messages/${id}`)).json<Shown>().deliveries[0]!
    await vi.waitFor(async () => expect((await read()).state).toBe('sent'), soon)
    return { callbackUrl, read }
  }
  const report = (url: string, body: string, headers: Record<string, string> = {}) =>
    platform.call('POST', new URL(url).pathname, {
      token: null,
      body,
      headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
    })

  it('move a delivery on, in whatever order and however often they come; of Twilio only with its signature', async () => {
    const authToken = 'token1234567890'
    const config = { accountSid: 'AC1234567890', authToken, from: '+15551234567' }
    const { callbackUrl, read } = await sentBy('twilio_sms', config, { sid: 'SM1' }, 201)
    const form = { MessageSid: 'SM1', MessageStatus: 'delivered' }
    expect(new URLSearchParams(provider.of('twilio_sms')[0]!.body).get('StatusCallback')).toBe(callbackUrl)
    const body = new URLSearchParams(form).toString()
    expect((await report(callbackUrl, body)).status).toBe(403)
    expect((await report(callbackUrl, body, { 'x-twilio-signature': signTwilio('wrong', callbackUrl, form) })).status).toBe(403)
    expect((await read()).state).toBe('sent')
    const signature = { 'x-twilio-signature': signTwilio(authToken, callbackUrl, form) }
    for (let i = 0; i < 2; i++) expect((await report(callbackUrl, body, signature)).status).toBe(200)
    const late = { MessageSid: 'SM1', MessageStatus: 'sent' }
    await report(callbackUrl, new URLSearchParams(late).toString(), { 'x-twilio-signature': signTwilio(authToken, callbackUrl, late) })
    expect(await read()).toMatchObject({ state: 'delivered', events: [{ kind: 'delivered' }, { kind: 'other', detail: 'sent' }] })
    expect((await report(callbackUrl.replace(/.{4}$/, 'AAAA'), body, signature)).status).toBe(404)
  })

  it('say what did not arrive', async () => {
    const config = { accessKeyId: 'AKID1234567890', accessKeySecret: 'secret1234567890', signName: '示例', templateCode: 'SMS_1' }
    const { callbackUrl, read } = await sentBy('aliyun_sms', config, { Code: 'OK', BizId: 'biz-1' })
    const unknown = await report(callbackUrl, JSON.stringify([{ biz_id: 'nobody', success: true }]))
    expect([unknown.status, unknown.json()]).toEqual([200, { code: 0, msg: '成功' }])
    await report(callbackUrl, JSON.stringify([{ biz_id: 'biz-1', success: false, err_code: 'MOBILE_NOT_ON_SERVICE' }]))
    expect(await read()).toMatchObject({
      state: 'failed',
      reason: 'undelivered',
      events: [{ kind: 'failed', detail: 'MOBILE_NOT_ON_SERVICE' }],
    })
    expect((await report(callbackUrl, 'no JSON')).status).toBe(400)
  })
})

describe('the simple address', () => {
  it('takes a form, JSON or the query, and answers as scripts expect', async () => {
    const hook = await newHook('hook-simple')
    await make(
      '/routing',
      {
        route: { receiver: '默认' },
        receivers: [
          { name: '默认', targets: [] },
          { name: 'scripts', targets: [{ channelId: hook }] },
        ],
      },
      'PUT',
    )
    const key = (await platform.call('POST', '/api/v1/api-keys', { body: { name: 'k', scopes: ['notify.send'], expiresInDays: 1 } })).json<{
      id: string
      key: string
    }>()
    const noScope = (
      await platform.call('POST', '/api/v1/api-keys', { body: { name: 'n', scopes: ['device.read'], expiresInDays: 1 } })
    ).json<{ key: string }>()
    expect((await call('PUT', `/send-keys/${key.id}`, { receiver: 'nobody' })).json()).toMatchObject({ code: 'NO_RECIPIENT' })
    expect((await call('PUT', `/send-keys/${key.id}`, { receiver: 'scripts' })).status).toBe(204)
    expect((await call('GET', '/send-keys')).json()).toMatchObject({ items: [{ apiKeyId: key.id, receiver: 'scripts' }] })
    const form = { 'content-type': 'application/x-www-form-urlencoded' }
    const path = `/send/${key.key}.send`
    const answers = [
      await platform.call('GET', `${path}?title=one`, { token: null }),
      await platform.call('POST', path, {
        token: null,
        headers: form,
        body: new URLSearchParams({ title: 'two', desp: '**正文**' }).toString(),
      }),
      await platform.call('POST', path, { token: null, body: { title: 'three\nlines', desp: 'x' } }),
    ]
    for (const answer of answers) {
      expect(answer.json(), answer.text).toMatchObject({
        code: 0,
        message: '',
        data: { pushid: expect.any(String), error: 'SUCCESS', errno: 0 },
      })
    }
    await vi.waitFor(() => expect(provider.of('hook-simple')).toHaveLength(3), soon)
    const titles = provider.of('hook-simple').map((one) => JSON.parse(one.body).data.title as string)
    expect(new Set(titles)).toEqual(new Set(['one', 'two', 'three lines']))
    for (const bad of ['SCT123', noScope.key]) {
      const answer = await platform.call('GET', `/send/${bad}.send?title=x`, { token: null })
      expect([answer.status, answer.json()]).toEqual([400, { code: 40001, message: '[AUTH]错误的Key', scode: 461 }])
    }
    expect((await platform.call('GET', path, { token: null })).json()).toMatchObject({ code: 20001 })
    expect((await call('DELETE', `/send-keys/${key.id}`)).status).toBe(204)
  })
})

describe('the log', () => {
  it('begins many again, as one act', async () => {
    let isDown = true
    provider.answer('feishu', (one, response) => json(200, { code: isDown ? 19024 : 0 })(one, response, 0))
    const { id: channelId } = await make('/channels', { name: 'bulk', type: 'feishu', config: { token: 'bulk-token-0001' } })
    const ids = [await make('/messages', { to: { channelId }, text: 'a' }), await make('/messages', { to: { channelId }, text: 'b' })].map(
      (one) => one.id,
    )
    const failed = async () =>
      (await call('GET', `/deliveries?channelId=${channelId}&state=failed`)).json<{ items: unknown[] }>().items.length
    await vi.waitFor(async () => expect(await failed()).toBe(2), soon)
    isDown = false
    const answer = await call('POST', '/deliveries/bulk-retry', { channelId })
    expect([answer.status, answer.json()]).toEqual([202, { retried: 2 }])
    for (const id of ids) {
      type Shown = { deliveries: { state: string; log: { no: number; outcome: string }[] }[] }
      const read = async () => (await call('GET', `/messages/${id}`)).json<Shown>().deliveries[0]
      await vi.waitFor(
        async () =>
          expect(await read()).toMatchObject({
            state: 'sent',
            log: [
              { no: 1, outcome: 'rejected' },
              { no: 2, outcome: 'sent' },
            ],
          }),
        soon,
      )
    }
    expect((await call('POST', '/deliveries/bulk-retry', { channelId })).json()).toEqual({ retried: 0 })
  })

  it('comes as CSV with masked addresses, and no cell that a spreadsheet would run', async () => {
    const { id: channelId } = await make('/channels', {
      name: 'csv',
      type: 'email',
      config: { host: '127.0.0.1', port: 9, security: 'none', from: 'a@example.com' },
    })
    await make('/messages', { to: { channelId, address: 'zhang@example.com' }, title: '=cmd()', text: 'x' })
    const answer = await call('GET', `/deliveries/export?channelId=${channelId}`)
    expect(answer.headers.get('content-type')).toBe('text/csv; charset=utf-8')
    const rows = answer.text.trim().split('\r\n')
    expect(rows).toHaveLength(2)
    expect(rows[1]).toContain('"z***@example.com"')
    expect(rows[1]).toContain(`"'=cmd()"`)
    expect(answer.text).not.toContain('zhang@')
    const byAddress = (await call('GET', '/deliveries?recipient=zhang@example.com')).json<{ items: unknown[] }>()
    expect(byAddress.items).toHaveLength(1)
  })

  it('counts by template, with reasons and codes', async () => {
    await make('/templates', { name: 'counted', locales: { zh: { body: 'x' } } })
    provider.answer('feishu', json(200, { code: 19024, msg: 'keyword' }))
    const { id: channelId } = await make('/channels', { name: 'counted', type: 'feishu', config: { token: 'count-token-001' } })
    await make('/messages', { to: { channelId }, template: 'counted' })
    const span = `from=${new Date(Date.now() - 3_600_000).toISOString()}&to=${new Date(Date.now() + 60_000).toISOString()}`
    const read = async () =>
      (await call('GET', `/stats?by=template&${span}`)).json<{ items: { key: string }[] }>().items.find((one) => one.key === 'counted')
    await vi.waitFor(
      async () => expect(await read()).toMatchObject({ accepted: 1, failed: 1, successRate: 0, topCodes: [{ code: '19024', count: 1 }] }),
      soon,
    )
  })
})

describe('a signing secret', () => {
  it('is changed with a day in which the one before signs too', async () => {
    const hook = await newHook('hook-rotated')
    const old = (await call('GET', `/channels/${hook}`)).json()
    const rotated = await call('POST', `/channels/${hook}/rotate-secret`, {})
    const { signingSecret } = rotated.json<{ signingSecret: string }>()
    expect(signingSecret).toMatch(/^whsec_/)
    expect((await call('GET', `/channels/${hook}`)).text).not.toContain(signingSecret)
    expect(old).not.toHaveProperty('signingSecret')
    await make('/messages', { to: { channelId: hook }, text: 'x' })
    await vi.waitFor(() => expect(provider.of('hook-rotated')).toHaveLength(1), soon)
    expect(String(provider.of('hook-rotated')[0]!.headers['webhook-signature']).split(' ')).toHaveLength(2)
    await make(`/channels/${hook}`, { config: { oldSecretUntil: new Date(Date.now() - 1000).toISOString() } }, 'PATCH')
    await make('/messages', { to: { channelId: hook }, text: 'y' })
    await vi.waitFor(() => expect(provider.of('hook-rotated')).toHaveLength(2), soon)
    expect(String(provider.of('hook-rotated')[1]!.headers['webhook-signature']).split(' ')).toHaveLength(1)
    const robot = await make('/channels', { name: 'r', type: 'feishu', config: { token: 'rotate-token-01' } })
    expect((await call('POST', `/channels/${robot.id}/rotate-secret`, {})).json()).toMatchObject({ code: 'CHANNEL_CONFIG' })
  })
})
