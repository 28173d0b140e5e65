// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Alarm } from '../alarms/schemas.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import type { RulePreviewed } from './schemas.ts'
import { ruleVectors } from './testing-vectors.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

const preview = (body: object) => platform.call('POST', '/api/v1/rules/preview', { body })
const previewed = async (body: object): Promise<RulePreviewed> => {
  const answer = await preview(body)
  expect(answer.status, answer.text).toBe(200)
  return answer.json<RulePreviewed>()
}
const send = ({ token }: { token: string }, body: unknown) => platform.call('POST', `/api/v1/${token}/telemetry`, { body, token: null })

describe('a preview of points that are sent along', () => {
  it.each(ruleVectors.map((vector) => [vector.id, vector] as const))('gives what was worked out by hand: %s', async (_, vector) => {
    const { rule, points, attributes, attributeChanges, to, episodes, late } = vector
    const answer = await previewed({
      rule,
      from: 0,
      to,
      points,
      ...(attributes ? { attributes } : {}),
      ...(attributeChanges ? { attributeChanges } : {}),
    })
    expect(answer.episodes.map(({ deviceId, ...episode }) => ({ deviceId, episode }))).toEqual(
      episodes.map((episode) => ({ deviceId: null, episode })),
    )
    expect(answer.late).toBe(late)
  })
})

describe('a preview over history', () => {
  const rule = {
    levels: [
      { severity: 'critical', when: { left: { key: 't' }, op: 'gt', right: 90 }, forMs: 3000 },
      {
        severity: 'warning',
        when: {
          all: [
            { left: { key: 't' }, op: 'gt', right: 80, hysteresis: 4 },
            { left: { key: 'door' }, op: 'eq', right: true },
          ],
        },
      },
    ],
    clear: { forMs: 2000 },
  }

  it('gives the episodes that the live rule had, with the same counts [10]', async () => {
    const device = await platform.createDevice()
    const begin = Date.now() - 600_000
    // Known before the time that is looked at.
    await send(device, [{ ts: begin - 1000, values: { t: 50, door: true } }])
    const saved = await platform.call('POST', '/api/v1/rules', {
      body: { kind: 'alarm', name: randomUUID(), target: { deviceIds: [device.id] }, ...rule },
    })
    expect(saved.status).toBe(201)
    await platform.ruleEngine.settled()
    const count = 400
    const points = Array.from({ length: count }, (_, i) => ({
      ts: begin + i * 1000,
      values: i % 50 === 49 ? { door: i % 100 === 99 } : { t: i > count - 10 ? 50 : 75 + 20 * Math.sin(i / 7) + 6 * Math.sin(i * 1.7) },
    }))
    for (let at = 0; at < count; at += 40) await send(device, points.slice(at, at + 40))
    const to = begin + count * 1000
    const answer = await previewed({ rule, from: begin, to, deviceIds: [device.id] })
    expect(answer.episodes.length).toBeGreaterThan(4)
    expect(answer.points).toBe(count)
    const live = async () => {
      const { items } = (await platform.call('GET', `/api/v1/alarms?deviceId=${device.id}&sort=-startTs&limit=500`)).json<{
        items: Alarm[]
      }>()
      return items
        .toReversed()
        .map(({ startTs, confirmedTs, endTs, clearedTs, highestSeverity }) => ({ startTs, confirmedTs, endTs, clearedTs, highestSeverity }))
    }
    const wanted = answer.episodes.map(({ startTs, confirmedTs, endTs, clearedTs, severities }) => ({
      startTs,
      confirmedTs,
      endTs,
      clearedTs,
      highestSeverity: severities.some(({ severity }) => severity === 'critical') ? 'critical' : 'warning',
    }))
    await expect.poll(live, { timeout: 30_000, interval: 200 }).toEqual(wanted)
  })

  it('compares with attributes of the device, and reads windows from before its beginning', async () => {
    const device = await platform.createDevice()
    await platform.call('PATCH', `/api/v1/devices/${device.id}/attributes/server`, { body: { max: 7 } })
    const begin = Date.now() - 100_000
    await send(
      device,
      [6, 6, 9, 9].map((t, i) => ({ ts: begin + i * 10_000, values: { t } })),
    )
    const average = { left: { agg: 'avg', over: 't', windowMs: 30_000 }, op: 'gt', right: { attr: 'max' } }
    const levels = [{ severity: 'minor', when: average }]
    const { episodes } = await previewed({ rule: { levels }, from: begin + 25_000, to: begin + 40_000, deviceIds: [device.id] })
    // (6 + 9 + 9) / 3 = 8 above 7; before, 6.75 was not.
    expect(episodes).toMatchObject([{ deviceId: device.id, startTs: begin + 30_000, endTs: null }])
  })

  it('takes devices that the rule would be for', async () => {
    const tag = randomUUID()
    const device = await platform.createDevice({ tags: [tag] })
    await platform.createDevice()
    const ts = Date.now() - 1000
    await send(device, [{ ts, values: { t: 99 } }])
    const levels = [{ severity: 'minor', when: { left: { key: 't' }, op: 'gt', right: 90 } }]
    const { episodes } = await previewed({ rule: { levels, target: { tags: [tag] } }, from: ts - 1000, to: ts + 1, sample: 5 })
    expect(episodes).toMatchObject([{ deviceId: device.id, startTs: ts }])
  })

  it('is refused for rules that are none, devices that are not there, and more than a month', async () => {
    const levels = [{ severity: 'minor', when: { connection: 'offline' } }]
    const device = await platform.createDevice()
    const codeOf = async (body: object) =>
      (await preview({ rule: { levels }, from: 0, to: 1000, deviceIds: [device.id], ...body })).json()['code']
    expect(await codeOf({ rule: { levels: [] } })).toBe('RULE_INVALID')
    expect(await codeOf({ deviceIds: [randomUUID()] })).toBe('NOT_FOUND')
    expect(await codeOf({ to: 32 * 86_400_000 })).toBe('PREVIEW_TOO_LARGE')
    expect(await codeOf({ deviceIds: ['x'] })).toBe('VALIDATION_FAILED')
  })
})
