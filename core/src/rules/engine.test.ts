// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Alarm } from '../alarms/schemas.ts'
import { connectPatiently } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import type { RuleView } from './schemas.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

const hot = { left: { key: 't' }, op: 'gt', right: 5 }
const cleared = { headers: { 'if-match': '*' } }
/** A rule in force at these devices. */
async function rule(deviceIds: readonly string[], more: object = {}): Promise<RuleView> {
  const document = { kind: 'alarm', name: randomUUID(), target: { deviceIds }, levels: [{ severity: 'major', when: hot }], ...more }
  const answer = await platform.call('POST', '/api/v1/rules', { body: document })
  expect(answer.status, answer.text).toBe(201)
  await platform.ruleEngine.settled()
  return answer.json<RuleView>()
}
const change = async (id: string, patch: object) => {
  const answer = await platform.call('PATCH', `/api/v1/rules/${id}`, { body: patch, ...cleared })
  expect(answer.status, answer.text).toBe(200)
  await platform.ruleEngine.settled()
}
const send = async ({ token }: { token: string }, body: unknown) => {
  const answer = await platform.call('POST', `/api/v1/${token}/telemetry`, { body, token: null })
  expect(answer.status).toBe(200)
}
const alarmsOf = async (deviceId: string) =>
  (await platform.call('GET', `/api/v1/alarms?deviceId=${deviceId}&sort=-startTs`)).json<{ items: Alarm[] }>().items
/** Waits until the device's alarms look like this, the latest first. */
const expectAlarms = (deviceId: string, wanted: readonly Partial<Alarm>[]) =>
  expect.poll(() => alarmsOf(deviceId), { timeout: 20_000, interval: 50 }).toMatchObject(wanted)
const timeline = async (id: string) =>
  (await platform.call('GET', `/api/v1/alarms/${id}/events`)).json<{ items: { kind: string; data: object }[] }>().items

