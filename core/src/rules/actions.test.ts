// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Alarm } from '../alarms/schemas.ts'
import { connectPatiently } from '../ingest/mqtt/testing.ts'
import { json, startProvider } from '../notifications/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { fillJson, fillText } from './fill-json.ts'
import type { RuleRun, RuleView } from './schemas.ts'

let platform: TestPlatform
let provider: Awaited<ReturnType<typeof startProvider>>
beforeAll(async () => {
  provider = await startProvider()
  platform = await startTestPlatform({ outbound: { policy: 'lan', allow: ['127.0.0.1'] } })
  for (const name of ['hook', 'direct', 'ding']) provider.answer(name, json(200, { errcode: 0 }))
  const channel = await platform.call('POST', '/api/v1/notifications/channels', {
    body: { name: 'hook', type: 'webhook', config: { url: `${provider.url}/hook` } },
  })
  const target = { channelId: channel.json<{ id: string }>().id }
  const routing = {
    route: { receiver: 'ops', groupBy: ['alert'], groupWaitMs: 0, groupIntervalMs: 1000 },
    receivers: [
      { name: 'ops', sendResolved: true, targets: [target] },
      { name: 'chief', targets: [target] },
    ],
  }
  await platform.call('PUT', '/api/v1/notifications/routing', { body: routing })
})
afterAll(async () => {
  await platform.close()
  await provider.close()
})

const hot = { left: { key: 't' }, op: 'gt', right: 5 }
async function rule(deviceId: string, actions: readonly object[], more: object = {}): Promise<RuleView> {
  const document = {
    kind: 'alarm',
    name: randomUUID(),
    target: { deviceIds: [deviceId] },
    levels: [{ severity: 'major', when: hot }],
    actions,
    ...more,
  }
  const answer = await platform.call('POST', '/api/v1/rules', { body: document })
  expect(answer.status, answer.text).toBe(201)
  await platform.ruleEngine.settled()
  return answer.json<RuleView>()
}
const send = ({ token }: { token: string }, body: unknown) => platform.call('POST', `/api/v1/${token}/telemetry`, { body, token: null })
const runs = async (id: string) => (await platform.call('GET', `/api/v1/rules/${id}/runs`)).json<{ items: RuleRun[] }>().items
const patiently = { timeout: 40_000, interval: 100 }
const told = (name: string, about: string) => provider.of(name).filter(({ body }) => body.includes(about))
const alarmOf = async (deviceId: string) =>
  (await platform.call('GET', `/api/v1/alarms?deviceId=${deviceId}`)).json<{ items: Alarm[] }>().items[0]!

describe('an alarm', () => {
  it('is told once when it is raised and once when it is over, by the routing tree', async () => {
    const device = await platform.createDevice()
    const { id } = await rule(device.id, [{ type: 'notify', on: ['raised', 'cleared'] }])
    await send(device, { t: 9 })
    await expect.poll(() => told('hook', device.name), patiently).toHaveLength(1)
    expect(JSON.parse(told('hook', device.name)[0]!.body)).toMatchObject({
      data: { alerts: [{ status: 'firing', labels: { rule_id: id } }] },
    })
    await send(device, { t: 1 })
    await expect.poll(() => told('hook', device.name), patiently).toHaveLength(2)
    expect(JSON.parse(told('hook', device.name)[1]!.body)).toMatchObject({ data: { alerts: [{ status: 'resolved' }] } })
    expect(await runs(id)).toMatchObject([
      { type: 'notify', outcome: 'done' },
      { type: 'notify', outcome: 'done' },
    ])
    const { id: alarmId } = await alarmOf(device.id)
    const timeline = (await platform.call('GET', `/api/v1/alarms/${alarmId}/events`)).json<{ items: { kind: string }[] }>().items
    expect(timeline.map(({ kind }) => kind).toSorted()).toEqual(['cleared', 'notified', 'notified', 'raised'])
  })

  it('of another system is told by the routing tree too, and its end by a person', async () => {
    const device = await platform.createDevice()
    const body = { deviceId: device.id, type: 'Door', severity: 'major', title: 'open' }
    const { id } = (await platform.call('POST', '/api/v1/alarms', { body })).json<Alarm>()
    await expect.poll(() => told('hook', device.name), patiently).toHaveLength(1)
    await platform.call('POST', `/api/v1/alarms/${id}/clear`, { body: {} })
    await expect.poll(() => told('hook', device.name), patiently).toHaveLength(2)
  })

  it('goes to named receivers, for its severity only, and not before its time', async () => {
    const device = await platform.createDevice()
    const { id } = await rule(device.id, [
      { type: 'notify', on: ['raised'], receivers: ['chief'], severities: ['major'] },
      { type: 'notify', on: ['raised'], receivers: ['chief'], severities: ['critical'] },
      { type: 'notify', on: ['raised'], receivers: ['chief'], afterMs: 3_600_000 },
    ])
    await send(device, { t: 9 })
    await expect.poll(() => told('hook', device.name), patiently).toHaveLength(1)
    expect(await runs(id)).toHaveLength(1)
  })

  it('sends a command to its device and writes attributes, filled from the event', async () => {
    const device = await platform.createDevice()
    const client = await connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, { username: device.token })
    const commands: unknown[] = []
    client.on('message', (_, payload) => commands.push(JSON.parse(payload.toString())))
    await client.subscribeAsync('v1/devices/me/rpc/request/+')
    const { id } = await rule(device.id, [
      { type: 'command', on: ['raised'], method: 'fan', params: { on: true, at: '{{values.t}}', why: 'over {{alarm.severity}}' } },
      { type: 'attributes', on: ['raised'], scope: 'server', values: { lastHot: '{{values.t}}' } },
    ])
    await send(device, { t: 9.5 })
    await expect.poll(() => commands, patiently).toEqual([{ method: 'fan', params: { on: true, at: 9.5, why: 'over major' } }])
    const attributes = async () => (await platform.call('GET', `/api/v1/devices/${device.id}/attributes/server?keys=lastHot`)).text
    await expect.poll(attributes, patiently).toContain('9.5')
    await expect.poll(() => runs(id), patiently).toMatchObject([{ outcome: 'done' }, { outcome: 'done' }])
    await client.endAsync()
  })

  it('calls an address, again after an answer that may change, and not after one that will not', async () => {
    const device = await platform.createDevice()
    provider.answer('broken', (_, response) => void response.writeHead(400).end())
    const { id } = await rule(device.id, [
      {
        type: 'webhook',
        on: ['raised'],
        url: `${provider.url}/direct/{{device.name}}`,
        body: { t: '{{values.t}}' },
        headers: { 'x-a': 'b' },
      },
      { type: 'webhook', on: ['raised'], url: `${provider.url}/broken`, body: { device: '{{device.name}}' } },
    ])
    await send(device, { t: 7 })
    await expect.poll(() => provider.of(`direct/${device.name}`), patiently).toMatchObject([{ body: '{"t":7}', headers: { 'x-a': 'b' } }])
    await expect.poll(() => runs(id), patiently).toHaveLength(2)
    expect(await runs(id)).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ outcome: 'done', detail: null }),
        expect.objectContaining({ outcome: 'failed', detail: 'the answer was 400' }),
      ]),
    )
  })

  it('of long ago is told as late and does nothing else, unless its rule says so [7.1]', async () => {
    const device = await platform.createDevice()
    const { id } = await rule(device.id, [
      { type: 'notify', on: ['raised'], receivers: ['chief'] },
      { type: 'webhook', on: ['raised'], url: `${provider.url}/direct/late` },
    ])
    await send(device, [{ ts: Date.now() - 7_200_000, values: { t: 9 } }])
    await expect.poll(() => runs(id), patiently).toMatchObject([{ type: 'notify', outcome: 'done' }])
    expect(provider.of('direct/late')).toEqual([])
  })

  it('does no more than thirty things at one device within an hour [7.1]', async () => {
    const device = await platform.createDevice()
    const { id } = await rule(device.id, [{ type: 'attributes', on: ['raised'], scope: 'server', values: { n: '{{values.t}}' } }])
    const { db, rootTenant } = platform.context
    await send(device, { t: 9 })
    await expect.poll(() => runs(id), patiently).toHaveLength(1)
    await db.withTenant(rootTenant, (tx) =>
      tx.execute(sql`insert into rule_runs (tenant_id, key, id, rule_id, alarm_id, device_id, type, outcome, at)
        select tenant_id, key || n, gen_random_uuid(), rule_id, alarm_id, device_id, type, outcome, now() from rule_runs, generate_series(1, 29) n where rule_id = ${id}`),
    )
    await send(device, { t: 1 })
    await send(device, { t: 9 })
    await expect.poll(async () => (await runs(id)).filter(({ outcome }) => outcome === 'suppressed'), patiently).toHaveLength(1)
  })
})

