// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform, testAdmin } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { Alarms } from './alarms.ts'
import type { Alarm } from './schemas.ts'

let platform: TestPlatform
let device: { id: string; name: string }
let viewer: string
let operator: string
beforeAll(async () => {
  platform = await startTestPlatform()
  device = await platform.createDevice()
  viewer = await platform.login('viewer')
  operator = await platform.login('operator')
})
afterAll(() => platform.close())

const raise = (more: object = {}, token = operator) =>
  platform.call('POST', '/api/v1/alarms', {
    body: { deviceId: device.id, type: randomUUID(), severity: 'major', title: 'Too warm', ...more },
    token,
  })
const raised = async (more: object = {}) => {
  const answer = await raise(more)
  expect(answer.status).toBe(201)
  return answer.json<Alarm>()
}
const act = (id: string, action: string, body: object = {}, token = operator) =>
  platform.call('POST', `/api/v1/alarms/${id}/${action}`, { body, token })
const timeline = async (id: string) => {
  const answer = await platform.call('GET', `/api/v1/alarms/${id}/events`, { token: viewer })
  // What follows from an alarm comes into its timeline by itself, some time.
  const { items } = answer.json<{ items: { id: string; kind: string; actor: string; data: object }[] }>()
  return items.filter(({ kind }) => kind !== 'notified')
}
const list = async (query: string) =>
  (await platform.call('GET', `/api/v1/alarms?${query}`, { token: viewer })).json<{
    items: Alarm[]
    nextCursor: string | null
    total?: number
  }>()

describe('an alarm raised over the API', () => {
  it('is active and not acknowledged, and can be read by viewers', async () => {
    const alarm = await raised({ type: 'Door', instance: '1', labels: { team: 'cold' }, startTs: 1_700_000_000_000 })
    expect(alarm).toMatchObject({
      deviceName: device.name,
      source: 'api',
      type: 'Door',
      instance: '1',
      severity: 'major',
      status: 'active',
      acked: false,
      startTs: 1_700_000_000_000,
      labels: { team: 'cold' },
    })
    const read = await platform.call('GET', `/api/v1/alarms/${alarm.id}`, { token: viewer })
    // That it was told of is an event of its own.
    expect(read.json()).toEqual({ ...alarm, lastEventAt: expect.any(String) })
  })

  it('is the open one of its device, type and instance as long as that is open', async () => {
    const type = randomUUID()
    const first = await raised({ type })
    const again = await raise({ type, severity: 'critical', title: 'Hot' })
    expect(again.status).toBe(200)
    expect(again.json()).toMatchObject({ id: first.id, severity: 'critical', highestSeverity: 'critical', title: 'Hot' })
    const lower = (await raise({ type, severity: 'minor' })).json()
    expect(lower).toMatchObject({ severity: 'minor', highestSeverity: 'critical' })
    expect((await raised({ type, instance: '2' })).id).not.toBe(first.id)
    await act(first.id, 'clear')
    expect((await raised({ type })).id).not.toBe(first.id)
    expect((await timeline(first.id)).map(({ kind }) => kind)).toEqual(['raised', 'severity_changed', 'severity_changed', 'cleared'])
  })

  it('is one row, however many raise it at once', async () => {
    const type = randomUUID()
    const answers = await Promise.all(Array.from({ length: 8 }, () => raise({ type })))
    expect(answers.map(({ status }) => status).filter((status) => status === 201)).toHaveLength(1)
    expect(new Set(answers.map((answer) => answer.json<Alarm>().id)).size).toBe(1)
  })

  it('needs a device that is there, and a person who may', async () => {
    expect((await raise({ deviceId: randomUUID() })).status).toBe(404)
    expect((await raise({}, viewer)).status).toBe(403)
    expect((await raise({ severity: 'fatal' })).status).toBe(400)
  })
})

