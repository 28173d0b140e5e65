// SPDX-License-Identifier: AGPL-3.0-only
import { once } from 'node:events'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'

let platform: TestPlatform
const open: Socket[] = []
beforeAll(async () => {
  platform = await startTestPlatform()
})
afterEach(async () => {
  for (const socket of open.splice(0)) socket.destroy()
  await sleep(100)
})
afterAll(() => platform.close())

/** Sends bytes and leaves the connection open. */
async function start(bytes: string): Promise<Socket & { answer: string }> {
  const socket = Object.assign(connect(platform.ports.http!, '127.0.0.1'), { answer: '' })
  open.push(socket)
  socket.on('data', (chunk) => (socket.answer += String(chunk)))
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.write(bytes)
  return socket
}

async function answerOf(socket: { answer: string }, waitMs = 3000): Promise<string> {
  for (let waited = 0; waited < waitMs && !socket.answer.includes('\r\n\r\n'); waited += 10) await sleep(10)
  return socket.answer
}

const post = (token: string, length: string) => `POST /api/v1/${token}/telemetry HTTP/1.1\r\nHost: x\r\n${length}\r\n\r\n`
const declared = (token: string, bytes: number) => start(post(token, `Content-Length: ${bytes}`))
const send = (token: string, body: unknown = { a: 1 }) => platform.call('POST', `/api/v1/${token}/telemetry`, { body, token: null })

describe('the memory of device bodies [RE-50]', () => {
  it('one device holds at most 8 MiB of unfinished bodies, declared or chunked; others are served', async () => {
    const [one, other] = [await platform.createDevice(), await platform.createDevice()]
    for (let i = 0; i < 4; i++) await declared(one.token, 1_048_576)
    for (let i = 0; i < 4; i++) await start(post(one.token, 'Transfer-Encoding: chunked'))
    await sleep(100)
    const answer = await answerOf(await declared(one.token, 7))
    expect(answer).toMatch(/^HTTP\/1\.1 503 /)
    expect(answer).toMatch(/retry-after: 1\r\n/i)
    expect(answer).toContain('"OVERLOADED"')
    expect((await send(other.token)).status).toBe(200)
    open.pop()!.destroy()
    open.pop()!.destroy()
    await sleep(100)
    expect((await send(one.token)).status).toBe(200)
  })

  it('all devices together hold at most 32 MiB, whoever sends', async () => {
    const devices = await Promise.all(Array.from({ length: 5 }, () => platform.createDevice()))
    for (const { token } of devices.slice(0, 4)) for (let i = 0; i < 8; i++) await declared(token, 1_048_576)
    await sleep(100)
    expect(await answerOf(await declared(devices[4]!.token, 7))).toMatch(/^HTTP\/1\.1 503 /)
    for (const socket of open.splice(0)) socket.destroy()
    await sleep(100)
    expect((await send(devices[4]!.token)).status).toBe(200)
  })

  it('one device has at most 250 requests in flight', async () => {
    const [one, other] = [await platform.createDevice(), await platform.createDevice()]
    for (let i = 0; i < 250; i++) await declared(one.token, 7)
    await sleep(200)
    expect((await send(one.token)).status).toBe(503)
    expect((await send(other.token)).status).toBe(200)
  })

  it('a full buffer is answered before the body has come', async () => {
    const device = await platform.createDevice()
    await send(device.token)
    const admin = postgres(platform.context.config.database.migrateUrl!, { max: 1, onnotice: () => {} })
    const sending: Promise<unknown>[] = []
    await admin.begin(async (tx) => {
      const [active] = await tx`select segment_no from telemetry_segments where state = 'active'`
      await tx.unsafe(`lock table telemetry_segment_${active!['segment_no']} in access exclusive mode`)
      const points = Array.from({ length: 10_000 }, (_, i) => ({ ts: Date.now() - i, values: { a: i } }))
      for (let i = 0; i < 60 && !platform.ingest.pipeline.isFull; i++) {
        sending.push(send(device.token, points))
        await sleep(50)
      }
      expect(platform.ingest.pipeline.isFull).toBe(true)
      expect(await answerOf(await declared(device.token, 1000))).toMatch(/^HTTP\/1\.1 503 /)
    })
    await Promise.all(sending)
    await admin.end()
    expect((await send(device.token)).status).toBe(200)
  })
})

describe('the load of all HTTP requests [RE §7]', () => {
  it('2,000 may be in flight, then 503; probes are answered all the same, and closed connections count no more', async () => {
    const login = 'POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n'
    for (let i = 0; i < 2000; i++) await start(login)
    await sleep(200)
    const refused = await platform.call('GET', '/api/v1/setup', { token: null })
    expect([refused.status, refused.headers.get('retry-after'), refused.json()['code']]).toEqual([503, '1', 'OVERLOADED'])
    expect(refused.headers.get('x-content-type-options')).toBe('nosniff')
    expect((await platform.call('GET', '/livez', { token: null })).status).toBe(200)
    for (const socket of open.splice(0)) socket.destroy()
    await sleep(300)
    expect((await platform.call('GET', '/api/v1/devices')).status).toBe(200)
  })

  it('answers that waited in line when their connection closed count no more', async () => {
    const get = 'GET /api/v1/auth/none HTTP/1.1\r\nHost: x\r\n\r\n'
    const slow = `GET /api/v1/devices HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${platform.token}\r\n\r\n`
    for (let i = 0; i < 40; i++) {
      const socket = await start((slow + get.repeat(10)).repeat(10))
      setTimeout(() => socket.destroy(), 4)
      await sleep(8)
    }
    await sleep(300)
    expect((await platform.call('GET', '/api/v1/devices')).status).toBe(200)
  })

  it('public routes take bodies up to 16 KiB', async () => {
    for (const path of ['/api/v1/auth/login', '/api/v1/auth/reset', '/api/v1/setup', '/api/auth/login']) {
      const answer = await platform.call('POST', path, { body: { email: 'x'.repeat(16_384) }, token: null })
      expect(answer.status, path).toBe(413)
      if (path.startsWith('/api/v1/')) {
        expect(answer.json()).toMatchObject({ code: 'BODY_TOO_LARGE', detail: expect.stringContaining('16') })
      }
    }
    const small = await platform.call('POST', '/api/v1/auth/login', { body: { email: 'a@b.c', password: 'x'.repeat(900) }, token: null })
    expect(small.status).toBe(401)
  })
})
