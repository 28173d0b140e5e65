// SPDX-License-Identifier: AGPL-3.0-only
import { afterEach, describe, expect, it } from 'vitest'
import { defaultSettings } from '../../products/settings.ts'
import { findOwnTopic } from './own-topics.ts'
import { startEndpoint } from './testing.ts'
import type { Bench } from './testing.ts'

let bench: Bench
afterEach(() => bench?.stop())

const transport = (telemetryTopics: string[], attributesTopics: string[] = []) => ({
  telemetryTopics,
  attributesTopics,
  attributesPushTopic: null,
})

describe('a filter of a product', () => {
  it.each([
    ['sensors/+/data', 'sensors/a/data', true],
    ['sensors/+/data', 'sensors/a/b/data', false],
    ['sensors/+/data', 'sensors//data', true],
    ['sensors/#', 'sensors/a/b', true],
    ['sensors/#', 'sensors', true],
    ['sensors/#', 'sensor', false],
    ['sensors/+', 'sensors', false],
    ['sensors/+', 'sensors/', true],
    ['+', 'sensors', true],
    ['#', 'any/thing', true],
    ['#', '$SYS/x', false],
    ['#', 'v1/devices/me/other', false],
    ['+/a/req/p/1', 'v2/a/req/p/1', false],
    ['#', '/provision/request', false],
    ['plain', 'plain', true],
    ['plain', 'plain/x', false],
  ])('%s and the topic %s: %s [A-7]', (filter, topic, isFound) => {
    expect(findOwnTopic(transport([filter]), topic)).toBe(isFound ? 'telemetry' : undefined)
    expect(findOwnTopic(transport([], [filter]), topic)).toBe(isFound ? 'attributes' : undefined)
  })
})

describe('own topics of a product [A-7]', () => {
  it('take telemetry and client attributes, and a change of them reaches the open session', async () => {
    bench = await startEndpoint()
    const settings = { ...defaultSettings, transport: transport(['meter/+/up'], ['meter/+/info', 'meter/#']) }
    const device = bench.addDevice('d', { settings })
    const client = await bench.session('d', { protocolVersion: 5 })
    for (const [no, topic] of ['meter/1/up', 'meter/1/info', 'meter', 'v1/devices/me/telemetry', 'v2/a'].entries()) {
      client.publish(topic, `{"k${no}":1}`)
      expect((await client.next('puback')).reasonCode).toBe(0)
    }
    expect(bench.sink.points.map(({ key }) => key)).toEqual(['k0', 'k3'])
    expect(bench.sink.attributes).toEqual(['k1', 'k2', 'k4'])
    client.publish('other', '{}')
    expect((await client.next('puback')).reasonCode).toBe(0x90)
    device.settings = defaultSettings
    client.publish('meter/1/up', '{}')
    expect((await client.next('puback')).reasonCode).toBe(0x90)
  })

  it('are wrong shaped by the same rules as the fixed ones', async () => {
    bench = await startEndpoint()
    bench.addDevice('d', { settings: { ...defaultSettings, transport: transport(['#']) } })
    const client = await bench.session('d', { protocolVersion: 5 })
    client.publish('x', 'nonsense')
    expect((await client.next('puback')).reasonCode).toBe(0x99)
  })

  it('let the device subscribe to the own topic of pushes, and to no other', async () => {
    bench = await startEndpoint()
    const settings = { ...defaultSettings, transport: { ...transport([]), attributesPushTopic: 'meter/1/set' } }
    bench.addDevice('d', { settings })
    const client = await bench.session('d', { protocolVersion: 5 })
    const subscriptions = ['meter/1/set', 'meter/+/set', 'meter/2/set'].map((topic) => ({ topic, qos: 1 as const }))
    client.put({ cmd: 'subscribe', messageId: 1, subscriptions })
    expect((await client.next('suback')).granted).toEqual([1, 0x8f, 0x8f])
  })
})