describe('people and an alarm', () => {
  it('the first acknowledgement counts, also of two at once; taking it back opens it again', async () => {
    const { id } = await raised()
    const [one, other] = await Promise.all([act(id, 'ack', { comment: 'on my way' }), act(id, 'ack', {}, platform.token)])
    expect(one.json<Alarm>().ackedBy).toBe(other.json<Alarm>().ackedBy)
    expect((await timeline(id)).filter(({ kind }) => kind === 'acked')).toHaveLength(1)
    expect((await act(id, 'unack')).json()).toMatchObject({ acked: false, ackedAt: null, ackedBy: null })
    expect((await timeline(id)).map(({ kind }) => kind)).toEqual(['raised', 'acked', 'unacked'])
  })

  it('clearing by hand ends it once, with reason, person and comment in its timeline', async () => {
    const { id } = await raised()
    const cleared = (await act(id, 'clear', { comment: 'door was shut' })).json<Alarm>()
    expect(cleared).toMatchObject({ status: 'cleared', clearReason: 'manual', endTs: cleared.clearedTs })
    expect((await act(id, 'clear')).json()).toEqual({ ...cleared, lastEventAt: expect.any(String) })
    expect((await timeline(id)).at(-1)).toMatchObject({ kind: 'cleared', data: { reason: 'manual', comment: 'door was shut' } })
  })

  it('is deleted by administrators only, and only once it is cleared', async () => {
    const { id } = await raised()
    const remove = (token: string) => platform.call('DELETE', `/api/v1/alarms/${id}`, { token })
    expect((await remove(operator)).status).toBe(403)
    const refused = await remove(platform.token)
    expect([refused.status, refused.json()['code']]).toEqual([409, 'ALARM_OPEN'])
    await act(id, 'clear')
    expect((await remove(platform.token)).status).toBe(204)
    expect((await platform.call('GET', `/api/v1/alarms/${id}`, { token: viewer })).status).toBe(404)
  })

  it('is assigned to who sees the device, and to nobody again', async () => {
    const { id } = await raised()
    const { items } = (await platform.call('GET', '/api/v1/users')).json<{ items: { id: string; name: string }[] }>()
    const user = items[0]!
    expect((await act(id, 'assign', { assigneeId: user.id })).json()).toMatchObject({ assigneeId: user.id, assigneeName: user.name })
    expect((await list(`assigneeId=${user.id}`)).items.map((alarm) => alarm.id)).toEqual([id])
    const refused = await act(id, 'assign', { assigneeId: randomUUID() })
    expect([refused.status, refused.json()['code']]).toEqual([422, 'ASSIGNEE_NO_ACCESS'])
    expect((await act(id, 'assign')).json()).toMatchObject({ assigneeId: null, assigneeName: null })
    expect((await timeline(id)).map(({ kind }) => kind)).toEqual(['raised', 'assigned', 'unassigned'])
  })

  it('comments are mended by their author for 15 minutes', async () => {
    const { id } = await raised()
    await act(id, 'comments', { comment: 'frist' })
    const event = (await timeline(id)).at(-1)!
    const mend = (token: string, comment = 'first') =>
      platform.call('PATCH', `/api/v1/alarms/${id}/comments/${event.id}`, { body: { comment }, token })
    expect((await mend(platform.token)).status).toBe(404)
    expect((await mend(operator)).status).toBe(200)
    expect((await timeline(id)).at(-1)).toMatchObject({ kind: 'comment', data: { comment: 'first' } })
    const { db, rootTenant } = platform.context
    await db.withTenant(rootTenant, (tx) =>
      tx.execute(sql`update alarm_events set at = now() - interval '16 minutes' where id = ${event.id}`),
    )
    const late = await mend(operator)
    expect([late.status, late.json()['code']]).toEqual([409, 'COMMENT_CLOSED'])
  })

  it('many are changed at once, each for itself; deleting needs its own permission', async () => {
    const [one, other] = [await raised(), await raised()]
    await act(other.id, 'clear')
    const ids = [one.id, other.id, randomUUID()]
    const bulk = (action: string, token = operator) => platform.call('POST', '/api/v1/alarms/bulk', { body: { ids, action }, token })
    expect((await bulk('ack')).json()).toEqual({
      items: [
        { id: ids[0], ok: true, code: null },
        { id: ids[1], ok: true, code: null },
        { id: ids[2], ok: false, code: 'NOT_FOUND' },
      ],
    })
    expect((await bulk('delete')).status).toBe(403)
    const deleted = (await bulk('delete', platform.token)).json<{ items: { code: string | null }[] }>()
    expect(deleted.items.map(({ code }) => code)).toEqual(['ALARM_OPEN', null, 'NOT_FOUND'])
  })
})

