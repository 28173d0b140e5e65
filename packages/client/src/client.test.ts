// SPDX-License-Identifier: AGPL-3.0-only
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { startTestPlatform } from '@iot-pms/core/testing'
import type { TestPlatform } from '@iot-pms/core/testing'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { ApiError, Client, ConnectionError, NotificationHub, verifyWebhook } from './index.ts'
import type { WebhookError } from './index.ts'

type Seen = { method: string; url: string; headers: IncomingMessage['headers']; body: string }

/** A server that answers what it is told to, and keeps what it saw. */
async function startListener(answer: (seen: Seen, response: ServerResponse, index: number) => void) {
  const seen: Seen[] = []
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const one = { method: request.method ?? '', url: request.url ?? '', headers: request.headers, body: Buffer.concat(chunks).toString() }
      seen.push(one)
      answer(one, response, seen.length - 1)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { url, seen, close: () => new Promise<void>((resolve) => server.close(() => resolve()).closeAllConnections()) }
}
const problem = (response: ServerResponse, status: number, headers: Record<string, string> = {}) =>
  response
    .writeHead(status, { 'content-type': 'application/problem+json', ...headers })
    .end(JSON.stringify({ code: 'RATE_LIMITED', detail: 'slowly' }))

let platform: TestPlatform
let apiKey: string
let hook: Awaited<ReturnType<typeof startListener>>

beforeAll(async () => {
  hook = await startListener((_, response) => void response.writeHead(204).end())
  platform = await startTestPlatform({ outbound: { policy: 'lan', allow: ['127.0.0.1'] } })
  const scopes = ['device.read', 'device.write', 'notify.read', 'notify.write', 'notify.send']
  const made = await platform.call('POST', '/api/v1/api-keys', { body: { name: 'client', scopes, expiresInDays: 1 } })
  apiKey = made.json<{ key: string }>().key
})
afterAll(async () => {
  await platform.close()
  await hook.close()
})
const connect = (more: Record<string, unknown> = {}) => new Client({ url: platform.url, apiKey, ...more })

describe('a call', () => {
  it('is typed by its operation, and answers what the server said', async () => {
    const client = connect()
    const made = await client.call('POST /api/v1/devices', { body: { name: 'pump-1' } })
    const read = await client.call('GET /api/v1/devices/{id}', { path: { id: made.id } })
    expect(read.name).toBe('pump-1')
    const list = await client.call('GET /api/v1/devices', { query: { limit: 1 } })
    expect(list.items).toHaveLength(1)
    expect(await client.call('DELETE /api/v1/devices/{id}', { path: { id: made.id } })).toBeNull()
    // @ts-expect-error there is no such operation
    await expect(client.call('GET /api/v1/nothing')).rejects.toThrow(ApiError)
    // @ts-expect-error a path member is missing
    await expect(client.call('GET /api/v1/devices/{id}')).rejects.toThrow(TypeError)
  })

  it('throws what was refused with its code, pointers, and the id of the request', async () => {
    const client = connect()
    const error = await client.call('GET /api/v1/devices/{id}', { path: { id: 'x/../y?' } }).catch((one: unknown) => one)
    expect(error).toMatchObject({ name: 'ApiError', status: 404, code: 'NOT_FOUND', traceId: expect.any(String) })
    const bad = await client
      .call('POST /api/v1/notifications/messages', { body: { to: { receiver: 'nobody' }, text: 'x' } })
      .catch((one: unknown) => one)
    expect(bad).toMatchObject({ status: 422, code: 'NO_RECIPIENT', errors: [{ pointer: '/to/0' }] })
    await expect(connect({ apiKey: 'pmsk_wrong' }).call('GET /api/v1/devices')).rejects.toMatchObject({ status: 401 })
    expect(() => new Client({ url: 'iot.example.com', apiKey })).toThrow(TypeError)
  })

  it('is tried again after what passes, no sooner than asked, with the same key', async () => {
    const at: number[] = []
    const server = await startListener((_, response, index) => {
      at.push(Date.now())
      if (index === 0) return void problem(response, 429, { 'retry-after': '1' })
      if (index === 1) return void problem(response, 503)
      if (index === 2) return void response.destroy()
      response.writeHead(201, { 'content-type': 'application/json' }).end('{"id":"1"}')
    })
    const client = new Client({ url: `${server.url}/`, apiKey })
    expect(await client.call('POST /api/v1/devices', { body: { name: 'x' } })).toEqual({ id: '1' })
    expect(server.seen).toHaveLength(4)
    expect(at[1]! - at[0]!).toBeGreaterThanOrEqual(990)
    const keys = new Set(server.seen.map((one) => one.headers['idempotency-key']))
    expect([keys.size, typeof [...keys][0]]).toEqual([1, 'string'])
    expect(server.seen[0]!.headers.authorization).toBe(`ApiKey ${apiKey}`)
    await server.close()
  })

  it('gives up after its retries, and repeats neither what was refused for good nor a PATCH that may have arrived', async () => {
    const server = await startListener((one, response) => {
      if (one.method === 'PATCH') return void response.destroy()
      problem(response, one.url.includes('busy') ? 429 : 400, { 'retry-after': '0' })
    })
    const client = new Client({ url: server.url, apiKey, retries: 2 })
    await expect(client.call('GET /api/v1/devices/{id}', { path: { id: 'busy' } })).rejects.toMatchObject({ status: 429, retryAfterMs: 0 })
    expect(server.seen).toHaveLength(3)
    await expect(client.call('GET /api/v1/devices/{id}', { path: { id: 'bad' } })).rejects.toMatchObject({ status: 400 })
    expect(server.seen).toHaveLength(4)
    await expect(client.call('PATCH /api/v1/devices/{id}', { path: { id: 'a' }, body: { label: 'x' } })).rejects.toThrow(ConnectionError)
    expect(server.seen).toHaveLength(5)
    await server.close()
  })

  it('ends when its caller wants it to', async () => {
    const server = await startListener((_, response) => void problem(response, 429, { 'retry-after': '3600' }))
    const client = new Client({ url: server.url, apiKey })
    const controller = new AbortController()
    const waiting = client.call('GET /api/v1/devices', { signal: controller.signal })
    await vi.waitFor(() => expect(server.seen).toHaveLength(1), { timeout: 10_000 })
    controller.abort(new Error('enough'))
    await expect(waiting).rejects.toThrow('enough')
    await server.close()
  })
})