describe('an action that cannot be', () => {
  it('is refused with its place when the rule is saved [12]', async () => {
    const device = await platform.createDevice()
    const unknown = randomUUID()
    const answer = await platform.call('POST', '/api/v1/rules', {
      body: {
        kind: 'alarm',
        name: 'wrong',
        target: { deviceIds: [device.id] },
        levels: [{ severity: 'major', when: hot }],
        actions: [
          { type: 'dance', on: ['raised'] },
          { type: 'webhook', on: ['raised'], url: 'ftp://a' },
          { type: 'webhook', on: ['raised'] },
          { type: 'command', on: ['never'], method: 'm', x: 1 },
        ],
      },
    })
    const problems = answer.json<{ errors: { pointer: string; code: string }[] }>().errors.map(({ pointer, code }) => `${pointer} ${code}`)
    expect(problems).toEqual(
      expect.arrayContaining([
        '/actions/0/type action_unknown',
        '/actions/1/url OUTBOUND_URL_BLOCKED',
        '/actions/2 webhook_address',
        '/actions/3/x unknown_property',
        '/actions/3/on/0 invalid',
      ]),
    )
    const lost = await platform.call('POST', '/api/v1/rules', {
      body: {
        kind: 'alarm',
        name: 'lost',
        target: { deviceIds: [device.id] },
        levels: [{ severity: 'major', when: hot }],
        actions: [
          { type: 'notify', on: ['raised'], receivers: ['nobody'] },
          { type: 'webhook', on: ['raised'], channelId: unknown },
          { type: 'command', on: ['raised'], method: 'm', target: unknown },
        ],
      },
    })
    expect(lost.json<{ errors: { code: string }[] }>().errors.map(({ code }) => code)).toEqual(Array(3).fill('reference_unknown'))
  })
})

describe('a template of JSON', () => {
  it('keeps the type of a value that stands alone, and puts others in as text', () => {
    const event = { values: { t: 9.5, 'a.b': true, list: [1], none: null }, device: { name: 'x y' } }
    expect(
      fillJson({ t: '{{values.t}}', b: ['{{ values.a.b }}'], s: '{{values.t}} °C', n: '{{values.none}}', m: '{{no.such}}', k: 1 }, event),
    ).toEqual({
      t: 9.5,
      b: [true],
      s: '9.5 °C',
      n: null,
      m: null,
      k: 1,
    })
    expect(fillText('http://a/{{device.name}}?l={{values.list}}', event, encodeURIComponent)).toBe('http://a/x%20y?l=%5B1%5D')
    expect(fillText('{{constructor.name}}{{__proto__}}', event)).toBe('')
  })
})