describe('the list of alarms', () => {
  it('has what waits for somebody first, and pages through everything once', async () => {
    const own = await platform.createDevice()
    const make = (startTs: number) => raised({ deviceId: own.id, startTs })
    const [old, acked, cleared, fresh] = [await make(1000), await make(4000), await make(5000), await make(2000)]
    await act(acked.id, 'ack')
    await act(cleared.id, 'clear')
    const seen: string[] = []
    let cursor: string | null = null
    do {
      const page = await list(`deviceId=${own.id}&limit=1${cursor ? `&cursor=${cursor}` : ''}`)
      seen.push(...page.items.map(({ id }) => id))
      cursor = page.nextCursor
    } while (cursor)
    expect(seen).toEqual([fresh.id, old.id, acked.id, cleared.id])
    const latest = await list(`deviceId=${own.id}&sort=-startTs&count=exact`)
    expect(latest.items.map(({ id }) => id)).toEqual([cleared.id, acked.id, fresh.id, old.id])
    expect(latest.total).toBe(4)
  })

  it('is filtered by status, acknowledgement, severity, type, time and text', async () => {
    const own = await platform.createDevice()
    const one = await raised({ deviceId: own.id, type: 'a 100%', severity: 'critical', title: 'Pump', startTs: 1000 })
    const other = await raised({ deviceId: own.id, type: 'b', severity: 'warning', title: 'Fan', startTs: 2000 })
    await act(other.id, 'ack')
    await act(other.id, 'clear')
    const find = async (query: string) => (await list(`deviceId=${own.id}&${query}`)).items.map(({ id }) => id)
    for (const query of [
      'status=active',
      'acked=false',
      'severity=critical',
      `type=${encodeURIComponent('a 100%')}`,
      'to=2000',
      'q=pum',
      'q=100%25',
    ]) {
      expect(await find(query), query).toEqual([one.id])
    }
    for (const query of ['status=cleared', 'acked=true', 'severity=warning', 'from=2000', 'q=FAN']) {
      expect(await find(query), query).toEqual([other.id])
    }
  })

  it('is counted by severity, with the highest that is active at each device', async () => {
    const own = await platform.createDevice()
    await raised({ deviceId: own.id, severity: 'minor' })
    await raised({ deviceId: own.id, severity: 'critical' })
    const answer = await platform.call('GET', `/api/v1/alarms/summary?deviceIds=${own.id},${randomUUID()},x`, { token: viewer })
    const summary = answer.json<{ bySeverity: Record<string, { active: number }>; devices: object }>()
    expect(summary.devices).toEqual({ [own.id]: 'critical' })
    expect(summary.bySeverity['minor']!.active).toBeGreaterThanOrEqual(1)
  })

  it('has nothing of a device in the bin, until that comes back', async () => {
    const own = await platform.createDevice()
    const alarm = await raised({ deviceId: own.id })
    await platform.call('DELETE', `/api/v1/devices/${own.id}`)
    expect((await platform.call('GET', `/api/v1/alarms/${alarm.id}`, { token: viewer })).status).toBe(404)
    expect((await list(`deviceId=${own.id}`)).items).toEqual([])
  })

  it('shows a customer the alarms of its own devices only, timeline included', async () => {
    const { db, rootTenant } = platform.context
    const id = randomUUID()
    const email = `${id}@example.com`
    await platform.call('POST', '/api/v1/users', { body: { name: 'customer', email, role: 'viewer', password: testAdmin.password } })
    const own = await platform.createDevice()
    await db.withTenant(rootTenant, async (tx) => {
      await tx.execute(
        sql`insert into customers (tenant_id, id, path, name) values (${rootTenant.tenantId}, ${id}, array[${id}::uuid], 'customer')`,
      )
      await tx.execute(sql`update users set customer_id = ${id} where email = ${email}`)
      await tx.execute(sql`update devices set customer_id = ${id} where id = ${own.id}`)
    })
    const login = await platform.call('POST', '/api/v1/auth/login', { body: { email, password: testAdmin.password }, token: null })
    const { accessToken: token } = login.json<{ accessToken: string }>()
    const [mine, foreign] = [await raised({ deviceId: own.id }), await raised()]
    const seen = (await platform.call('GET', '/api/v1/alarms', { token })).json<{ items: Alarm[] }>()
    expect(seen.items.map((alarm) => alarm.id)).toEqual([mine.id])
    const events = await platform.call('GET', `/api/v1/alarms/${mine.id}/events`, { token })
    expect(events.json<{ items: { kind: string }[] }>().items[0]).toMatchObject({ kind: 'raised' })
    expect((await platform.call('GET', `/api/v1/alarms/${foreign.id}/events`, { token })).status).toBe(404)
  })
})

describe('cleared alarms', () => {
  it('are removed once they are older than they are kept, and open ones never', async () => {
    const { db, rootTenant, config } = platform.context
    const [old, fresh, open] = [await raised(), await raised(), await raised({ startTs: 1 })]
    await act(old.id, 'clear')
    await act(fresh.id, 'clear')
    const long = Date.now() - (config.alarmRetentionDays + 1) * 86_400_000
    await db.withTenant(rootTenant, (tx) => tx.execute(sql`update alarms set cleared_ts = ${long}::int8 where id = ${old.id}`))
    await new Alarms(platform.context).removeOld(rootTenant)
    const status = async (id: string) => (await platform.call('GET', `/api/v1/alarms/${id}`, { token: viewer })).status
    expect([await status(old.id), await status(fresh.id), await status(open.id)]).toEqual([404, 200, 200])
  })
})

describe('listeners in this process', () => {
  it('hear of every change once it is committed', async () => {
    const heard: string[] = []
    const stop = platform.context.events.on('alarm.changed', ({ kind, alarm }) => heard.push(`${kind} ${alarm.severity}`))
    const { id } = await raised()
    await act(id, 'ack')
    await act(id, 'ack')
    await act(id, 'clear')
    stop()
    expect(heard).toEqual(['raised major', 'acked major', 'cleared major'])
  })
})