describe('telemetry that breaks a rule', () => {
  it('raises an alarm soon after its commit, over MQTT, and ends it', async () => {
    const device = await platform.createDevice()
    const title = { zh: '{{ device.name }} {{ value }} 超过 {{ threshold }}' }
    const { id, name } = await rule([device.id], { title, labels: { team: 'cold' } })
    const client = await connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, { username: device.token })
    const told: string[] = []
    const stop = platform.context.events.on('alarm.changed', ({ kind, alarm }) => void (alarm.ruleId === id && told.push(kind)))
    const ts = Date.now() - 1000
    await client.publishAsync('v1/devices/me/telemetry', JSON.stringify({ ts, values: { t: 8.5 } }), { qos: 1 })
    await expectAlarms(device.id, [{ status: 'active', severity: 'major', ruleId: id, ruleVersion: 1, type: name, startTs: ts }])
    const [alarm] = await alarmsOf(device.id)
    expect(alarm).toMatchObject({ title: `${device.name} 8.5 超过 5`, labels: { team: 'cold' }, trigger: { t: 8.5 }, source: 'rule' })
    await client.publishAsync('v1/devices/me/telemetry', JSON.stringify({ ts: ts + 500, values: { t: 1 } }), { qos: 1 })
    await expectAlarms(device.id, [{ status: 'cleared', clearReason: 'condition', endTs: ts + 500 }])
    expect((await timeline(alarm!.id)).map(({ kind }) => kind)).toEqual(['raised', 'cleared'])
    expect(told).toEqual(['raised', 'cleared'])
    stop()
    await client.endAsync()
  })

  it('is judged by its own time: what a device had kept opens and ends its alarm in one go', async () => {
    const device = await platform.createDevice()
    const levels = [
      { severity: 'critical', when: { ...hot, right: 90 } },
      { severity: 'warning', when: { ...hot, right: 80 } },
    ]
    await rule([device.id], { levels, clear: { forMs: 120_000 } })
    const start = Date.now() - 3_600_000
    const points: [number, number][] = [
      [0, 85],
      [60, 95],
      [120, 88],
      [180, 88],
      [360, 70],
      [420, 70],
      [500, 70],
    ]
    await send(
      device,
      points.map(([s, t]) => ({ ts: start + s * 1000, values: { t } })),
    )
    await expectAlarms(device.id, [
      {
        status: 'cleared',
        severity: 'warning',
        highestSeverity: 'critical',
        startTs: start,
        endTs: start + 360_000,
        clearedTs: start + 480_000,
      },
    ])
    const [alarm] = await alarmsOf(device.id)
    const told = await timeline(alarm!.id)
    expect(told.map(({ kind }) => kind)).toEqual(['raised', 'severity_changed', 'severity_changed', 'cleared'])
    // More than a quarter of an hour after it was so: told as late.
    expect(told[0]).toMatchObject({ data: { late: true } })
    // A point that is older than the newest of its key changes nothing.
    await send(device, [{ ts: start + 490_000, values: { t: 99 } }])
    await send(device, [{ ts: start + 510_000, values: { t: 99 } }])
    await expectAlarms(device.id, [{ startTs: start + 510_000 }, { startTs: start }])
  })

  it('confirms a dwell without a further point', async () => {
    const device = await platform.createDevice()
    await rule([device.id], { levels: [{ severity: 'major', when: hot, forMs: 600 }] })
    const ts = Date.now()
    await send(device, [{ ts, values: { t: 9 } }])
    await expectAlarms(device.id, [{ startTs: ts, confirmedTs: ts + 600 }])
  })

  it('concerns only devices a rule is for, from the moment they are', async () => {
    const [one, other] = [await platform.createDevice({ tags: [] }), await platform.createDevice({ tags: [] })]
    const tag = randomUUID()
    const saved = await rule([], { target: { tags: [tag] } })
    for (const device of [one, other]) await send(device, { t: 9 })
    await platform.call('PATCH', `/api/v1/devices/${one.id}`, { body: { tags: [tag] } })
    await expectAlarms(one.id, [{ status: 'active', ruleId: saved.id }])
    expect(await alarmsOf(other.id)).toEqual([])
    await platform.call('PATCH', `/api/v1/devices/${one.id}`, { body: { tags: [] } })
    await expectAlarms(one.id, [{ status: 'cleared', clearReason: 'out_of_scope' }])
  })

  it('is judged from what is stored when more comes in than waits in memory', async () => {
    const device = await platform.createDevice()
    await rule([device.id])
    const { live } = platform.ruleEngine
    const before = live.overflowCount
    live.hold()
    const ts = Date.now() - 10_000
    await send(device, [{ ts, values: { t: 9 } }])
    const filler = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`k${i}`, i]))
    for (let i = 0; live.overflowCount === before && i < 60; i++) {
      await send(
        device,
        Array.from({ length: 20 }, (_, n) => ({ ts: ts + 1 + 20 * i + n, values: filler })),
      )
    }
    expect(live.overflowCount).toBe(before + 1)
    await expectAlarms(device.id, [{ status: 'active', startTs: ts }])
    await send(device, { t: 1 })
    await expectAlarms(device.id, [{ status: 'cleared' }])
  })

  it('is compared with an attribute of the device, which may change', async () => {
    const device = await platform.createDevice()
    const patch = (max: number) => platform.call('PATCH', `/api/v1/devices/${device.id}/attributes/server`, { body: { max } })
    await patch(10)
    await rule([device.id], { levels: [{ severity: 'minor', when: { ...hot, right: { attr: 'max' } } }] })
    await send(device, { t: 9 })
    await patch(8)
    await expectAlarms(device.id, [{ status: 'active', severity: 'minor' }])
    await patch(10)
    await expectAlarms(device.id, [{ status: 'cleared' }])
  })
})

