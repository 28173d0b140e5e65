// SPDX-License-Identifier: AGPL-3.0-only
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { makeTestCertificate } from '../tls/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import type { TestResult } from './schemas.ts'
import { TestBroker, hasBroker } from './testing.ts'

describe.skipIf(!hasBroker)('a connector over TLS and WebSocket', () => {
  const authority = makeTestCertificate('Plant authority', { use: 'ca' })
  let platform: TestPlatform
  let tls: TestBroker
  let secureWs: TestBroker
  let ws: TestBroker

  beforeAll(async () => {
    platform = await startTestPlatform({ outbound: { policy: 'lan', allow: ['127.0.0.1', 'localhost'] } })
    tls = await startSecure({})
    secureWs = await startSecure({ ws: true })
    ws = await new TestBroker().start({ ws: true })
  })
  afterAll(async () => {
    await platform.close()
    for (const broker of [tls, secureWs, ws]) await broker.close()
  })

  /** With a certificate for `localhost` alone, by the plant's own authority. */
  async function startSecure(settings: { ws?: boolean }): Promise<TestBroker> {
    const broker = new TestBroker()
    const files = { cert: join(broker.folder, 'server.crt'), key: join(broker.folder, 'server.key') }
    const server = makeTestCertificate('localhost', { use: 'server', hosts: ['localhost'], issuer: authority })
    writeFileSync(files.cert, server.cert)
    writeFileSync(files.key, server.keyPem, { mode: 0o600 })
    return broker.start({ ...settings, tls: files })
  }

  async function test(url: string, change: Record<string, unknown> = {}): Promise<TestResult> {
    const answer = await platform.call('POST', '/api/v1/connectors/test', { body: { url, topics: ['#'], seconds: 1, ...change } })
    expect(answer.status, answer.text).toBe(200)
    return answer.json<TestResult>()
  }
  const ca = { caCertificate: authority.cert }

  it('trusts the authority it was given, and no other', async () => {
    expect(await test(`mqtts://localhost:${tls.port}`, ca)).toMatchObject({ ok: true })
    expect(await test(`mqtts://localhost:${tls.port}`)).toMatchObject({ ok: false, error: { code: 'TLS_FAILED' } })
    const other = makeTestCertificate('Another authority', { use: 'ca' })
    expect(await test(`mqtts://localhost:${tls.port}`, { caCertificate: other.cert })).toMatchObject({ error: { code: 'TLS_FAILED' } })
  })

  it('looks at the name in the certificate, though it connects to a checked address', async () => {
    expect(await test(`mqtts://127.0.0.1:${tls.port}`, ca)).toMatchObject({ ok: false, error: { code: 'TLS_FAILED' } })
  })

  it('speaks MQTT over WebSocket, plain and secure', async () => {
    expect(await test(`ws://127.0.0.1:${ws.port}/mqtt`)).toMatchObject({ ok: true })
    expect(await test(`ws://127.0.0.1:${ws.port}/mqtt`, { protocolVersion: 4 })).toMatchObject({ ok: true })
    expect(await test(`wss://localhost:${secureWs.port}/mqtt`, ca)).toMatchObject({ ok: true })
    expect(await test(`wss://localhost:${secureWs.port}/mqtt`)).toMatchObject({ ok: false, error: { code: 'TLS_FAILED' } })
  })

  it('says what is wrong where something else listens', async () => {
    const { error } = await test(`mqtt://localhost:${tls.port}`)
    expect(['CLOSED', 'CONNECTION_TIMEOUT', 'PROTOCOL_ERROR']).toContain(error?.code)
    expect(await test(`ws://127.0.0.1:${platform.ports.mqtt}/mqtt`)).toMatchObject({ ok: false, error: { code: 'PROTOCOL_ERROR' } })
  })

  it('stores what comes over a secure WebSocket', async () => {
    const body = {
      name: 'secure',
      url: `wss://localhost:${secureWs.port}/mqtt`,
      topics: ['t/+'],
      rules: [{ topic: 't/+', name: '{topic.2}' }],
      ...ca,
    }
    const { id } = (await platform.call('POST', '/api/v1/connectors', { body })).json<{ id: string }>()
    const status = async () =>
      (await platform.call('GET', `/api/v1/connectors/${id}`)).json<{ status: { state: string; points: number } }>().status
    await expect.poll(async () => (await status()).state, { timeout: 30_000 }).toBe('connected')
    const client = await secureWs.connect({ ca: authority.cert }, `wss://localhost:${secureWs.port}/mqtt`)
    await client.publishAsync('t/one', '{"v":1}', { qos: 1 })
    await expect.poll(async () => (await status()).points, { timeout: 20_000 }).toBe(1)
  })
})
