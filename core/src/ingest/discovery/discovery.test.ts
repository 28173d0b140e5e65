// SPDX-License-Identifier: AGPL-3.0-only
import { connectAsync } from 'mqtt'
import type { MqttClient } from 'mqtt'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { startTestPlatform } from '../../testing.ts'
import type { TestPlatform } from '../../testing.ts'
import { formatHint, parseConfig, parseConfigTopic, parseHint } from './discovery-config.ts'
import { Discovery } from './discovery.ts'

let platform: TestPlatform
let productId: string
const clients: MqttClient[] = []
beforeAll(async () => {
  platform = await startTestPlatform()
  const body = { name: 'announcing', discovery: 'home-assistant' }
  productId = (await platform.call('POST', '/api/v1/products', { body })).json<{ id: string }>().id
})
afterEach(async () => {
  for (const client of clients.splice(0)) await client.endAsync(true)
})
afterAll(() => platform.close())

/** A server whose machine is busy says so: then once more. */
async function connect(token: string): Promise<MqttClient> {
  const options = { username: token, reconnectPeriod: 0, protocolVersion: 5 } as const
  const client = await vi.waitFor(() => connectAsync(`mqtt://127.0.0.1:${platform.ports.mqtt}`, options), {
    timeout: 30_000,
    interval: 200,
  })
  clients.push(client)
  return client
}
const announce = (client: MqttClient, entity: string, config: object | '') =>
  client.publishAsync(`homeassistant/${entity}/config`, config === '' ? '' : JSON.stringify(config), { qos: 1, retain: true })

async function values(id: string): Promise<Record<string, unknown>> {
  const { items } = (await platform.call('GET', `/api/v1/devices/${id}/telemetry`)).json<{ items: { key: string; value: unknown }[] }>()
  return Object.fromEntries(items.map(({ key, value }) => [key, value]))
}
async function attributes(id: string): Promise<Record<string, unknown>> {
  const { items } = (await platform.call('GET', `/api/v1/devices/${id}/attributes/client`)).json<{
    items: { key: string; value: unknown }[]
  }>()
  return Object.fromEntries(items.map(({ key, value }) => [key, value]))
}

describe('an announcement', () => {
  it.each([
    ['homeassistant/sensor/kitchen/temperature/config', { id: 'sensor/kitchen/temperature', component: 'sensor', object: 'temperature' }],
    ['homeassistant/switch/relay/config', { id: 'switch/relay', component: 'switch', object: 'relay' }],
    ['homeassistant/sensor/config', undefined],
    ['homeassistant/sensor/a/b/c/config', undefined],
    ['homeassistant/sensor/a b/config', undefined],
    ['homeassistant/status', undefined],
    ['other/sensor/x/config', undefined],
  ])('has the topic %s: %j', (topic, expected) => {
    expect(parseConfigTopic(topic)).toEqual(expected)
  })

  const topic = parseConfigTopic('homeassistant/sensor/kitchen/t/config')!
  const parse = (config: unknown) => parseConfig(Buffer.from(typeof config === 'string' ? config : JSON.stringify(config)), topic)
  it.each([
    [{ state_topic: 'k/s' }, { topic: 'k/s', path: [] }],
    [
      { '~': 'k', stat_t: '~/s', val_tpl: '{{ value_json.a.b }}' },
      { topic: 'k/s', path: ['a', 'b'] },
    ],
    [
      { stat_t: 's', val_tpl: `{{value_json['AM 2301'].Temperature | round(1)}}` },
      { topic: 's', path: ['AM 2301', 'Temperature'] },
    ],
    [
      { stat_t: 's', val_tpl: '{{ value | float }}', name: '厨房', unit_of_meas: '°C' },
      { topic: 's', path: [], title: '厨房', unit: '°C' },
    ],
    [{ stat_t: 's', val_tpl: '{{ value_json.a + 1 }}' }, { code: 'SHAPE_INVALID' }],
    [{ command_topic: 'c' }, undefined],
    ['[]', { code: 'PAYLOAD_MALFORMED' }],
    ['nonsense', { code: 'PAYLOAD_MALFORMED' }],
    ['{"__proto__":{"state_topic":"s"}}', undefined],
  ])('holds %j: %j', (config, expected) => {
    const parsed = parse(config)
    if (expected === undefined) expect(parsed).toBeUndefined()
    else expect(parsed).toMatchObject(expected)
  })

  it('is read back as it was stored, and nothing else is', () => {
    const hint = { key: 't', id: 'sensor/t', topic: 's', path: ['a'], on: '1', off: '0' }
    expect(parseHint('t', formatHint({ ...hint, title: 'T', unit: 'K' }))).toEqual(hint)
    for (const text of ['1', '{}', '{"id":"x","topic":"s","path":[1]}', 'nonsense']) expect(parseHint('t', text)).toBeUndefined()
  })
})

