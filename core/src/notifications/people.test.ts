// SPDX-License-Identifier: AGPL-3.0-only
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { releaseHeld } from './held.ts'
import { quietUntil } from './quiet-hours.ts'
import { json, startMailServer, startProvider } from './testing.ts'

let platform: TestPlatform
let provider: Awaited<ReturnType<typeof startProvider>>
let mails: Awaited<ReturnType<typeof startMailServer>>
let userId: string
const soon = { timeout: 30_000, interval: 50 }

beforeAll(async () => {
  provider = await startProvider()
  mails = await startMailServer((address) => (address.startsWith('gone') ? '550 no such user' : '250 ok'))
  platform = await startTestPlatform({
    notify: { endpoints: { telegram: `${provider.url}/telegram`, twilio_sms: `${provider.url}/twilio` }, testsPerMinute: 1000 },
    outbound: { policy: 'lan', allow: ['127.0.0.1'] },
  })
  userId = (await platform.call('GET', '/api/v1/me')).json<{ user: { id: string } }>().user.id
  await post('/channels', {
    name: 'mail',
    type: 'email',
    config: { host: '127.0.0.1', port: mails.port, security: 'none', from: 'iot@example.com' },
  })
})
afterAll(async () => {
  await platform.close()
  await provider.close()
  await mails.close()
})

async function post<T = { id: string }>(path: string, body: unknown = {}, method = 'POST'): Promise<T> {
  const answer = await platform.call(method, `/api/v1/notifications${path}`, { body })
  expect(answer.status, answer.text).toBeLessThan(300)
  return answer.status === 202 && answer.text === '' ? (undefined as T) : answer.json<T>()
}
const setPreferences = (document: unknown) => post('/preferences/me', document, 'PUT')

type Delivery = { id: string; type: string; state: string; reason: string | null; step: number; heldUntil: string | null }
/** The message, its deliveries by step and, in one step, by type: the inbox last. */
async function read(id: string) {
  const found = (await platform.call('GET', `/api/v1/notifications/messages/${id}`)).json<{ text: string; deliveries: Delivery[] }>()
  return { ...found, deliveries: found.deliveries.sort((a, b) => a.step - b.step || (a.type < b.type ? -1 : 1)) }
}
const told = (more: Record<string, unknown> = {}) => post('/messages', { to: { userId }, title: 't', text: 'x', priority: 2, ...more })
const statesOf = async (id: string) => (await read(id)).deliveries.map((one) => [one.type, one.state, one.reason])
const expectStates = (id: string, wanted: unknown[]) => vi.waitFor(async () => expect(await statesOf(id)).toEqual(wanted), soon)

