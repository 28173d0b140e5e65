// SPDX-License-Identifier: AGPL-3.0-only
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../../testing.ts'
import type { TestAnswer, TestPlatform } from '../../testing.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterAll(() => platform.close())

const path = '/api/v2/write?org=any&bucket=any&precision=ns'

function write(token: string, body: string | Buffer, headers: Record<string, string> = {}, to = path): Promise<TestAnswer> {
  const type = { 'content-type': 'text/plain; charset=utf-8' }
  return platform.call('POST', to, { body, token: null, headers: { ...type, authorization: `Token ${token}`, ...headers } })
}

type Point = { key: string; ts: number; value: unknown; kind: string }

async function latest(id: string): Promise<Record<string, Point>> {
  const { items } = (await platform.call('GET', `/api/v1/devices/${id}/telemetry`)).json<{ items: Point[] }>()
  return Object.fromEntries(items.map((item) => [item.key, item]))
}
const values = async (id: string) => Object.fromEntries(Object.entries(await latest(id)).map(([key, { value }]) => [key, value]))

describe('POST /api/v2/write', () => {
  it('takes what Telegraf sends: gzip, nanoseconds, many measurements; 204 after the commit [M-27]', async () => {
    const device = await platform.createDevice()
    const lines = [
      'cpu,cpu=cpu-total,host=edge-1 usage_idle=97.5,usage_user=1.25 1763690000123456789',
      'cpu,cpu=cpu0,host=edge-1 usage_idle=96 1763690000123456789',
      'mem,host=edge-1 used=8123456789i,available_percent=41.2 1763690000123456789',
      String.raw`disk,device=sda1,fstype=ext4,host=edge-1,path=/mnt/a\ b used_percent=12.5 1763690000123456789`,
      'system,host=edge-1 uptime_format="3 days, 4:05" 1763690000123456789',
    ]
    const body = gzipSync(`${lines.join('\n')}\n`)
    const answer = await write(device.token, body, { 'content-encoding': 'gzip', 'user-agent': 'Telegraf/1.32.0 Go/1.23' })
    expect([answer.status, answer.text]).toEqual([204, ''])
    const found = await latest(device.id)
    expect(Object.fromEntries(Object.values(found).map(({ key, value }) => [key, value]))).toEqual({
      'cpu_usage_idle[cpu=cpu-total]': 97.5,
      'cpu_usage_user[cpu=cpu-total]': 1.25,
      'cpu_usage_idle[cpu=cpu0]': 96,
      mem_used: 8123456789,
      mem_available_percent: 41.2,
      'disk_used_percent[device=sda1;fstype=ext4;path=/mnt/a b]': 12.5,
      system_uptime_format: '3 days, 4:05',
    })
    expect(new Set(Object.values(found).map(({ ts }) => ts))).toEqual(new Set([1_763_690_000_123]))
    expect([found['cpu_usage_idle[cpu=cpu0]']!.kind, found['mem_used']!.kind]).toEqual(['double', 'integer'])
  })

  it.each([
    ['ns', '1763690000123999999', 1_763_690_000_123],
    ['us', '1763690000123999', 1_763_690_000_123],
    ['ms', '1763690000123', 1_763_690_000_123],
    ['s', '1763690000', 1_763_690_000_000],
  ])('reads timestamps in %s exactly down to the ms', async (precision, time, ts) => {
    const device = await platform.createDevice()
    expect((await write(device.token, `m v=1 ${time}`, {}, `/api/v2/write?precision=${precision}`)).status).toBe(204)
    expect((await latest(device.id))['m_v']!.ts).toBe(ts)
  })

  it('gives lines without a timestamp the time of the server, each its own [V-6]', async () => {
    const device = await platform.createDevice()
    const before = Date.now()
    expect((await write(device.token, 'm a=1\nm a=2')).status).toBe(204)
    const { ts, value } = (await latest(device.id))['m_a']!
    expect(value).toBe(2)
    expect(ts).toBeGreaterThanOrEqual(before)
    const history = await platform.call('GET', `/api/v1/devices/${device.id}/telemetry/history?keys=m_a&from=${before - 5}&to=${ts + 1}`)
    expect(history.json<{ series: { points: unknown[] }[] }>().series[0]!.points).toHaveLength(2)
  })

  it('stores the good lines beside bad ones and answers 400 with the line', async () => {
    const device = await platform.createDevice()
    const future = BigInt(Date.now() + 400 * 86_400_000) * 1_000_000n
    const answer = await write(device.token, `m a=1\nnonsense\nm b=2\nm c=3 ${future}`)
    expect(answer.status).toBe(400)
    expect(answer.json()).toMatchObject({ code: 'invalid', line: 2, message: expect.stringContaining('partial write: 2 points stored') })
    expect(answer.text).toContain('line 2: missing fields')
    expect(answer.text).toContain('TS_FUTURE')
    expect(await values(device.id)).toEqual({ m_a: 1, m_b: 2 })
    const rejects = async () =>
      (await platform.call('GET', `/api/v1/devices/${device.id}/rejects`)).json<{
        items: { code: string; sample: string; topic: string }[]
      }>().items
    await expect
      .poll(async () => (await rejects()).map(({ code }) => code).sort(), { timeout: 10_000 })
      .toEqual(['PAYLOAD_MALFORMED', 'TS_FUTURE'])
    const malformed = (await rejects()).find(({ code }) => code === 'PAYLOAD_MALFORMED')!
    expect([malformed.sample, malformed.topic]).toEqual(['nonsense', '/api/v2/write'])
  })

  it('answers 400 where nothing of it can be read, and 204 to nothing at all', async () => {
    const device = await platform.createDevice()
    expect((await write(device.token, 'nonsense')).json()).toMatchObject({ code: 'invalid', line: 1 })
    expect((await write(device.token, Buffer.from([0x6d, 0x20, 0xff]))).json()).toMatchObject({ code: 'invalid' })
    expect((await write(device.token, 'm v=1', {}, '/api/v2/write?precision=days')).json()).toMatchObject({ code: 'invalid' })
    for (const empty of ['', '\n', '# nothing']) expect((await write(device.token, empty)).status).toBe(204)
    expect(await values(device.id)).toEqual({})
  })

  it('answers 401 to an unknown token and to none', async () => {
    for (const headers of [{ authorization: 'Token nonsense' }, { authorization: '' }] as Record<string, string>[]) {
      const answer = await write('', 'm v=1', headers)
      expect([answer.status, answer.json()['code']]).toEqual([401, 'unauthorized'])
    }
  })

  it('takes the token as Bearer, and in the forms of the first version', async () => {
    const device = await platform.createDevice()
    expect((await write(device.token, 'm a=1', { authorization: `Bearer ${device.token}` })).status).toBe(204)
    expect((await write('', 'm b=2', { authorization: '' }, `/write?db=any&u=any&p=${device.token}&precision=ms`)).status).toBe(204)
    expect(await values(device.id)).toEqual({ m_a: 1, m_b: 2 })
  })

  it('refuses what is too large, compressed or not, and what is no gzip', async () => {
    const device = await platform.createDevice()
    const bomb = gzipSync(Buffer.alloc(4_194_305, '\n'))
    for (const [body, headers, status] of [
      [Buffer.alloc(1_048_577, '\n'), {}, 413],
      [bomb, { 'content-encoding': 'gzip' }, 413],
      ['m v=1', { 'content-encoding': 'gzip' }, 400],
      ['m v=1', { 'content-encoding': 'br' }, 415],
    ] as [string | Buffer, Record<string, string>, number][]) {
      const answer = await write(device.token, body, headers)
      expect([answer.status, typeof answer.json()['message']]).toEqual([status, 'string'])
    }
  })

  it('takes more points than a message of a device may hold, since agents send many lines at a time', async () => {
    const device = await platform.createDevice()
    const body = Array.from({ length: 12_000 }, (_, index) => `m v=${index}i ${1_763_690_000_000 + index}`).join('\n')
    expect((await write(device.token, body, {}, '/api/v2/write?precision=ms')).status).toBe(204)
    const counted = await platform.call(
      'GET',
      `/api/plugins/telemetry/DEVICE/${device.id}/values/timeseries?keys=m_v&startTs=1763690000000&endTs=1763690012000&agg=COUNT&interval=12000`,
    )
    expect(counted.json<{ m_v: { value: string }[] }>().m_v[0]!.value).toBe('12000')
  }, 60_000)

  it('answers 429 with Retry-After above the rate of the product', async () => {
    const product = await platform.call('POST', '/api/v1/products', {
      body: { name: 'slow agents', limits: { device: { messages: '1:600' } } },
    })
    const device = await platform.createDevice({ productId: product.json<{ id: string }>().id })
    expect((await write(device.token, 'm v=1')).status).toBe(204)
    const answer = await write(device.token, 'm v=2')
    expect([answer.status, answer.json()['code']]).toEqual([429, 'too many requests'])
    expect(Number(answer.headers.get('retry-after'))).toBeGreaterThan(5)
  })

  it('brings lines of a gateway with a tag device to its children, and of nobody else', async () => {
    const gateway = await platform.createDevice({ gateway: true })
    const body = 'env,device=influx-child-1 t=21.5\nenv,device=influx-child-2,room=a t=19\nenv t=7'
    expect((await write(gateway.token, body)).status).toBe(204)
    expect(await values(gateway.id)).toEqual({ env_t: 7 })
    const list = (await platform.call('GET', '/api/v1/devices?q=influx-child&sort=name')).json<{ items: { id: string; name: string }[] }>()
      .items
    expect(list.map(({ name }) => name).sort()).toEqual(['influx-child-1', 'influx-child-2'])
    const byName = new Map(list.map(({ id, name }) => [name, id]))
    expect(await values(byName.get('influx-child-1')!)).toEqual({ env_t: 21.5 })
    expect(await values(byName.get('influx-child-2')!)).toEqual({ 'env_t[room=a]': 19 })
    const plain = await platform.createDevice()
    expect((await write(plain.token, 'env,device=influx-child-1 t=1')).status).toBe(204)
    expect(await values(plain.id)).toEqual({ 'env_t[device=influx-child-1]': 1 })
    expect(await values(byName.get('influx-child-1')!)).toEqual({ env_t: 21.5 })
  })
})
