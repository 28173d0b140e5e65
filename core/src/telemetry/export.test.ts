// SPDX-License-Identifier: AGPL-3.0-only
import { get } from 'node:http'
import type { IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Device } from '../ingest/registry.ts'
import type { Point } from './points.ts'
import { readSheet, unzip } from './reading-xlsx.ts'
import { startReadingServer } from './testing.ts'
import type { Answer, ReadingServer } from './testing.ts'

let server: ReadingServer
beforeAll(async () => {
  server = await startReadingServer()
})
afterAll(() => server.close())

const t0 = Date.parse('2024-10-27T00:30:00Z')
const halfHour = 1_800_000
const range = `from=${t0}&to=${t0 + 100 * halfHour}`

async function exported(device: Device, query: string, headers: Record<string, string> = {}): Promise<Answer> {
  const answer = await server.call('GET', `/api/v1/devices/${device.id}/telemetry/export?format=csv&${query}`, { headers })
  expect(answer.status, answer.text.slice(0, 500)).toBe(200)
  return answer
}

setFlagsFromString('--expose-gc')
const collectGarbage = runInNewContext('gc') as () => void

/** Memory in use, without garbage. */
function liveBytes(): number {
  collectGarbage()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

/** Puts points into the store, in chunks as after a while. */
async function fill(device: Device, keys: string[], count: number, stepMs = 1): Promise<void> {
  for (let start = 0; start < count; start += 20_000) {
    const times = Array.from({ length: Math.min(20_000, count - start) }, (_, i) => start + i)
    for (const key of keys) {
      await server.write(
        device,
        times.map((i): Point => ({ key, ts: t0 + i * stepMs, kind: 'integer', value: i })),
      )
    }
  }
  await server.store.compact()
}

describe('a CSV file', () => {
  it('has a byte order mark, CRLF, a header in the language, and tells a repeated hour apart', async () => {
    const device = await server.createDevice({ name: 'pump "1"', timeZone: 'Europe/Berlin' })
    await server.write(device, [
      { key: 't', ts: t0, kind: 'double', value: -21.5 },
      { key: 't', ts: t0 + 2 * halfHour, kind: 'double', value: 42 },
      { key: 'note', ts: t0 + 2 * halfHour, kind: 'string', value: '=1+1 "x"' },
      { key: 't', ts: t0 + 3 * halfHour, kind: 'integer', value: -9223372036854775808n },
      { key: 'note', ts: t0 + 4 * halfHour, kind: 'boolean', value: true },
      { key: 'note', ts: t0 + 5 * halfHour, kind: 'json', value: '{"a":1}' },
    ])
    const answer = await exported(device, `keys=t,note&${range}`)
    expect(answer.headers['content-type']).toBe('text/csv; charset=utf-8')
    expect(answer.text).toBe(
      [
        '\ufeff"时间","时区偏移","设备","键","值"',
        '2024-10-27 02:30:00.000,+02:00,"pump ""1""","t",-21.5',
        '2024-10-27 02:30:00.000,+01:00,"pump ""1""","t",42',
        '2024-10-27 02:30:00.000,+01:00,"pump ""1""","note","\'=1+1 ""x"""',
        '2024-10-27 03:00:00.000,+01:00,"pump ""1""","t",-9223372036854775808',
        '2024-10-27 03:30:00.000,+01:00,"pump ""1""","note",true',
        '2024-10-27 04:00:00.000,+01:00,"pump ""1""","note","{""a"":1}"',
        '',
      ].join('\r\n'),
    )
    const wide = await exported(device, `keys=t,note&${range}&layout=wide&lang=en`)
    expect(wide.text.split('\r\n').slice(0, 4)).toEqual([
      '\ufeff"time","utc_offset","t","note"',
      '2024-10-27 02:30:00.000,+02:00,-21.5,',
      '2024-10-27 02:30:00.000,+01:00,42,"\'=1+1 ""x"""',
      '2024-10-27 03:00:00.000,+01:00,-9223372036854775808,',
    ])
  })

  it('guards device names and keys as well', async () => {
    const device = await server.createDevice({ name: '=cmd' })
    await server.write(device, [{ key: '@key', ts: t0, kind: 'integer', value: 1 }])
    expect((await exported(device, `keys=@key&${range}&lang=en`)).text).toContain(`"'=cmd","'@key",1`)
    expect((await exported(device, `keys=@key&${range}&layout=wide`)).text).toContain(`"'@key"`)
  })

  it('takes its language from the request when none is asked for', async () => {
    const device = await server.createDevice()
    expect((await exported(device, `keys=x&${range}`, { 'accept-language': 'en-GB' })).text).toBe(
      '\ufeff"time","utc_offset","device","key","value"\r\n',
    )
  })

  it('is named after the device and the days, harmless for headers and file systems', async () => {
    const device = await server.createDevice({ name: '水泵/1"\\ é', timeZone: 'Asia/Shanghai' })
    const answer = await exported(device, `keys=x&from=2024-10-26T16:00:00Z&to=2024-10-28T00:00:00Z`)
    expect(answer.headers['content-disposition']).toBe(
      `attachment; filename="___1__ __2024-10-27_2024-10-28.csv"; filename*=UTF-8''${encodeURIComponent('水泵_1__ é_2024-10-27_2024-10-28.csv')}`,
    )
  })

  it('shows seconds in offsets of long ago and stands the end of time', async () => {
    const device = await server.createDevice({ timeZone: 'Africa/Monrovia' })
    await server.write(device, [{ key: 'x', ts: 1000, kind: 'integer', value: 1 }])
    expect((await exported(device, 'keys=x&from=0&to=8640000000000000')).text).toContain('1969-12-31 23:15:31.000,-00:44:30,')
  })

  it('holds aggregated and downsampled history, several aggregations told apart', async () => {
    const device = await server.createDevice({ timeZone: 'UTC' })
    await fill(device, ['a', 'b'], 4000, 1000)
    const hourly = await exported(device, `keys=a,b&${range}&agg=MAX,COUNT&intervalType=hour&layout=wide&lang=en`)
    expect(hourly.text.split('\r\n')).toEqual([
      '\ufeff"time","utc_offset","a MAX","a COUNT","b MAX","b COUNT"',
      '2024-10-27 00:00:00.000,+00:00,1799,1800,1799,1800',
      '2024-10-27 01:00:00.000,+00:00,3999,2200,3999,2200',
      '',
    ])
    const single = await exported(device, `keys=a&${range}&agg=MAX&intervalType=day&lang=en&order=desc`)
    expect(single.text.split('\r\n')[1]).toMatch(/^2024-10-27 00:00:00\.000,\+00:00,".+","a",3999$/)
    const few = await exported(device, `keys=a&${range}&downsample=lttb&points=50`)
    expect(few.text.split('\r\n')).toHaveLength(52)
  })

  it('keeps the newest points first when asked, and no more per key than the limit', async () => {
    const device = await server.createDevice()
    await fill(device, ['a', 'b'], 100)
    const values = (text: string) =>
      text
        .split('\r\n')
        .slice(1, -1)
        .map((line) => line.split(',').slice(-2).join(' '))
    const answer = await exported(device, `keys=b,a&${range}&order=desc&limit=2`)
    expect(values(answer.text)).toEqual(['"b" 99', '"a" 99', '"b" 98', '"a" 98'])
  })
})

describe('a workbook', () => {
  async function sheet(device: Device, query: string): Promise<{ value: string; type: string; style: string }[][]> {
    const { rawPayload, headers } = await server.app.inject({
      url: `/api/v1/devices/${device.id}/telemetry/export?format=xlsx&${query}`,
      headers: { 'x-caller': 'viewer' },
    })
    expect(headers['content-type']).toBe('application/vnd.openxmlformats-officedocument.spreadsheetml.sheet')
    expect(headers['content-disposition']).toMatch(/_2024-10-27_2024-10-29\.xlsx"/)
    return readSheet(unzip(rawPayload))
  }

  it('holds the same rows, times as dates of the wall clock, numbers as numbers', async () => {
    const device = await server.createDevice({ name: '=pump', timeZone: 'Europe/Berlin' })
    await server.write(device, [
      { key: 't', ts: t0, kind: 'double', value: -21.5 },
      { key: 't', ts: t0 + 2 * halfHour, kind: 'integer', value: -9223372036854775808n },
      { key: 'note', ts: t0 + 2 * halfHour, kind: 'string', value: '@x' },
    ])
    const long = await sheet(device, `keys=t,note&${range}`)
    expect(long.map((row) => row.slice(1).map(({ value }) => value))).toEqual([
      ['时区偏移', '设备', '键', '值'],
      ['+02:00', "'=pump", 't', '-21.5'],
      ['+01:00', "'=pump", 't', '-9223372036854775808'],
      ['+01:00', "'=pump", 'note', "'@x"],
    ])
    // 02:30 by the wall clock, twice.
    const times = long.slice(1).map((row) => Math.round((Number(row[0]!.value) - 25_569) * 86_400_000))
    expect(new Set(times)).toEqual(new Set([Date.parse('2024-10-27T02:30:00Z')]))
    expect(long[1]!.map(({ type }) => type)).toEqual(['n', 'inlineStr', 'inlineStr', 'inlineStr', 'n'])
    expect(long[2]![4]!.type).toBe('inlineStr')
    const wide = await sheet(device, `keys=t,note&${range}&layout=wide&lang=en`)
    expect(wide.map((row) => row.slice(1).map(({ value }) => value))).toEqual([
      ['utc_offset', 't', 'note'],
      ['+02:00', '-21.5'],
      ['+01:00', '-9223372036854775808', "'@x"],
    ])
  })

  it('is refused above a million rows like a CSV file', async () => {
    const device = await server.createDevice()
    await fill(device, ['x'], 1_000_001)
    const url = (format: string) => `/api/v1/devices/${device.id}/telemetry/export?format=${format}&${range}&keys=x`
    const answer = await server.call('GET', url('xlsx'))
    expect([answer.status, answer.json()['code']]).toEqual([413, 'EXPORT_TOO_LARGE'])
    // Lines of JSON know no such limit.
    const lines = await server.call('GET', url('ndjson'))
    expect(lines.text.split('\n')).toHaveLength(1_000_002)
  }, 120_000)
})

describe('lines of JSON', () => {
  const lines = async (device: Device, query: string) => {
    const answer = await server.call('GET', `/api/v1/devices/${device.id}/telemetry/export?format=ndjson&${range}&${query}`)
    expect(answer.headers['content-type']).toBe('application/x-ndjson; charset=utf-8')
    expect(answer.headers['content-disposition']).toMatch(/\.ndjson"/)
    return answer.text
  }

  it('hold a value each, exact as in history, in time order', async () => {
    const device = await server.createDevice({ name: 'pump "2"' })
    await server.write(device, [
      { key: 't', ts: t0, kind: 'double', value: -21.5 },
      { key: 't', ts: t0 + 2, kind: 'integer', value: 9007199254740993n },
      { key: 'note', ts: t0 + 1, kind: 'string', value: '=1\n' },
      { key: 'note', ts: t0 + 3, kind: 'json', value: '{"a":1.0}' },
    ])
    expect(await lines(device, 'keys=t,note')).toBe(
      `{"ts":${t0},"device":"pump \\"2\\"","key":"t","value":-21.5}\n` +
        `{"ts":${t0 + 1},"device":"pump \\"2\\"","key":"note","value":"=1\\n"}\n` +
        `{"ts":${t0 + 2},"device":"pump \\"2\\"","key":"t","value":"9007199254740993"}\n` +
        `{"ts":${t0 + 3},"device":"pump \\"2\\"","key":"note","value":{"a":1.0}}\n`,
    )
    expect(await lines(device, 'keys=nothing')).toBe('')
  })

  it('name the aggregation of buckets, and null for those to be filled', async () => {
    const device = await server.createDevice({ name: 'p' })
    await server.write(device, [{ key: 't', ts: t0, kind: 'integer', value: 3 }])
    const query = 'keys=t&agg=MAX,COUNT&intervalType=hour'
    const some = (await lines(device, `${query}&fill=null`)).split('\n')
    expect(some.slice(0, 3)).toEqual([
      `{"ts":${t0 - halfHour},"device":"p","key":"t","agg":"MAX","value":3}`,
      `{"ts":${t0 - halfHour},"device":"p","key":"t","agg":"COUNT","value":1}`,
      `{"ts":${t0 + halfHour},"device":"p","key":"t","agg":"MAX","value":null}`,
    ])
    expect((await lines(device, query)).split('\n')).toHaveLength(3)
  })

  it('have no wide form', async () => {
    const device = await server.createDevice()
    const answer = await server.call('GET', `/api/v1/devices/${device.id}/telemetry/export?format=ndjson&${range}&keys=x&layout=wide`)
    expect([answer.status, answer.json()]).toEqual([
      422,
      expect.objectContaining({ code: 'UNPROCESSABLE', errors: [expect.objectContaining({ pointer: '?layout' })] }),
    ])
  })
})

describe('a large file', () => {
  it('is refused above a million rows with their number, before anything is sent', async () => {
    const device = await server.createDevice()
    await fill(device, ['x', 'y'], 600_000)
    const url = (query: string) => `/api/v1/devices/${device.id}/telemetry/export?format=csv&${range}&${query}`
    const long = await server.call('GET', url('keys=x,y'), { headers: { 'accept-language': 'en' } })
    expect([long.status, long.json()]).toEqual([
      413,
      expect.objectContaining({ code: 'EXPORT_TOO_LARGE', detail: expect.stringContaining('1200000') }),
    ])
    expect(long.headers['content-disposition']).toBeUndefined()
    // The same points are 600,000 rows of a wide file.
    const wide = await server.call('GET', url('keys=x,y&layout=wide&lang=en'))
    expect(wide.status).toBe(200)
    expect(wide.text.split('\r\n')).toHaveLength(600_002)
    expect(wide.text.slice(-60)).toMatch(/,599999,599999\r\n$/)
  }, 120_000)

  it('flows no faster than it is read, in little memory, and stops with its reader', async () => {
    const device = await server.createDevice()
    const keys = ['p', 'q', 'r', 's', 't']
    await fill(device, keys, 200_000)
    await server.app.listen({ port: 0, host: '127.0.0.1' })
    const { port } = server.app.server.address() as AddressInfo
    const url = `http://127.0.0.1:${port}/api/v1/devices/${device.id}/telemetry/export?format=csv&${range}&keys=${keys.join(',')}`

    const read = async (limit: number) =>
      new Promise<{ bytes: number; rows: number; peak: number }>((resolve, reject) => {
        let bytes = 0
        let rows = 0
        let peak = 0
        let measured = 0
        get(url, { headers: { 'x-caller': 'viewer' } }, (response) => {
          response.on('data', (chunk: Buffer) => {
            bytes += chunk.length
            for (let at = chunk.indexOf(10); at >= 0; at = chunk.indexOf(10, at + 1)) rows++
            if (bytes > measured + 4_000_000) {
              measured = bytes
              peak = Math.max(peak, liveBytes())
            }
            if (bytes > limit) response.destroy()
          })
          response.on('close', () => resolve({ bytes, rows, peak }))
        }).on('error', reject)
      })

    const before = liveBytes()
    const all = await read(Number.POSITIVE_INFINITY)
    expect(all.rows).toBe(1_000_001)
    expect(all.bytes).toBeGreaterThan(60_000_000)
    expect((all.peak - Math.min(before, liveBytes())) / 1_048_576).toBeLessThan(64)

    // While a reader stands still nothing piles up: two seconds of writing on would be some 20 MiB.
    const stalled = await new Promise<IncomingMessage>((resolve, reject) =>
      get(url, { headers: { 'x-caller': 'viewer' } }, resolve).on('error', reject),
    )
    stalled.pause()
    await sleep(1000)
    const early = liveBytes()
    await sleep(2000)
    expect((liveBytes() - early) / 1_048_576).toBeLessThan(5)
    stalled.destroy()

    await read(1_000_000)
    await sleep(500)
    const busy = await server.context.db.withRole('pms_jobs', (tx) =>
      tx.execute<{ count: string }>(
        sql`select count(*) from pg_stat_activity where datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()`,
      ),
    )
    expect(Number(busy[0]!.count)).toBe(0)
  }, 120_000)
})
