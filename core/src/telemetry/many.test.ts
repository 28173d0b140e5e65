// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import type { Point } from './points.ts'
import { readSheet, unzip } from './reading-xlsx.ts'
import { startTestPlatform } from '../testing.ts'
import { startReadingServer } from './testing.ts'
import type { Caller, ReadingServer } from './testing.ts'

let server: ReadingServer
beforeAll(async () => {
  server = await startReadingServer()
})
afterAll(() => server.close())

const t0 = 1_760_000_000_000
const integer = (key: string, ts: number, value: number | bigint): Point => ({ key, ts, kind: 'integer', value })

async function twoDevices(): Promise<[Device, Device]> {
  const pump = await server.createDevice({ name: `pump ${randomUUID()}`, timeZone: 'Asia/Shanghai' })
  const fan = await server.createDevice({ name: `fan ${randomUUID()}` })
  await server.write(pump, [integer('t', t0, 1), integer('t', t0 + 2000, 9007199254740993n), integer('h', t0 + 1000, 50)])
  await server.write(fan, [integer('t', t0 + 1000, 7), integer('t', t0 + 2000, 8)])
  return [pump, fan]
}

const post = (path: string, body: object, as: Caller = 'viewer') =>
  server.call('POST', `/api/v1/telemetry/${path}`, { body: JSON.stringify(body), as })

async function history(body: object) {
  const answer = await post('history', body)
  expect(answer.status, answer.text).toBe(200)
  return answer.json()
}

async function refusal(path: string, body: object): Promise<unknown> {
  const answer = await post(path, body)
  const { code, errors } = answer.json<{ code: string; errors?: { pointer: string }[] }>()
  return [answer.status, code, errors?.[0]?.pointer]
}

describe('the newest values of several devices', () => {
  it('come in the order of the ids; unknown, foreign and silent devices are left out alike', async () => {
    const [pump, fan] = await twoDevices()
    const silent = await server.createDevice()
    const ids = [fan.id.toUpperCase(), randomUUID(), silent.id, pump.id, fan.id]
    const items = [
      { deviceId: fan.id, values: [{ key: 't', ts: t0 + 2000, value: 8, kind: 'integer' }] },
      { deviceId: pump.id, values: [{ key: 't', ts: t0 + 2000, value: '9007199254740993', kind: 'integer' }] },
    ]
    const answer = await server.call('GET', `/api/v1/telemetry/latest?deviceIds=${ids.join(',')}&keys=t`)
    expect([answer.status, answer.json()]).toEqual([200, { items }])
    expect((await post('latest', { deviceIds: ids, keys: ['t'] })).json()).toEqual({ items })
    expect((await post('latest', { deviceIds: ids, keys: ['t'] }, 'stranger')).json()).toEqual({ items: [] })
    const all = (await post('latest', { deviceIds: [pump.id] })).json<{ items: { values: { key: string }[] }[] }>()
    expect(all.items[0]!.values.map(({ key }) => key)).toEqual(['h', 't'])
  })

  it('are those of up to 500 devices', async () => {
    const [pump] = await twoDevices()
    const ids = [...Array.from({ length: 499 }, () => randomUUID()), pump.id]
    expect((await post('latest', { deviceIds: ids })).json<{ items: object[] }>().items).toHaveLength(1)
    expect(await refusal('latest', { deviceIds: [...ids, randomUUID()] })).toEqual([400, 'VALIDATION_FAILED', '/deviceIds'])
    const get = async (query: string) => (await server.call('GET', `/api/v1/telemetry/latest?${query}`)).json()['code']
    expect(await get('')).toBe('VALIDATION_FAILED')
    expect(await get('deviceIds=')).toBe('VALIDATION_FAILED')
    expect(await get(`deviceIds=${pump.id},no-uuid`)).toBe('VALIDATION_FAILED')
    expect(await get(`deviceIds=${pump.id}&keys=a,,b`)).toBe('VALIDATION_FAILED')
    expect(await get(`deviceIds=${pump.id}&x=1`)).toBe('VALIDATION_FAILED')
    expect(await refusal('latest', { deviceIds: ids, keys: ['a\u0000'] })).toEqual([400, 'VALIDATION_FAILED', '/keys'])
  })
})