describe('quiet hours', () => {
  const night = { from: '22:00', to: '07:00', mode: 'hold' as const }
  const end = (at: string, quiet: Parameters<typeof quietUntil>[0] = night, zone = 'Asia/Shanghai') =>
    quietUntil(quiet, zone, new Date(at))?.toISOString()

  it('go over midnight on the clock of the person', () => {
    expect(end('2026-11-21T14:00:00Z')).toBe('2026-11-21T23:00:00.000Z')
    expect(end('2026-11-21T22:59:59Z')).toBe('2026-11-21T23:00:00.000Z')
    expect(end('2026-11-21T23:00:00Z')).toBeUndefined()
    expect(end('2026-11-21T13:59:59Z')).toBeUndefined()
  })

  it('hold on the days on which they begin', () => {
    const friday = { ...night, days: ['fri' as const] }
    // 2026-11-20 is a Friday.
    expect(end('2026-11-20T15:00:00Z', friday)).toBe('2026-11-20T23:00:00.000Z')
    expect(end('2026-11-20T22:00:00Z', friday)).toBe('2026-11-20T23:00:00.000Z')
    expect(end('2026-11-21T15:00:00Z', friday)).toBeUndefined()
    expect(end('2026-11-19T22:00:00Z', friday)).toBeUndefined()
  })

  it('end at their time of the day though the clock is changed meanwhile', () => {
    expect(end('2026-10-24T21:30:00Z', night, 'Europe/Berlin')).toBe('2026-10-25T06:00:00.000Z')
    expect(end('2026-03-28T22:30:00Z', night, 'Europe/Berlin')).toBe('2026-03-29T05:00:00.000Z')
  })

  it('hold back what is not urgent, and send it at their end as one message', async () => {
    await setPreferences({ quietHours: { from: '00:00', to: '23:59', mode: 'hold', breakThrough: 1, zone: 'UTC' } })
    const before = mails.mails.length
    const held = [await told({ text: 'first held' }), await told({ text: 'second held' })]
    const urgent = await told({ text: 'urgent', priority: 1 })
    await expectStates(urgent.id, [
      ['email', 'sent', null],
      ['inapp', 'sent', null],
    ])
    for (const { id } of held) {
      const { deliveries } = await read(id)
      expect(deliveries.find((one) => one.type === 'email')).toMatchObject({ state: 'queued', heldUntil: expect.any(String) })
    }
    const { context } = platform
    await context.db.withTenant(context.rootTenant, async (tx) => {
      await tx.execute(sql`update notify_deliveries set held_until = now() - interval '1 second' where held_until is not null`)
      await releaseHeld(context, tx, context.rootTenant, userId)
    })
    await vi.waitFor(() => expect(mails.mails.length).toBe(before + 2), soon)
    const digest = mails.mails.map((one) => one.data).find((data) => data.includes('first held'))!
    expect(digest).toContain('first held')
    expect(digest).toContain('second held')
    expect((await read(held[0]!.id)).deliveries.find((one) => one.type === 'email')).toMatchObject({
      state: 'suppressed',
      reason: expect.stringContaining('digested'),
    })
  })

  it('say nothing of an alert that began and ended meanwhile', async () => {
    const { context, notifications } = platform
    const scope = context.rootTenant
    await post(
      '/routing',
      {
        route: { receiver: 'me', groupBy: ['a'], groupWaitMs: 0, groupIntervalMs: 1000 },
        receivers: [{ name: 'me', targets: [{ userId }] }],
      },
      'PUT',
    )
    const raise = (status: 'firing' | 'resolved') =>
      context.db.withTenant(scope, (tx) =>
        notifications.raise(tx, scope, { id: 'short', status, labels: { a: 'short', severity: 'major' }, data: { title: 'short' } }),
      )
    await raise('firing')
    const heldOf = () =>
      context.db.withTenant(scope, (tx) =>
        tx.execute<{ id: string; state: string; reason: string }>(sql`select d.id, d.state, d.reason from notify_deliveries d
        join notify_messages m on m.id = d.message_id where m.title like '%short%' and d.type = 'email'`),
      )
    await vi.waitFor(async () => expect(await heldOf()).toMatchObject([{ state: 'queued' }]), soon)
    await raise('resolved')
    await vi.waitFor(
      async () => expect(await context.db.withTenant(scope, (tx) => tx.execute(sql`select 1 from notify_groups`))).toEqual([]),
      soon,
    )
    await context.db.withTenant(scope, async (tx) => {
      await tx.execute(sql`update notify_deliveries set held_until = now() - interval '1 second' where held_until is not null`)
      await releaseHeld(context, tx, scope, userId)
    })
    expect(await heldOf()).toMatchObject([{ state: 'suppressed', reason: 'resolved' }])
  })

  it('of a person who wants to hear nothing then are written down as the reason', async () => {
    await setPreferences({ quietHours: { from: '00:00', to: '23:59', mode: 'drop', zone: 'UTC' } })
    await expectStates((await told()).id, [
      ['email', 'suppressed', 'quiet_hours_drop'],
      ['inapp', 'sent', null],
    ])
  })
})

describe('preferences', () => {
  it('turn topics off by kind of channel, but none that is needed', async () => {
    await setPreferences({ topics: { news: { email: false } } })
    await expectStates((await told({ topic: 'news' })).id, [
      ['email', 'suppressed', 'preference'],
      ['inapp', 'sent', null],
    ])
    const answer = await platform.call('PUT', '/api/v1/notifications/preferences/me', { body: { topics: { security: { email: false } } } })
    expect(answer.json()).toMatchObject({ code: 'UNPROCESSABLE', errors: [{ pointer: '/topics/security' }] })
    const zone = await platform.call('PUT', '/api/v1/notifications/preferences/me', { body: { zone: 'Mars/Olympus' } })
    expect(zone.json()).toMatchObject({ code: 'UNPROCESSABLE', errors: [{ pointer: '/zone' }] })
  })

  it('are everyone’s own', async () => {
    const viewer = await platform.login('viewer')
    expect((await platform.call('GET', '/api/v1/notifications/preferences/me', { token: viewer })).json()).toEqual({})
    expect((await platform.call('GET', '/api/v1/notifications/contact-points/me', { token: viewer })).json()).toEqual({ items: [] })
  })
})

