// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, randomBytes } from 'node:crypto'
import { startTestPlatform } from '@iot-pms/core/testing'
import type { TestPlatform } from '@iot-pms/core/testing'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ThingsBoardClient, ThingsBoardRest, provision } from './thingsboard-client.ts'
import type { FirmwareInfo } from './thingsboard-client.ts'

/** A device, a gateway and a script that were written for ThingsBoard from its public documentation, unchanged. */

const admin = { email: 'admin@example.com', password: 'correct-horse-9-battery' }
const waitMs = 20_000

let platform: TestPlatform
let rest: ThingsBoardRest
let mqttUrl: string
beforeAll(async () => {
  platform = await startTestPlatform()
  mqttUrl = `mqtt://127.0.0.1:${platform.ports.mqtt}`
  rest = new ThingsBoardRest(platform.url)
  await rest.login(admin.email, admin.password)
})
afterAll(() => platform.close())

let last = 0

async function createDevice(more: Record<string, unknown> = {}): Promise<{ id: string; name: string; token: string }> {
  const name = `public-${++last}`
  const token = randomBytes(10).toString('hex')
  return { id: await rest.createDevice(name, token, more), name, token }
}

const connect = (token: string) => ThingsBoardClient.connect(mqttUrl, { username: token })

describe('a client from the public documentation', () => {
  it('sends telemetry in all its forms', async () => {
    const { id, token } = await createDevice()
    const device = await connect(token)
    const ts = Date.now() - 60_000
    await device.sendTelemetry({ stringKey: 'value1', booleanKey: true, doubleKey: 42.5, longKey: 73, jsonKey: { a: [1, { b: null }] } })
    await device.sendTelemetry([{ first: 1 }, { second: 2 }])
    await device.sendTelemetry({ ts, values: { temperature: 20 } })
    await device.sendTelemetry([
      { ts: ts + 1, values: { temperature: 21 } },
      { ts: ts + 2, values: { temperature: 22, humidity: 55.5 } },
    ])
    // As the documentation's own command has it.
    await device.sendTelemetry('{temperature_of_snippet:25}')
    expect(await rest.latest(id)).toEqual({
      stringKey: 'value1',
      booleanKey: true,
      doubleKey: 42.5,
      longKey: 73,
      jsonKey: { a: [1, { b: null }] },
      first: 1,
      second: 2,
      temperature: 22,
      humidity: 55.5,
      temperature_of_snippet: 25,
    })
    expect(await rest.history(id, 'temperature', ts, ts + 3)).toEqual([
      [ts, 20],
      [ts + 1, 21],
      [ts + 2, 22],
    ])
    await device.end()
  })

  it('publishes attributes, is told of shared ones, and asks for both', async () => {
    const { id, token } = await createDevice()
    const device = await connect(token)
    await device.subscribeToAttributes()
    await device.sendAttributes({ firmware_version: '1.0.1', serial: 'S-7' })
    expect(await rest.attributes(id, 'CLIENT_SCOPE')).toEqual({ firmware_version: '1.0.1', serial: 'S-7' })
    await rest.setShared(id, { interval: 30, mode: 'eco' })
    expect(await device.nextAttributes()).toEqual({ interval: 30, mode: 'eco' })
    await rest.call('DELETE', `/api/plugins/telemetry/DEVICE/${id}/SHARED_SCOPE?keys=mode`)
    expect(await device.nextAttributes()).toEqual({ deleted: ['mode'] })
    expect(await device.requestAttributes('firmware_version,missing', 'interval,mode')).toEqual({
      client: { firmware_version: '1.0.1' },
      shared: { interval: 30 },
    })
    await device.end()
  })

  it('takes commands and calls the server', async () => {
    const { id, token } = await createDevice()
    const device = await connect(token)
    await device.subscribeToRpc()
    await rest.rpc('oneway', id, { method: 'setGpio', params: { pin: 7, value: 1 } })
    expect(await device.nextRpc()).toMatchObject({ method: 'setGpio', params: { pin: 7, value: 1 } })
    const answered = rest.rpc('twoway', id, { method: 'getState', params: {}, timeout: 20_000 })
    const request = await device.nextRpc()
    expect(request.method).toBe('getState')
    await device.answerRpc(request.id, { on: true, level: 3 })
    expect(await answered).toEqual({ on: true, level: 3 })
    const { time } = await device.callServer('getCurrentTime', {})
    expect(Math.abs(Number(time) - Date.now())).toBeLessThan(60_000)
    await device.end()
  })

  it('gets ten persistent commands that came while it was away, in their order', async () => {
    const { id, token } = await createDevice()
    const ids: string[] = []
    for (let n = 0; n < 10; n++) {
      const { rpcId } = await rest.rpc<{ rpcId: string }>('twoway', id, { method: 'step', params: { n }, persistent: true })
      ids.push(rpcId)
    }
    const device = await connect(token)
    await device.subscribeToRpc()
    const steps: unknown[] = []
    for (let n = 0; n < 10; n++) {
      const request = await device.nextRpc()
      steps.push(request.params)
      await device.answerRpc(request.id, { done: n })
    }
    expect(steps).toEqual(Array.from({ length: 10 }, (_, n) => ({ n })))
    const statuses = () =>
      Promise.all(
        ids.map(async (rpcId) => {
          const { status, response } = await rest.call<{ status: string; response: unknown }>('GET', `/api/rpc/persistent/${rpcId}`)
          return [status, response]
        }),
      )
    const done = Array.from({ length: 10 }, (_, n) => ['SUCCESSFUL', { done: n }])
    await expect.poll(statuses, { timeout: waitMs }).toEqual(done)
    await device.end()
  })

  it('updates its firmware of 5 MB in chunks, checks the sum and reports each step', { timeout: 120_000 }, async () => {
    const content = randomBytes(5 * 1024 * 1024)
    const make = async (path: string, body: unknown) => (await platform.call('POST', path, { body })).json<{ id: string }>().id
    const productId = await make('/api/v1/products', { name: 'updated from public documentation' })
    const { id, token } = await createDevice({ deviceProfileId: { entityType: 'DEVICE_PROFILE', id: productId } })
    const device = await connect(token)
    await device.subscribeToAttributes()
    await device.sendTelemetry({ current_fw_title: 'Boiler', current_fw_version: '1.0.0' })

    const packageId = await make('/api/v1/ota-packages', { title: 'Boiler', version: '1.1.0', kind: 'firmware', productId })
    const uploaded = await platform.call('PUT', `/api/v1/ota-packages/${packageId}/content`, {
      body: content,
      headers: { 'content-type': 'application/octet-stream' },
    })
    expect(uploaded.status).toBe(200)
    await platform.call('PUT', `/api/v1/devices/${id}/firmware`, { body: { packageId } })
    const offer = await device.nextAttributes()
    expect(offer).toEqual({
      fw_title: 'Boiler',
      fw_version: '1.1.0',
      fw_size: content.length,
      fw_checksum: createHash('sha256').update(content).digest('hex'),
      fw_checksum_algorithm: 'SHA256',
    })
    const { shared } = await device.requestAttributes('', 'fw_title,fw_version,fw_size,fw_checksum,fw_checksum_algorithm')
    const since = Date.now() - 60_000
    expect((await device.updateFirmware(shared as FirmwareInfo, 16_384)).equals(content)).toBe(true)
    expect(await rest.latest(id)).toMatchObject({ current_fw_title: 'Boiler', current_fw_version: '1.1.0', fw_state: 'UPDATED' })
    const states = (await rest.history(id, 'fw_state', since, Date.now() + 60_000)).map(([, state]) => state)
    expect(states).toEqual(['QUEUED', 'INITIATED', 'DOWNLOADING', 'DOWNLOADED', 'VERIFIED', 'UPDATING', 'UPDATED'])
    const shown = async () => (await platform.call('GET', `/api/v1/devices/${id}/firmware`)).json()
    await expect.poll(shown, { timeout: waitMs }).toMatchObject({ state: 'UPDATED', progress: 100 })
    await device.end()
  })

  it('makes itself known by the keys of its product, and connects with what it got', async () => {
    const keys = { provisionDeviceKey: 'public-client-key', provisionDeviceSecret: 'public-client-secret' }
    const provisioning = { strategy: 'create', key: keys.provisionDeviceKey, secret: keys.provisionDeviceSecret }
    const product = await platform.call('POST', '/api/v1/products', {
      body: { name: 'provisioned from public documentation', provisioning },
    })
    expect(product.status).toBe(201)
    const answer = await provision(mqttUrl, { deviceName: 'provisioned-1', ...keys })
    expect(answer).toMatchObject({ status: 'SUCCESS', credentialsType: 'ACCESS_TOKEN' })
    const device = await connect(answer.credentialsValue)
    await device.sendTelemetry({ hello: 1 })
    await device.end()
    expect(await rest.latest(await rest.findDevice('provisioned-1'))).toEqual({ hello: 1 })
    expect(await provision(mqttUrl, { deviceName: 'provisioned-1', ...keys })).toMatchObject({ status: 'FAILURE' })
    expect(await provision(mqttUrl, { deviceName: 'x', ...keys, provisionDeviceSecret: 'wrong' })).toMatchObject({ status: 'NOT_FOUND' })
  })

  it('is a gateway of 500 children at a message each second: every point is there', { timeout: 180_000 }, async () => {
    const children = 500
    const seconds = 20
    const { token } = await createDevice({ additionalInfo: { gateway: true } })
    const gateway = await connect(token)
    const names = Array.from({ length: children }, (_, index) => `Device ${String.fromCodePoint(65 + (index % 26))}${index}`)
    for (const device of names) await gateway.publish('v1/gateway/connect', { device, type: 'meter behind a public gateway' })
    const start = Date.now()
    const latencies: number[] = []
    const acknowledged: Promise<void>[] = []
    for (let second = 0; second < seconds; second++) {
      for (const [index, name] of names.entries()) {
        // Evenly over the second, as clocks of children are.
        const due = start + second * 1000 + (index * 1000) / children
        if (due > Date.now()) await new Promise((resolve) => setTimeout(resolve, due - Date.now()))
        const sentAt = performance.now()
        const values = { n: second, child: index }
        const sent = gateway.publish('v1/gateway/telemetry', { [name]: [{ ts: start + second * 1000, values }] })
        acknowledged.push(sent.then(() => void latencies.push(performance.now() - sentAt)))
      }
    }
    await Promise.all(acknowledged)
    const elapsedMs = Date.now() - start
    latencies.sort((one, other) => one - other)
    const at = (share: number) => latencies[Math.floor(latencies.length * share)]!.toFixed(1)
    console.log(
      `gateway: ${latencies.length} messages of ${children} children in ${elapsedMs} ms, PUBACK p50 ${at(0.5)} ms, p99 ${at(0.99)} ms`,
    )
    const expected = Array.from({ length: seconds }, (_, n) => [start + n * 1000, n])
    const queue = names.values()
    const look = async () => {
      for (const name of queue) {
        const points = await rest.history(await rest.findDevice(name), 'n', start - 1, start + seconds * 1000)
        expect(points, name).toEqual(expected)
      }
    }
    await Promise.all(Array.from({ length: 8 }, look))
    await gateway.end()
  })
})