describe('the history of several devices', () => {
  it('is that of each, unknown and foreign ones left out, in the zone of the first', async () => {
    const [pump, fan] = await twoDevices()
    const body = { deviceIds: [pump.id, randomUUID(), fan.id], keys: ['t', 'h'], from: t0, to: '2025-10-09T08:53:22.001Z' }
    expect(await history(body)).toEqual({
      from: t0,
      to: t0 + 2001,
      timeZone: 'Asia/Shanghai',
      devices: [
        {
          deviceId: pump.id,
          series: [
            {
              key: 't',
              agg: 'NONE',
              points: [
                [t0, 1],
                [t0 + 2000, '9007199254740993'],
              ],
              int64: true,
            },
            { key: 'h', agg: 'NONE', points: [[t0 + 1000, 50]] },
          ],
        },
        {
          deviceId: fan.id,
          series: [
            {
              key: 't',
              agg: 'NONE',
              points: [
                [t0 + 1000, 7],
                [t0 + 2000, 8],
              ],
            },
            { key: 'h', agg: 'NONE', points: [] },
          ],
        },
      ],
      sourcePoints: 5,
      downsampled: false,
    })
    expect((await post('history', body, 'stranger')).json()).toMatchObject({ devices: [], timeZone: 'UTC', sourcePoints: 0 })
  })

  it('takes the parameters of one device: aggregates, fill, order, zone', async () => {
    const [pump, fan] = await twoDevices()
    const found = await history({
      deviceIds: [fan.id, pump.id],
      keys: ['t'],
      from: t0,
      to: t0 + 3000,
      agg: 'MAX,COUNT',
      interval: 1000,
      fill: 'null',
      order: 'desc',
      timeZone: 'Europe/Berlin',
    })
    expect(found).toMatchObject({
      timeZone: 'Europe/Berlin',
      devices: [
        {
          series: [
            {
              agg: 'MAX',
              points: [
                [t0 + 2000, 8],
                [t0 + 1000, 7],
                [t0, null],
              ],
            },
            { agg: 'COUNT' },
          ],
        },
        {
          series: [
            { agg: 'MAX', int64: true },
            {
              agg: 'COUNT',
              points: [
                [t0 + 2000, 1],
                [t0 + 1000, null],
                [t0, 1],
              ],
            },
          ],
        },
      ],
    })
  })

  it('tells which keys have more points than the limit, since it has no pages', async () => {
    const [pump, fan] = await twoDevices()
    const found = await history({ deviceIds: [pump.id, fan.id], keys: ['h', 't'], from: t0, to: t0 + 3000, limit: 1 })
    expect(found).toMatchObject({ devices: [{ truncated: ['t'] }, { truncated: ['t'] }], sourcePoints: 3 })
    const whole = await history({ deviceIds: [pump.id], keys: ['h', 't'], from: t0, to: t0 + 3000, limit: 2 })
    expect(whole).not.toHaveProperty('devices.0.truncated')
  })

  it('is refused where it cannot be answered, naming the member', async () => {
    const [pump, fan] = await twoDevices()
    const good = { deviceIds: [pump.id, fan.id], keys: ['t'], from: t0, to: t0 + 3000 }
    const ask = (change: object) => refusal('history', { ...good, ...change })
    expect(await ask({ deviceIds: [] })).toEqual([400, 'VALIDATION_FAILED', '/deviceIds'])
    expect(await ask({ deviceIds: ['x'] })).toEqual([400, 'VALIDATION_FAILED', '/deviceIds/0'])
    expect(await ask({ deviceIds: Array.from({ length: 51 }, () => randomUUID()) })).toEqual([400, 'VALIDATION_FAILED', '/deviceIds'])
    expect(await ask({ keys: [] })).toEqual([400, 'VALIDATION_FAILED', '/keys'])
    expect(await ask({ keys: [''] })).toEqual([400, 'VALIDATION_FAILED', '/keys'])
    expect(await ask({ keys: Array.from({ length: 51 }, (_, i) => `k${i}`) })).toEqual([400, 'VALIDATION_FAILED', '/keys'])
    expect(await ask({ from: 'now' })).toEqual([400, 'VALIDATION_FAILED', '/from'])
    expect((await post('history', { ...good, cursor: 'W10' })).status).toBe(400)
    expect(await ask({ to: t0 })).toEqual([422, 'UNPROCESSABLE', '/to'])
    expect(await ask({ fill: 'null' })).toEqual([422, 'UNPROCESSABLE', '/fill'])
    expect((await post('history', { ...good, timeZone: 'Mars' })).json()['code']).toBe('TIME_ZONE_UNKNOWN')
  })

  it('has no more than 500,000 buckets in all', async () => {
    const devices = await Promise.all(Array.from({ length: 11 }, () => server.createDevice()))
    const keys = Array.from({ length: 10 }, (_, i) => `k${i}`)
    const ask = async (count: number) =>
      post('history', {
        deviceIds: devices.slice(0, count).map(({ id }) => id),
        keys,
        from: 0,
        to: 4_800_000,
        agg: 'MAX',
        interval: 1000,
      })
    expect((await ask(10)).status).toBe(200)
    const refused = await ask(11)
    expect([refused.status, refused.json()['code']]).toEqual([422, 'RANGE_TOO_LARGE'])
  })

  it('has no more than a million points, counted before anything is sent', async () => {
    const device = await server.createDevice()
    const keys = Array.from({ length: 11 }, (_, i) => `k${i}`)
    for (const key of keys) {
      for (let at = 0; at < 100_000; at += 20_000) {
        await server.write(
          device,
          Array.from({ length: 20_000 }, (_, i) => integer(key, t0 + at + i, i)),
        )
      }
    }
    await server.store.compact()
    const body = { deviceIds: [device.id], keys, from: t0, to: t0 + 100_000 }
    const refused = await post('history', { ...body, limit: 100_000 })
    expect([refused.status, refused.json()]).toEqual([
      422,
      expect.objectContaining({ code: 'RANGE_TOO_LARGE', errors: [{ pointer: '', detail: expect.stringContaining('1000000 points') }] }),
    ])
    const allowed = await post('history', { ...body, keys: keys.slice(0, 10), limit: 100_000 })
    expect(allowed.json()).toMatchObject({ sourcePoints: 1_000_000 })
    expect(await history({ ...body, downsample: 'lttb', points: 1000 })).toMatchObject({ downsampled: true, sourcePoints: 1_100_000 })
  }, 120_000)
})