describe('a device', () => {
  it('that goes raises the alarm of a rule on its connection, and its return ends it', async () => {
    const device = await platform.createDevice()
    const connect = () => connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, { username: device.token })
    const client = await connect()
    await rule([device.id], { levels: [{ severity: 'critical', when: { connection: 'offline', forMs: 300 } }] })
    await client.endAsync()
    await expectAlarms(device.id, [{ status: 'active', severity: 'critical' }])
    const again = await connect()
    await expectAlarms(device.id, [{ status: 'cleared' }])
    await again.endAsync()
  })

  it('that is deleted has no alarm that stays open', async () => {
    const device = await platform.createDevice()
    const { id } = await rule([device.id])
    await send(device, { t: 9 })
    await expectAlarms(device.id, [{ status: 'active' }])
    const [alarm] = await alarmsOf(device.id)
    await platform.call('DELETE', `/api/v1/devices/${device.id}`)
    await platform.ruleEngine.settled()
    await platform.ruleEngine.journal.flush()
    await platform.call('POST', '/api/v1/bin/restore', { body: { ids: [device.id] } })
    await expectAlarms(device.id, [
      { status: 'active', ruleId: id },
      { id: alarm!.id, clearReason: 'device_deleted' },
    ])
  })
})

describe('people', () => {
  it('clear an alarm until its condition was once not true [6.2]', async () => {
    const device = await platform.createDevice()
    await rule([device.id])
    await send(device, { t: 9 })
    await expectAlarms(device.id, [{ status: 'active' }])
    const [alarm] = await alarmsOf(device.id)
    await platform.call('POST', `/api/v1/alarms/${alarm!.id}/clear`, { body: {} })
    await send(device, { t: 10 })
    await send(device, { t: 1 })
    await send(device, { t: 11 })
    await expectAlarms(device.id, [
      { status: 'active', trigger: { t: 11 } },
      { id: alarm!.id, clearReason: 'manual' },
    ])
  })

  it('change a rule: what is not true any more is cleared, what is stays, and a rule that is switched off clears', async () => {
    const device = await platform.createDevice()
    const { id } = await rule([device.id])
    await send(device, { t: 9 })
    await expectAlarms(device.id, [{ status: 'active', severity: 'major' }])
    const [alarm] = await alarmsOf(device.id)
    await change(id, { levels: [{ severity: 'critical', when: { ...hot, right: 7 } }] })
    await expectAlarms(device.id, [{ id: alarm!.id, status: 'active', severity: 'critical' }])
    await change(id, { levels: [{ severity: 'critical', when: { ...hot, right: 20 } }] })
    await expectAlarms(device.id, [{ id: alarm!.id, status: 'cleared', clearReason: 'rule_changed' }])
    await change(id, { levels: [{ severity: 'minor', when: hot }] })
    await expectAlarms(device.id, [{ status: 'active', severity: 'minor' }, { id: alarm!.id }])
    await change(id, { mode: 'off' })
    await expectAlarms(device.id, [{ clearReason: 'rule_disabled' }, { id: alarm!.id }])
    await change(id, { mode: 'on' })
    await expectAlarms(device.id, [{ status: 'active' }, {}, { id: alarm!.id }])
    await platform.call('DELETE', `/api/v1/rules/${id}`, cleared)
    await expectAlarms(device.id, [{ clearReason: 'rule_deleted' }, {}, { id: alarm!.id }])
  })

  it('try a rule: what it would have told is kept, and nobody is alarmed [10]', async () => {
    const device = await platform.createDevice()
    const { id } = await rule([device.id], { mode: 'dryRun' })
    await send(device, { t: 9 })
    const trials = async () =>
      (await platform.call('GET', `/api/v1/rules/${id}/dry-runs`)).json<{ items: { kind: string; deviceId: string }[] }>().items
    await expect.poll(trials, { timeout: 20_000 }).toMatchObject([{ kind: 'raised', deviceId: device.id }])
    expect(await alarmsOf(device.id)).toEqual([])
    await change(id, { mode: 'on' })
    await expectAlarms(device.id, [{ status: 'active' }])
  })
})

it('rules are seen in the metrics', async () => {
  const text = await platform.metrics.metrics()
  expect(Number(/^iot_pms_rule_evaluations_total (\d+)$/m.exec(text)?.[1])).toBeGreaterThan(10)
  expect(text).toMatch(/^iot_pms_rule_late_points_total 1$/m)
})
