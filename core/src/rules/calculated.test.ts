// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

const save = (deviceId: string, more: object) =>
  platform.call('POST', '/api/v1/rules', {
    body: { kind: 'calculated', name: randomUUID(), target: { deviceIds: [deviceId] }, ...more },
  })
const field = async (deviceId: string, more: object) => {
  const answer = await save(deviceId, more)
  expect(answer.status, answer.text).toBe(201)
  await platform.ruleEngine.settled()
}
const send = ({ token }: { token: string }, body: unknown) => platform.call('POST', `/api/v1/${token}/telemetry`, { body, token: null })
const latest = async (id: string, keys: string) => (await platform.call('GET', `/api/v1/devices/${id}/telemetry?keys=${keys}`)).text
const problemsOf = (answer: { json: <T>() => T }) =>
  answer.json<{ errors: { pointer: string; code: string }[] }>().errors.map(({ pointer, code }) => `${pointer} ${code}`)

describe('a calculated field', () => {
  it('is stored at the time of the point it follows from, with attributes in it, and feeds rules and others', async () => {
    const device = await platform.createDevice()
    await platform.call('PATCH', `/api/v1/devices/${device.id}/attributes/server`, { body: { ratio: 40 } })
    await field(device.id, {
      inputs: { p: { key: 'power' }, k: { attr: 'ratio', default: 1 } },
      expr: 'p * k / 1000',
      output: { key: 'powerKw', decimals: 3 },
    })
    await field(device.id, { inputs: { kw: { key: 'powerKw' } }, expr: 'kw * 24', output: { key: 'perDay' } })
    const levels = [{ severity: 'major', when: { left: { key: 'perDay' }, op: 'gt', right: 200 } }]
    await platform.call('POST', '/api/v1/rules', {
      body: { kind: 'alarm', name: randomUUID(), target: { deviceIds: [device.id] }, levels },
    })
    await platform.ruleEngine.settled()
    const ts = Date.now() - 5000
    await send(device, [
      { ts, values: { power: 100 } },
      { ts: ts + 1000, values: { power: 250.55 } },
    ])
    const found = () => latest(device.id, 'powerKw,perDay')
    await expect.poll(found, { timeout: 20_000 }).toContain('240.528')
    expect(await found()).toContain('10.022')
    expect((await found()).split(String(ts + 1000))).toHaveLength(3)
    const alarms = async () => (await platform.call('GET', `/api/v1/alarms?deviceId=${device.id}`)).json<{ items: unknown[] }>().items
    await expect.poll(alarms, { timeout: 20_000 }).toMatchObject([{ startTs: ts + 1000, trigger: { perDay: expect.closeTo(240.528, 6) } }])
  })

  it('writes an attribute when it changes, and nothing where something is unknown', async () => {
    const device = await platform.createDevice()
    const output = { key: 'isHot', type: 'attribute' }
    await field(device.id, { inputs: { t: { key: 't' }, max: { attr: 'max' } }, expr: 't > max', output })
    const attribute = async () => (await platform.call('GET', `/api/v1/devices/${device.id}/attributes/server?keys=isHot`)).text
    await send(device, { t: 9 })
    await platform.call('PATCH', `/api/v1/devices/${device.id}/attributes/server`, { body: { max: 5 } })
    await send(device, { t: 10 })
    await expect.poll(attribute, { timeout: 20_000 }).toContain('true')
    await send(device, { t: 1 })
    await expect.poll(attribute, { timeout: 20_000 }).toContain('false')
  })

  it('is refused with what is wrong with it, and when it would feed itself [8.1]', async () => {
    const device = await platform.createDevice()
    const wrong = await save(device.id, { inputs: { a: { key: 'a' } }, expr: 'a + b', output: { key: 'x' }, trigger: ['c'] })
    expect(problemsOf(wrong)).toEqual(['/trigger identifier_unknown', '/expr identifier_unknown'])
    expect(problemsOf(await save(device.id, { inputs: { a: { key: 'a' } }, expr: 'a +', output: { key: 'x' } }))).toEqual([
      '/expr EXPR_SYNTAX',
    ])
    const link = (from: string, to: string) => ({ inputs: { a: { key: from } }, expr: 'a', output: { key: to } })
    const names = Array.from({ length: 6 }, () => randomUUID())
    expect(problemsOf(await save(device.id, link(names[0]!, names[0]!)))).toEqual(['/output/key RULE_CYCLE'])
    for (let i = 0; i < 4; i++) await field(device.id, link(names[i]!, names[i + 1]!))
    expect(problemsOf(await save(device.id, link(names[3]!, names[0]!)))).toEqual(['/output/key RULE_CYCLE'])
    expect(problemsOf(await save(device.id, link(names[4]!, names[5]!)))).toEqual(['/output/key RULE_DEPTH'])
  })
})