describe('a file of several devices', () => {
  const body = async () => {
    const [pump, fan] = await twoDevices()
    return { pump, fan, question: { deviceIds: [pump.id, fan.id], keys: ['t', 'h'], from: t0, to: t0 + 3000, timeZone: 'UTC', lang: 'en' } }
  }

  it('has the rows of each device under its name, devices one after the other', async () => {
    const { pump, fan, question } = await body()
    const csv = await post('export', { ...question, format: 'csv' })
    expect(csv.headers['content-disposition']).toContain('filename="2 devices_2025-10-09_2025-10-09.csv"')
    expect(csv.text.split('\r\n')).toEqual([
      '\ufeff"time","utc_offset","device","key","value"',
      `2025-10-09 08:53:20.000,+00:00,"${pump.name}","t",1`,
      `2025-10-09 08:53:21.000,+00:00,"${pump.name}","h",50`,
      `2025-10-09 08:53:22.000,+00:00,"${pump.name}","t",9007199254740993`,
      `2025-10-09 08:53:21.000,+00:00,"${fan.name}","t",7`,
      `2025-10-09 08:53:22.000,+00:00,"${fan.name}","t",8`,
      '',
    ])
    const lines = await post('export', { ...question, format: 'ndjson' })
    expect(lines.text.split('\n')[3]).toBe(`{"ts":${t0 + 1000},"device":"${fan.name}","key":"t","value":7}`)
  })

  it('has a column for each device and key when it is wide', async () => {
    const { pump, fan, question } = await body()
    const csv = await post('export', { ...question, format: 'csv', layout: 'wide' })
    expect(csv.text.split('\r\n')).toEqual([
      `\ufeff"time","utc_offset","${pump.name} t","${pump.name} h","${fan.name} t","${fan.name} h"`,
      '2025-10-09 08:53:20.000,+00:00,1,,,',
      '2025-10-09 08:53:21.000,+00:00,,50,7,',
      '2025-10-09 08:53:22.000,+00:00,9007199254740993,,8,',
      '',
    ])
    const { rawPayload } = await server.app.inject({
      method: 'POST',
      url: '/api/v1/telemetry/export',
      headers: { 'x-caller': 'viewer' },
      payload: { ...question, format: 'xlsx', layout: 'wide' },
    })
    expect(
      readSheet(unzip(rawPayload))[2]!
        .map(({ at, value }) => [at, value])
        .slice(1),
    ).toEqual([
      ['B3', '+00:00'],
      ['D3', '50'],
      ['E3', '7'],
    ])
  })

  it('is refused when it would be too wide, too long, or about nobody', async () => {
    const { question } = await body()
    const wide = { ...question, keys: Array.from({ length: 26 }, (_, i) => `k${i}`), format: 'csv', layout: 'wide' }
    expect(await refusal('export', wide)).toEqual([422, 'UNPROCESSABLE', '/layout'])
    expect(await refusal('export', { ...question, format: 'ndjson', layout: 'wide' })).toEqual([422, 'UNPROCESSABLE', '/layout'])
    expect(await refusal('export', { ...question, format: 'csv', deviceIds: [randomUUID()] })).toEqual([404, 'NOT_FOUND', undefined])
    expect(await refusal('export', { ...question, format: 'pdf' })).toEqual([400, 'VALIDATION_FAILED', '/format'])
    expect((await post('export', { ...question, format: 'csv' }, 'stranger')).status).toBe(404)
    expect((await post('export', { ...question, format: 'csv' }, 'nobody')).status).toBe(401)
  })
})

it('is answered anew each time, also with an Idempotency-Key, which keeps no long answers', async () => {
  const platform = await startTestPlatform()
  try {
    const device = await platform.createDevice()
    const points = (count: number) => ({ ts: t0 + count, values: { t: count } })
    const write = (body: object) => platform.call('POST', `/api/v1/devices/${device.id}/telemetry`, { body })
    const ask = (path: string) =>
      platform.call('POST', `/api/v1/telemetry/${path}`, {
        body: {
          deviceIds: [device.id],
          keys: ['t'],
          from: t0,
          to: t0 + 20_000,
          ...(path === 'export' ? { format: 'csv' } : { limit: 100_000 }),
        },
        headers: { 'idempotency-key': `same-${path}` },
      })
    await write(Array.from({ length: 5000 }, (_, i) => points(i)))
    expect((await ask('history')).json()).toMatchObject({ sourcePoints: 5000 })
    expect((await ask('export')).text.split('\r\n')).toHaveLength(5002)
    await write([points(10_000)])
    expect((await ask('history')).json()).toMatchObject({ sourcePoints: 5001 })
    expect((await ask('export')).text.split('\r\n')).toHaveLength(5003)
  } finally {
    await platform.close()
  }
})
