// SPDX-License-Identifier: AGPL-3.0-only
import { createHash, randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import type { Rollout } from './schemas.ts'
import { OtaDevice, callsOf, eventually, unique } from './testing.ts'

let platform: TestPlatform
let calls: ReturnType<typeof callsOf>
beforeAll(async () => {
  platform = await startTestPlatform()
  calls = callsOf(platform)
})
afterAll(() => platform.close())

const attributes = 'v1/devices/me/attributes'
const sha256 = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

/** A product with one device that is connected and listens. */
async function prepare(): Promise<{ productId: string; id: string; token: string; device: OtaDevice }> {
  const productId = await calls.createProduct()
  const { id, token } = await platform.createDevice({ productId })
  const device = await OtaDevice.connect(platform.ports.mqtt, token)
  await device.subscribeToAttributes()
  return { productId, id, token, device }
}

const assignToProduct = (productId: string, ota: object) =>
  calls.ok(platform.call('PATCH', `/api/v1/products/${productId}`, { body: { ota } }))

async function history(id: string, key: string): Promise<unknown[]> {
  const { series } = await calls.ok<{ series: { points: [number, unknown][] }[] }>(
    platform.call('GET', `/api/v1/devices/${id}/telemetry/history?keys=${key}&from=0&to=${Date.now() + 60_000}`),
  )
  return (series[0]?.points ?? []).map(([, value]) => value)
}

describe('assigning', () => {
  it('writes what shall be installed as telemetry and pushes it as one message, texts as texts [O-2]', async () => {
    const { productId, id, device } = await prepare()
    const content = randomBytes(5000)
    const pack = await calls.createReadyPackage(productId, content, { title: '007', version: '1.10', tag: '2' })
    const shown = await calls.assign(id, pack.id)
    expect(shown).toMatchObject({
      target: { packageId: pack.id, title: '007', version: '1.10', tag: '2', source: 'device' },
      state: 'INITIATED',
      progress: 0,
      current: { title: null, version: null },
    })
    expect(await device.nextJson(attributes)).toEqual({
      fw_title: '007',
      fw_version: '1.10',
      fw_tag: '2',
      fw_size: 5000,
      fw_checksum: sha256(content),
      fw_checksum_algorithm: 'SHA256',
    })
    expect(await calls.latest(id)).toEqual({
      target_fw_title: '007',
      target_fw_version: '1.10',
      target_fw_tag: '2',
      target_fw_ts: expect.any(Number) as number,
      fw_state: 'INITIATED',
    })
    expect(await history(id, 'fw_state')).toEqual(['QUEUED', 'INITIATED'])
    await device.end()
  })

  it('names the address of what lies elsewhere, for software in keys of its own [O-2]', async () => {
    const { productId, id, device } = await prepare()
    const url = 'https://files.example.com/app.bin'
    const pack = await calls.createPackage(productId, { kind: 'software', title: 'App', version: '2', url })
    expect(await calls.assign(id, pack.id, 'software')).toMatchObject({ progress: null })
    expect(await device.nextJson(attributes)).toEqual({ sw_title: 'App', sw_version: '2', sw_url: url })
    expect(await calls.latest(id)).toMatchObject({ target_sw_title: 'App', sw_state: 'INITIATED' })
    await device.end()
  })

  it('deletes the attributes when the package is taken away, and those the next package has not [O-2]', async () => {
    const { productId, id, device } = await prepare()
    const first = await calls.createReadyPackage(productId, randomBytes(10), { tag: 'blue' })
    const second = await calls.createPackage(productId, { url: 'https://files.example.com/b' })
    await calls.assign(id, first.id)
    expect(await device.nextJson(attributes)).toMatchObject({ fw_tag: 'blue' })
    await calls.assign(id, second.id)
    const stale = (await device.nextJson(attributes)) as { deleted: string[] }
    expect(stale.deleted.toSorted()).toEqual(['fw_checksum', 'fw_checksum_algorithm', 'fw_size', 'fw_tag'])
    expect(await device.nextJson(attributes)).toEqual({ fw_title: 'Boiler', fw_version: second.version, fw_url: second.url })
    await calls.ok(platform.call('DELETE', `/api/v1/devices/${id}/firmware`))
    const gone = (await device.nextJson(attributes)) as { deleted: string[] }
    expect(gone.deleted.toSorted()).toEqual(['fw_title', 'fw_url', 'fw_version'])
    expect(await calls.show(id)).toMatchObject({ target: null, state: null, progress: null })
    await device.end()
  })

  it('reaches all devices of a product but those that have their own [O-2]', async () => {
    const { productId, id, device } = await prepare()
    const other = await platform.createDevice({ productId })
    const own = await calls.createReadyPackage(productId, randomBytes(10))
    const common = await calls.createReadyPackage(productId, randomBytes(20))
    await calls.assign(id, own.id)
    expect(await device.nextJson(attributes)).toMatchObject({ fw_version: own.version })
    await assignToProduct(productId, { firmwareId: common.id })
    await eventually(async () => expect((await calls.show(other.id)).target).toMatchObject({ packageId: common.id, source: 'product' }))
    expect((await calls.show(id)).target).toMatchObject({ packageId: own.id, source: 'device' })
    const later = await platform.createDevice({ productId })
    await eventually(async () => expect((await calls.show(later.id)).target).toMatchObject({ packageId: common.id }))

    await calls.ok(platform.call('DELETE', `/api/v1/devices/${id}/firmware`))
    expect(await device.nextJson(attributes)).toMatchObject({ fw_version: common.version })
    await assignToProduct(productId, { firmwareId: null })
    expect(await device.nextJson(attributes)).toHaveProperty('deleted')
    await eventually(async () => expect((await calls.show(later.id)).target).toBeNull())
    await device.end()
  })

  it('the same package once more tells it anew, as after a failure', async () => {
    const { productId, id, device } = await prepare()
    const pack = await calls.createReadyPackage(productId, randomBytes(10))
    await calls.assign(id, pack.id)
    expect(await device.nextJson(attributes)).toMatchObject({ fw_version: pack.version })
    await device.send({ fw_state: 'FAILED', fw_error: 'no power' })
    expect(await calls.show(id)).toMatchObject({ state: 'FAILED', error: 'no power' })
    expect(await calls.assign(id, pack.id)).toMatchObject({ state: 'INITIATED', error: null, progress: 0 })
    expect(await device.nextJson(attributes)).toMatchObject({ fw_version: pack.version })
    await device.end()
  })

  it('lets devices be found and counted by the firmware they report', async () => {
    const { productId, id, device } = await prepare()
    const other = await prepare()
    const title = unique('Boiler')
    await calls.assign(id, (await calls.createReadyPackage(productId, randomBytes(10), { title, version: '1.10' })).id)
    await device.send({ current_fw_title: title, current_fw_version: '1.10' })
    const find = async (firmware: string) =>
      (await calls.ok<{ items: { id: string }[] }>(platform.call('GET', `/api/v1/devices?firmware=${encodeURIComponent(firmware)}`))).items
    // What is reported is written twice a second.
    await eventually(async () => expect((await find(`${title} 1.10`)).map((one) => one.id)).toEqual([id]))
    expect(await find(`${title} 1.1`)).toEqual([])
    const facets = (of: string) => calls.ok(platform.call('GET', `/api/v1/devices/facets?productId=${of}`))
    expect(await facets(productId)).toMatchObject({ firmware: [{ value: `${title} 1.10`, count: 1 }], total: 1 })
    expect(await facets(other.productId)).toMatchObject({ firmware: [], total: 1 })
    await Promise.all([device.end(), other.device.end()])
  })

  it('follows a device into another product', async () => {
    const { productId, id, device } = await prepare()
    const elsewhere = await calls.createProduct()
    const before = await calls.createReadyPackage(productId, randomBytes(10))
    const after = await calls.createReadyPackage(elsewhere, randomBytes(10))
    await assignToProduct(elsewhere, { firmwareId: after.id })
    await calls.assign(id, before.id)
    expect(await device.nextJson(attributes)).toMatchObject({ fw_version: before.version })
    await calls.ok(platform.call('PATCH', `/api/v1/devices/${id}`, { body: { productId: elsewhere } }))
    expect(await device.nextJson(attributes)).toMatchObject({ fw_version: after.version })
    await calls.ok(platform.call('DELETE', `/api/v1/ota-packages/${before.id}`))
    await device.end()
  })
})

describe('chunks over MQTT', () => {
  it('bring 5 MB in pieces of 64 KB, with the checksum that was told [O-4]', async () => {
    const { productId, id, device } = await prepare()
    const content = randomBytes(5_000_000)
    await calls.assign(id, (await calls.createReadyPackage(productId, content)).id)
    const told = (await device.nextJson(attributes)) as { fw_checksum: string; fw_size: number }
    const received = await device.download(1, 65_536)
    expect(received.length).toBe(told.fw_size)
    expect(sha256(received)).toBe(told.fw_checksum)
    const shown = await calls.show(id)
    expect(shown.progress).toBe(100)
    expect(shown.trace.map(({ event }) => event).toReversed()).toEqual([
      'assigned',
      'state',
      'state',
      'offered',
      'first_chunk',
      'last_chunk',
    ])
    await device.end()
  })

  it('go on after an interruption from the chunk that is missing', async () => {
    const { productId, id, token, device } = await prepare()
    const content = randomBytes(400_000)
    await calls.assign(id, (await calls.createReadyPackage(productId, content)).id)
    const begun: Buffer[] = []
    for (let no = 0; no < 10; no++) begun.push(await device.chunk(1, no, 10_000))
    await eventually(async () => expect((await calls.show(id)).progress).toBe(25))
    device.client.stream.destroy()
    const again = await OtaDevice.connect(platform.ports.mqtt, token)
    const rest = await again.download(1, 10_000, 10)
    expect(sha256(Buffer.concat([...begun, rest]))).toBe(sha256(content))
    await again.end()
  })

  it('take their size from the request before when none is given, else give the whole file, and nothing beyond the end [O-4]', async () => {
    const { productId, id, device } = await prepare()
    const content = randomBytes(100_000)
    await calls.assign(id, (await calls.createReadyPackage(productId, content)).id)
    expect((await device.chunk(7, 0, '')).equals(content)).toBe(true)
    expect((await device.chunk(8, 0, 30_000)).equals(content.subarray(0, 30_000))).toBe(true)
    expect((await device.chunk(8, 3, '')).equals(content.subarray(90_000))).toBe(true)
    expect((await device.chunk(8, 4, '')).length).toBe(0)
    expect((await device.chunk(8, 2_147_483_647, 65_536)).length).toBe(0)
    expect((await device.chunk(9, 1, '')).length, 'after the whole file').toBe(0)
    await device.end()
  })

  it('of one request id never mix two files, also when another is assigned in between [O-4]', async () => {
    const { productId, id, device } = await prepare()
    const [one, other] = [randomBytes(300_000), randomBytes(300_000)]
    const first = await calls.createReadyPackage(productId, one)
    await calls.assign(id, first.id)
    const begun = [await device.chunk(1, 0, 60_000), await device.chunk(1, 1, 60_000)]
    await calls.assign(id, (await calls.createReadyPackage(productId, other)).id)
    begun.push(await device.download(1, 60_000, 2))
    expect(sha256(Buffer.concat(begun))).toBe(sha256(one))
    expect(sha256(await device.download(2, 60_000))).toBe(sha256(other))
    // The file is gone: an error instead of bytes of something else.
    await calls.ok(platform.call('DELETE', `/api/v1/ota-packages/${first.id}`))
    for (let at = 0; at < 40; at++) await device.chunk(2, at % 5, 60_000)
    await device.end()
  })

  it('answer errors on a topic of their own and keep the session [O-5]', async () => {
    const { productId, id, device } = await prepare()
    const ask = (kind: 'fw' | 'sw', size: string) => device.client.publishAsync(`v2/${kind}/request/1/chunk/0`, size, { qos: 1 })
    await ask('fw', '1000')
    expect(String((await device.next('v2/fw/error')).payload)).toBe('NOT_FOUND')
    await ask('sw', '')
    expect(String((await device.next('v2/sw/error')).payload)).toBe('NOT_FOUND')
    await calls.assign(id, (await calls.createReadyPackage(productId, randomBytes(100))).id)
    await ask('fw', '65537')
    expect(String((await device.next('v2/fw/error')).payload)).toBe('PAYLOAD_TOO_LARGE')
    expect((await device.chunk(1, 0, 65_536)).length).toBe(100)
    await device.send({ ok: 1 })
    expect((await calls.show(id)).trace.find(({ event }) => event === 'error')).toMatchObject({ detail: { code: 'PAYLOAD_TOO_LARGE' } })
    await device.end()
  })

  it('are not sent whole above 16 MiB, nor larger than a client takes [O-5]', async () => {
    const { productId, id, token, device } = await prepare()
    await calls.assign(id, (await calls.createReadyPackage(productId, randomBytes(16_777_217))).id)
    await device.client.publishAsync('v2/fw/request/1/chunk/0', '', { qos: 1 })
    expect(String((await device.next('v2/fw/error')).payload)).toBe('PAYLOAD_TOO_LARGE')
    const small = await OtaDevice.connect(platform.ports.mqtt, token, { protocolVersion: 5, properties: { maximumPacketSize: 10_000 } })
    await small.client.publishAsync('v2/fw/request/1/chunk/0', '20000', { qos: 1 })
    expect(String((await small.next('v2/fw/error')).payload)).toBe('PAYLOAD_TOO_LARGE')
    expect((await small.chunk(1, 0, 9000)).length).toBe(9000)
    await small.end()
  })

  it('refuse a size that is no number as a wrong shape [O-5]', async () => {
    const { token } = await prepare()
    const device = await OtaDevice.connect(platform.ports.mqtt, token, { protocolVersion: 5 })
    await expect(device.client.publishAsync('v2/fw/request/1/chunk/0', '1k', { qos: 1 })).rejects.toMatchObject({ code: 153 })
    await device.end()
  })

  it('come in the order of the requests to one who asks for many at once', async () => {
    const { productId, id, device } = await prepare()
    const content = randomBytes(300_000)
    await calls.assign(id, (await calls.createReadyPackage(productId, content)).id)
    await Promise.all(Array.from({ length: 300 }, (_, no) => device.client.publishAsync(`v2/fw/request/1/chunk/${no}`, '1000', { qos: 1 })))
    const chunks: Buffer[] = []
    for (let no = 0; no < 300; no++) {
      const next = await device.next(({ topic }) => topic.startsWith('v2/fw/response/'))
      expect(next.topic).toBe(`v2/fw/response/1/chunk/${no}`)
      chunks.push(next.payload)
    }
    expect(sha256(Buffer.concat(chunks))).toBe(sha256(content))
    await device.end()
  })
})

describe('progress', () => {
  it('follows what the device reports, to the end or to its failure [O-3]', async () => {
    const { productId, id, device } = await prepare()
    await device.send({ current_fw_title: 'Boiler', current_fw_version: '0.9' })
    const pack = await calls.createReadyPackage(productId, randomBytes(1000), { version: '1.10' })
    expect((await calls.assign(id, pack.id)).current).toEqual({ title: 'Boiler', version: '0.9' })
    await device.send({ fw_state: 'DOWNLOADING' })
    await device.send({ fw_state: 'FAILED', fw_error: 'Checksum mismatch' })
    expect(await calls.show(id)).toMatchObject({ state: 'FAILED', error: 'Checksum mismatch' })
    for (const state of ['DOWNLOADING', 'DOWNLOADED', 'VERIFIED', 'UPDATING', 'NONSENSE']) await device.send({ fw_state: state })
    expect(await calls.show(id)).toMatchObject({ state: 'UPDATING', error: null, progress: 100 })
    // The product turns "1.10" into a number, and it is recognised all the same.
    await device.send({ current_fw_title: 'Boiler', current_fw_version: '1.10', fw_state: 'UPDATED' })
    const shown = await calls.show(id)
    expect(shown).toMatchObject({ state: 'UPDATED', current: { title: 'Boiler', version: '1.10' } })
    const states = shown.trace.filter(({ event }) => event === 'state').map(({ detail }) => detail['state'])
    expect(states.toReversed()).toEqual([
      'QUEUED',
      'INITIATED',
      'DOWNLOADING',
      'FAILED',
      'DOWNLOADING',
      'DOWNLOADED',
      'VERIFIED',
      'UPDATING',
      'UPDATED',
    ])
    await device.end()
  })

  it('knows a device that runs the package already', async () => {
    const { productId, id, device } = await prepare()
    const pack = await calls.createReadyPackage(productId, randomBytes(1000))
    await device.send({ current_fw_title: pack.title, current_fw_version: pack.version })
    expect(await calls.assign(id, pack.id)).toMatchObject({ state: 'UPDATED', progress: 100 })
    await device.end()
  })

  it('of a roll-out is shown per device and counted per state', async () => {
    const productId = await calls.createProduct()
    const pack = await calls.createReadyPackage(productId, randomBytes(1000))
    const prefix = unique('roll')
    const devices = await Promise.all(['a', 'b', 'c'].map((letter) => platform.createDevice({ productId, name: `${prefix}-${letter}` })))
    await assignToProduct(productId, { firmwareId: pack.id })
    const get = (query = '') => calls.ok<Rollout>(platform.call('GET', `/api/v1/ota-packages/${pack.id}/devices${query}`))
    await eventually(async () => expect((await get()).counts.INITIATED).toBe(3))
    const [a, b] = await Promise.all(devices.slice(0, 2).map(({ token }) => OtaDevice.connect(platform.ports.mqtt, token)))
    await a!.send({ fw_state: 'FAILED', fw_error: 'no room' })
    await b!.chunk(1, 0, 500)
    await eventually(async () => {
      const { items, counts, total } = await get()
      expect({ total, ...counts }).toMatchObject({ total: 3, FAILED: 1, INITIATED: 2, UPDATED: 0 })
      expect(items.map(({ deviceName, state, progress, error }) => [deviceName, state, progress, error])).toEqual([
        [`${prefix}-a`, 'FAILED', 0, 'no room'],
        [`${prefix}-b`, 'INITIATED', 50, null],
        [`${prefix}-c`, 'INITIATED', 0, null],
      ])
    })
    const first = await get('?limit=2')
    expect((await get(`?limit=2&cursor=${first.nextCursor}`)).items.map(({ deviceName }) => deviceName)).toEqual([`${prefix}-c`])
    expect((await get('?state=FAILED')).items).toHaveLength(1)
    expect(await calls.ok(platform.call('GET', `/api/v1/ota-packages/${pack.id}`))).toMatchObject({ isProductTarget: true, deviceCount: 3 })
    await Promise.all([a!.end(), b!.end()])
  })
})