describe('a contact point', () => {
  it('counts when its owner has said the code that was sent to it, and is tried in the wanted order', async () => {
    await setPreferences({})
    provider.answer('telegram', json(200, { ok: true, result: { message_id: 5 } }))
    await post('/channels', { name: 'robot', type: 'telegram', config: { botToken: `123456:${'b'.repeat(30)}`, chatId: '-1' } })
    const { id } = await post('/contact-points/me', { type: 'telegram', address: '4242' })
    const seen = () => provider.of('telegram').map((one) => JSON.parse(one.body) as { chat_id: string; text: string })
    await vi.waitFor(() => expect(seen().at(-1)).toMatchObject({ chat_id: '4242' }), soon)
    const code = /\d{6}/.exec(seen().at(-1)!.text)![0]
    const log = await platform.call('GET', '/api/v1/notifications/messages?limit=50')
    expect(log.text).not.toContain(code)
    expect(await statesOf((await told({ topic: 'a' })).id)).not.toContainEqual(['telegram', expect.anything(), null])
    const wrong = await platform.call('POST', `/api/v1/notifications/contact-points/me/${id}/verify`, {
      body: { code: code === '000000' ? '000001' : '000000' },
    })
    expect(wrong.json()).toMatchObject({ code: 'CODE_INVALID' })
    expect(await post(`/contact-points/me/${id}/verify`, { code })).toMatchObject({ verifiedAt: expect.any(String) })
    expect((await platform.call('POST', `/api/v1/notifications/contact-points/me/${id}/verify`, { body: { code } })).status).toBe(422)

    await setPreferences({ order: { '2': ['telegram', 'email'] } })
    provider.answer('telegram', json(403, { ok: false, error_code: 403, description: 'bot was blocked by the user' }))
    const { id: message } = await told({ topic: 'b' })
    await vi.waitFor(
      async () =>
        expect((await read(message)).deliveries.map((one) => [one.step, one.type, one.state])).toEqual([
          [0, 'inapp', 'sent'],
          [0, 'telegram', 'failed'],
          [1, 'email', 'sent'],
        ]),
      soon,
    )
    // The address is dead: the next message does not even try it.
    const before = provider.of('telegram').length
    await vi.waitFor(
      async () => expect(await statesOf((await told({ topic: 'c' })).id)).toContainEqual(['telegram', 'suppressed', 'address_invalid']),
      soon,
    )
    expect(provider.of('telegram')).toHaveLength(before)
    const list = (await platform.call('GET', '/api/v1/notifications/suppressions')).json<{ items: { id: string; type: string }[] }>().items
    expect(list).toMatchObject([{ type: 'telegram', address: '****' }])
    expect((await platform.call('DELETE', `/api/v1/notifications/suppressions/${list[0]!.id}`)).status).toBe(204)
    await vi.waitFor(async () => expect(await statesOf((await told({ topic: 'd' })).id)).toContainEqual(['telegram', 'queued', null]), soon)
  })

  it('is closed after five wrong tries', async () => {
    const body = { type: 'email', address: 'other@example.com' }
    // In English the mail is plain ASCII.
    const headers = { 'accept-language': 'en' }
    const { id } = (await platform.call('POST', '/api/v1/notifications/contact-points/me', { body, headers })).json<{ id: string }>()
    const mail = () => mails.mails.find((one) => one.to[0] === 'other@example.com')
    await vi.waitFor(() => expect(mail()).toBeDefined(), soon)
    const code = /(\d{6}) is your code/.exec(mail()!.data)![1]
    const verify = (given: string) =>
      platform.call('POST', `/api/v1/notifications/contact-points/me/${id}/verify`, { body: { code: given } })
    for (let i = 0; i < 5; i++) expect((await verify(String((Number(code) + i + 1) % 1_000_000).padStart(6, '0'))).status).toBe(422)
    expect((await verify(code!)).json()).toMatchObject({ code: 'CODE_INVALID' })
    expect((await platform.call('DELETE', `/api/v1/notifications/contact-points/me/${id}`)).status).toBe(204)
    const bad = await platform.call('POST', '/api/v1/notifications/contact-points/me', { body: { type: 'sms', address: '12' } })
    expect(bad.json()).toMatchObject({ code: 'UNPROCESSABLE' })
  })
})

describe('one person', () => {
  it('gets sixty messages in an hour at most; what is more waits to become one', async () => {
    await setPreferences({ order: { '3': ['email'] } })
    const { id } = await told({ priority: 3 })
    const { context } = platform
    await context.db.withTenant(context.rootTenant, (tx) =>
      tx.execute(sql`update job_rates set hits = array_fill(now(), array[60]) where key = ${`notify/person/${userId}`}`),
    )
    await expectStates(id, [
      ['email', 'sent', null],
      ['inapp', 'sent', null],
    ])
    const more = await read((await told({ priority: 3 })).id)
    expect(more.deliveries.find((one) => one.type === 'email')).toMatchObject({ state: 'queued', heldUntil: expect.any(String) })
  })
})
