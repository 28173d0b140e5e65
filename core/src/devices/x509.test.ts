// SPDX-License-Identifier: AGPL-3.0-only
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { IClientOptions } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connectPatiently } from '../ingest/mqtt/testing.ts'
import { startTestPlatform } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { makeTestCertificate } from '../tls/testing.ts'
import type { TestCertificate } from '../tls/testing.ts'

let platform: TestPlatform
beforeAll(async () => {
  platform = await startTestPlatform({ mqtt: { port: 0, tlsPort: 0, host: '127.0.0.1', maxSessions: 1000, connectRate: 500 } })
})
afterAll(() => platform.close())

const dayMs = 86_400_000

/** With a client certificate, in MQTT 5 unless told otherwise. */
function connect({ cert, keyPem }: TestCertificate, options: IClientOptions = {}) {
  const ca = readFileSync(join(platform.context.config.dataDir, 'tls/server.crt'), 'utf8')
  return connectPatiently(`mqtts://127.0.0.1:${platform.ports.mqtts}`, { ca, cert, key: keyPem, protocolVersion: 5, ...options })
}

/** Reason code of a refused CONNECT. */
async function refusal(certificate: TestCertificate, options: IClientOptions = {}): Promise<number | undefined> {
  try {
    await (await connect(certificate, options)).endAsync()
    return 0
  } catch (error) {
    return (error as { code?: number }).code
  }
}

async function createDevice(certificate: TestCertificate) {
  const device = await platform.createDevice()
  const answer = await platform.call('PUT', `/api/v1/devices/${device.id}/credentials`, { body: { type: 'x509', pem: certificate.cert } })
  expect(answer.status).toBe(200)
  return device
}

describe('a device with a certificate', () => {
  it.each([4, 5] as const)('[X-2] connects with it, whatever name and password it gives, MQTT %i', async (protocolVersion) => {
    const certificate = makeTestCertificate('pump')
    const device = await createDevice(certificate)
    for (const names of [{}, { username: 'nobody', password: 'wrong' }, { username: device.token }]) {
      const client = await connect(certificate, { protocolVersion, ...names })
      await client.publishAsync('v1/devices/me/telemetry', '{"a":1}', { qos: 1 })
      const { session } = (await platform.call('GET', `/api/v1/devices/${device.id}/session`)).json<{ session: object }>()
      expect(session).toMatchObject({ tls: true, protocol: protocolVersion })
      await client.endAsync()
    }
  })

  it('[X-2] is refused when the certificate is unknown: no fall-through to a good token', async () => {
    const device = await platform.createDevice()
    expect(await refusal(makeTestCertificate('stranger'), { username: device.token })).toBe(0x87)
    expect(await refusal(makeTestCertificate('stranger'), { username: device.token, protocolVersion: 4 })).toBe(5)
  })

  it('[X-2] is refused before and after its time, by however little, and when it is not meant for clients', async () => {
    const now = Date.now()
    for (const wish of [
      { notBefore: new Date(now - 10 * dayMs), notAfter: new Date(now - 3_600_000) },
      { notBefore: new Date(now + 3_600_000), notAfter: new Date(now + dayMs) },
      { use: 'server' as const },
    ]) {
      const certificate = makeTestCertificate('bad', wish)
      await createDevice(certificate)
      expect(await refusal(certificate)).toBe(0x87)
    }
    // Without an extended usage anything goes.
    const authority = makeTestCertificate('no usage', { use: 'ca' })
    await createDevice(authority)
    expect(await refusal(authority)).toBe(0)
  })

  it('[X-2] [M-19] loses its session when the certificate is replaced, and connects with the new one', async () => {
    const [old, renewed] = [makeTestCertificate('old'), makeTestCertificate('new')]
    const device = await createDevice(old)
    const client = await connect(old)
    const closed = once(client as unknown as NodeJS.EventEmitter, 'close')
    await platform.call('PUT', `/api/v1/devices/${device.id}/credentials`, { body: { type: 'x509', pem: renewed.cert } })
    await closed
    client.end(true)
    expect(await refusal(old)).toBe(0x87)
    expect(await refusal(renewed)).toBe(0)
  })

  it('still asks for credentials by provisioning, certificate or not [§2.2]', async () => {
    expect(await refusal(makeTestCertificate('new here'), { username: 'provision' })).toBe(0)
  })

  it('[X-2] is the same over the compatible REST, under the id its clients compute', async () => {
    const certificate = makeTestCertificate('compat')
    const device = await platform.createDevice()
    const current = (await platform.call('GET', `/api/device/${device.id}/credentials`)).json()
    const body = { ...current, credentialsType: 'X509_CERTIFICATE', credentialsId: 'ignored', credentialsValue: certificate.cert }
    const stored = await platform.call('POST', '/api/device/credentials', { body })
    expect(stored.status).toBe(200)
    const base64 = certificate.cert.replaceAll(/-----[^-]*-----|\s/g, '')
    const expected = {
      credentialsType: 'X509_CERTIFICATE',
      credentialsId: createHash('sha3-256').update(base64).digest('hex'),
      credentialsValue: certificate.cert,
    }
    expect(stored.json()).toMatchObject(expected)
    expect((await platform.call('GET', `/api/device/${device.id}/credentials`)).json()).toMatchObject(expected)
    expect(await refusal(certificate)).toBe(0)
  })

  it('needs a certificate that is one, and that no other device has', async () => {
    const certificate = makeTestCertificate('taken')
    await createDevice(certificate)
    const device = await platform.createDevice()
    const put = (pem: string) => platform.call('PUT', `/api/v1/devices/${device.id}/credentials`, { body: { type: 'x509', pem } })
    expect((await put(certificate.cert)).status).toBe(409)
    for (const pem of ['x', certificate.keyPem, '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----']) {
      expect((await put(pem)).status).toBe(422)
    }
  })
})