describe('a device of a product with discovery', () => {
  it('is understood: titles and units become attributes, states become telemetry', async () => {
    const device = await platform.createDevice({ productId })
    const client = await connect(device.token)
    await announce(client, 'sensor/kitchen/temperature', { name: 'Kitchen', unit_of_measurement: '°C', state_topic: 'kitchen/t' })
    await announce(client, 'binary_sensor/kitchen/door', { stat_t: 'kitchen/door', pl_on: 'open', pl_off: 'closed' })
    await announce(client, 'sensor/kitchen/power', { stat_t: 'kitchen/meter', val_tpl: '{{ value_json.meter.power }}', unit_of_meas: 'W' })
    await announce(client, 'sensor/kitchen/energy', { stat_t: 'kitchen/meter', val_tpl: "{{ value_json['energy'] }}" })
    await announce(client, 'sensor/garden/temperature', { stat_t: 'garden/t' })
    await client.publishAsync('kitchen/t', '21.5', { qos: 1 })
    await client.publishAsync('garden/t', '9', { qos: 1 })
    await client.publishAsync('kitchen/door', 'open', { qos: 1 })
    await client.publishAsync('kitchen/meter', '{"meter":{"power":230},"energy":9007199254740993}', { qos: 1 })
    await client.publishAsync('kitchen/availability', 'online', { qos: 1 })
    expect(await values(device.id)).toEqual({
      temperature: 21.5,
      'garden.temperature': 9,
      door: true,
      power: 230,
      energy: '9007199254740993',
    })
    const stored = await attributes(device.id)
    expect(stored['model.temperature']).toMatchObject({ title: { zh: 'Kitchen', en: 'Kitchen' }, unit: '°C', topic: 'kitchen/t' })
    expect(stored['model.power']).toMatchObject({ unit: 'W' })
    await client.publishAsync('v1/devices/me/telemetry', '{"direct":1}', { qos: 1 })
    expect(await values(device.id)).toMatchObject({ direct: 1 })
  })

  it('is remembered over a restart, changed by a new announcement, and forgotten by an empty one', async () => {
    const device = await platform.createDevice({ productId })
    const client = await connect(device.token)
    await announce(client, 'sensor/t', { stat_t: 'first' })
    await announce(client, 'sensor/t', { stat_t: 'second', unit_of_meas: 'K' })
    const attributesOf = await attributes(device.id)
    expect(attributesOf['model.t']).toMatchObject({ topic: 'second', unit: 'K' })
    // A second one of its kind knows what the database says, as after a restart.
    const { pipeline, registry, attributes: all } = platform.ingest
    const known = registry.get(device.id)!
    const request = { device: known, topic: 'second', payload: Buffer.from('3'), receivedAt: Date.now() }
    const source = { transport: 'mqtt', topic: 'second', address: '' } as const
    const session = platform.ingest.sessions.get(device.id)!
    const outcome = await new Discovery({ pipeline, attributes: all }).serve({
      ...request,
      source,
      session,
      kind: 'discovery',
      form: 'v1',
      id: 0,
      chunk: undefined,
    })
    expect(outcome).toMatchObject({ status: 'stored', accepted: 1 })
    await announce(client, 'sensor/t', '')
    await client.publishAsync('second', '4', { qos: 1 })
    expect(await values(device.id)).toEqual({ t: 3 })
    expect(await attributes(device.id)).toEqual({})
  })

  it('is told what cannot be read, and keeps its session', async () => {
    const device = await platform.createDevice({ productId })
    const client = await connect(device.token)
    await expect(announce(client, 'sensor/t', { stat_t: 's', val_tpl: '{{ states("x") }}' })).rejects.toMatchObject({ code: 0x99 })
    await announce(client, 'sensor/t', { stat_t: 's', val_tpl: '{{ value_json.a }}' })
    await expect(client.publishAsync('s', '{"b":1}', { qos: 1 })).rejects.toMatchObject({ code: 0x99 })
    await expect(client.publishAsync('v1/devices/me/nothing', '{}', { qos: 1 })).rejects.toMatchObject({ code: 0x90 })
    await client.publishAsync('s', '{"a":1}', { qos: 1 })
    expect(await values(device.id)).toEqual({ t: 1 })
  })

  it('is off unless the product says so', async () => {
    const device = await platform.createDevice()
    const client = await connect(device.token)
    await expect(announce(client, 'sensor/t', { stat_t: 's' })).rejects.toMatchObject({ code: 0x90 })
  })
})