describe('a message by the client', () => {
  it('is followed to its end, and its webhook proves where it comes from', async () => {
    const client = connect()
    const hub = new NotificationHub(client)
    const channel = await client.call('POST /api/v1/notifications/channels', {
      body: { name: 'hook', type: 'webhook', config: { url: `${hook.url}/one` } },
    })
    const { id } = await hub.sendSmart({ to: { channelId: channel.id }, title: '一号冷库', text: '温度 9.5', priority: 'high' })
    const states: string[] = []
    for await (const event of hub.follow(id)) states.push(event.state)
    expect(states.at(-1)).toBe('sent')
    const [call] = hook.seen
    const secret = channel.signingSecret!
    const given = { headers: call!.headers, rawBody: call!.body, secret }
    expect(verifyWebhook(given)).toMatchObject({ id: call!.headers['webhook-id'], type: 'message', data: { title: '一号冷库' } })
    const codeOf = (change: Partial<typeof given>) => {
      try {
        verifyWebhook({ ...given, ...change })
      } catch (error) {
        return (error as WebhookError).code
      }
      return 'none'
    }
    expect(codeOf({ rawBody: call!.body.replace('9.5', '5.5') })).toBe('WEBHOOK_SIGNATURE')
    expect(codeOf({ secret: `whsec_${Buffer.alloc(32).toString('base64')}` })).toBe('WEBHOOK_SIGNATURE')
    expect(codeOf({ headers: { ...call!.headers, 'webhook-timestamp': '1700000000' } })).toBe('WEBHOOK_OLD')
    expect(codeOf({ headers: {} })).toBe('WEBHOOK_HEADERS')
  })

  it('is proved by a public key too', async () => {
    const client = connect()
    const channel = await client.call('POST /api/v1/notifications/channels', {
      body: { name: 'asymmetric', type: 'webhook', config: { url: `${hook.url}/two`, algorithm: 'v1a' } },
    })
    await new NotificationHub(client).sendSmart({ to: { channelId: channel.id }, text: 'x' })
    const call = () => hook.seen.find((one) => one.url === '/two')
    await vi.waitFor(() => expect(call()).toBeDefined(), { timeout: 20_000 })
    expect(
      verifyWebhook({ headers: new Headers(call()!.headers as Record<string, string>), rawBody: call()!.body, secret: channel.publicKey! })
        .type,
    ).toBe('message')
  })

  it('goes out in parts of a thousand, with the answers in order', async () => {
    const hub = new NotificationHub(connect())
    const { id: channelId } = await hub.client.call('POST /api/v1/notifications/channels', {
      body: { name: 'batch', type: 'webhook', config: { url: `${hook.url}/batch` } },
    })
    const scheduledAt = new Date(Date.now() + 3_600_000).toISOString()
    const messages = Array.from({ length: 1001 }, (_, i) => ({
      to: i === 1000 ? { receiver: 'nobody' } : { channelId },
      text: String(i),
      scheduledAt,
    }))
    const items = await hub.sendBatch(messages)
    expect(items.map((one) => one.index)).toEqual(messages.map((_, i) => i))
    expect(items.filter((one) => one.error)).toEqual([{ index: 1000, error: { code: 'NO_RECIPIENT', detail: expect.any(String) } }])
  }, 120_000)

  it('is what iot-pms-notify sends, which says how it ended by its exit code', async () => {
    const { id } = await connect().call('POST /api/v1/notifications/channels', {
      body: { name: 'shell', type: 'webhook', config: { url: `${hook.url}/shell` } },
    })
    const run = async (...args: string[]) => {
      const env = { ...process.env, IOT_PMS_URL: platform.url, IOT_PMS_API_KEY: apiKey }
      const child = spawn(process.execPath, [join(import.meta.dirname, 'notify.ts'), ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
      let text = ''
      child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
      child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()))
      const [code] = (await once(child, 'close')) as [number]
      return { code, text }
    }
    const good = await run('--channel', id, '--title', 'backup', 'it is done')
    expect([good.code, good.text.includes('webhook sent')], good.text).toEqual([0, true])
    expect(hook.seen.find((one) => one.url === '/shell')!.body).toContain('it is done')
    expect(await run('--to', 'nobody', 'x')).toMatchObject({ code: 2, text: expect.stringContaining('NO_RECIPIENT') })
    expect((await run('x')).code).toBe(64)
  })
})
