// SPDX-License-Identifier: AGPL-3.0-only
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { connect as connectSocket } from 'node:net'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import type { ConnectionOptions } from 'node:tls'
import type { IClientOptions, MqttClient } from 'mqtt'
import { generate } from 'mqtt-packet'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../clock.ts'
import { createLog } from '../../log.ts'
import { createTestContext, startTestPlatform } from '../../testing.ts'
import type { TestPlatform } from '../../testing.ts'
import { ServerCertificate } from '../../tls/server-certificate.ts'
import { makeTestCertificate } from '../../tls/testing.ts'
import { connectPatiently, startEndpoint } from './testing.ts'

let platform: TestPlatform
let folder: string
beforeAll(async () => {
  platform = await startTestPlatform({ mqtt: { port: 0, tlsPort: 0, host: '127.0.0.1', maxSessions: 1000, connectRate: 500 } })
  folder = join(platform.context.config.dataDir, 'tls')
})
afterAll(() => platform.close())

const certificate = () => readFileSync(join(folder, 'server.crt'), 'utf8')

/** As a device does that trusts the certificate of the server and no other. */
function connect(token: string, options: IClientOptions = {}): Promise<MqttClient> {
  const url = `mqtts://127.0.0.1:${platform.ports.mqtts}`
  return connectPatiently(url, { username: token, ca: certificate(), ...options })
}

async function handshake(options: ConnectionOptions): Promise<string> {
  const socket = connectTls({ host: '127.0.0.1', port: platform.ports.mqtts!, rejectUnauthorized: false, ...options })
  try {
    await once(socket, 'secureConnect', { signal: AbortSignal.timeout(10_000) })
    return socket.getProtocol() ?? ''
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? String(error)
  } finally {
    socket.destroy()
  }
}

describe('MQTT over TLS', () => {
  it.each([4, 5] as const)('[X-1] serves devices that trust the certificate of the server, MQTT %i', async (protocolVersion) => {
    const device = await platform.createDevice()
    const client = await connect(device.token, { protocolVersion })
    await client.publishAsync('v1/devices/me/telemetry', '{"secret":1}', { qos: 1 })
    // Larger than a record of TLS, and than what one read returns.
    await client.publishAsync('v1/devices/me/telemetry', JSON.stringify({ long: 'x'.repeat(60_000) }), { qos: 1 })
    const latest = await platform.call('GET', `/api/v1/devices/${device.id}/telemetry`)
    expect(latest.text).toContain('"secret"')
    const { session } = (await platform.call('GET', `/api/v1/devices/${device.id}/session`)).json<{ session: object }>()
    expect(session).toMatchObject({ tls: true, address: '127.0.0.1', protocol: protocolVersion })
    await client.endAsync()
  })

  it('[X-1] makes a P-256 certificate for every name and address of the machine, for ten years', () => {
    const read = new X509Certificate(certificate())
    expect(read.publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: 'prime256v1' })
    const years = (read.validToDate.getTime() - Date.now()) / (365.25 * 86_400_000)
    expect(years).toBeGreaterThan(9.9)
    expect(years).toBeLessThan(10.1)
    for (const name of ['localhost', hostname()]) expect(read.checkHost(name)).toBe(name)
    expect(read.checkIP('127.0.0.1')).toBe('127.0.0.1')
    expect(statSync(join(folder, 'server.key')).mode & 0o777).toBe(0o600)
  })

  it('[X-1] shows the fingerprint to users', async () => {
    const endpoints = (await platform.call('GET', '/api/v1/system/endpoints')).json()
    expect(endpoints['mqtts']).toEqual({
      host: null,
      port: platform.ports.mqtts,
      fingerprint: new X509Certificate(certificate()).fingerprint256,
    })
  })

  it('[X-1] speaks TLS 1.2 and 1.3, and nothing older', async () => {
    expect(await handshake({ minVersion: 'TLSv1.3' })).toBe('TLSv1.3')
    expect(await handshake({ maxVersion: 'TLSv1.2' })).toBe('TLSv1.2')
    expect(await handshake({ minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' })).not.toMatch(/^TLSv1/)
  })

  it('[SC-62] agrees on ciphers with forward secrecy and authenticated encryption only', async () => {
    for (const cipher of ['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305']) {
      expect(await handshake({ maxVersion: 'TLSv1.2', ciphers: cipher })).toBe('TLSv1.2')
    }
    for (const cipher of ['ECDHE-ECDSA-AES128-SHA256', 'ECDHE-ECDSA-AES256-SHA', 'ECDHE-ECDSA-AES128-CCM']) {
      expect(await handshake({ maxVersion: 'TLSv1.2', ciphers: cipher }), cipher).toMatch(/^(?:ERR_SSL_|ECONNRESET)/)
    }
  })

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('[SC-62] makes a full handshake each time, %s', async (version) => {
    const options = { host: '127.0.0.1', port: platform.ports.mqtts!, rejectUnauthorized: false, minVersion: version, maxVersion: version }
    const first = connectTls(options)
    let ticket: Buffer | undefined
    first.on('session', (bytes) => (ticket = bytes))
    await once(first, 'secureConnect', { signal: AbortSignal.timeout(10_000) })
    // TLS 1.3 sends its tickets behind the handshake: an answer that comes later would come after them.
    first.write(generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clean: true, clientId: 'none', keepalive: 1 }))
    await once(first, 'data', { signal: AbortSignal.timeout(10_000) })
    const session = ticket ?? first.getSession()
    first.destroy()
    const second = connectTls({ ...options, ...(session ? { session } : {}) })
    await once(second, 'secureConnect', { signal: AbortSignal.timeout(10_000) })
    expect(second.isSessionReused()).toBe(false)
    second.destroy()
  })

  it('survives clients that speak no TLS, that leave, and that only open a socket', async () => {
    for (const bytes of [Buffer.from([0x10, 0x00]), Buffer.alloc(0), Buffer.from('160301', 'hex')]) {
      const socket = connectSocket(platform.ports.mqtts!, '127.0.0.1')
      socket.on('error', () => {})
      await once(socket, 'connect')
      socket.end(bytes)
    }
    await expect.poll(() => platform.ingest.endpoint.depths, { timeout: 20_000 }).toMatchObject({ connections: 0, unauthenticated: 0 })
    const device = await platform.createDevice()
    await (await connect(device.token)).endAsync()
  })

  it('gives provisioned devices their credentials over TLS', async () => {
    const provisioning = { strategy: 'create', key: 'key-over-tls', secret: 'secret-over-tls' }
    await platform.call('POST', '/api/v1/products', { body: { name: 'Over TLS', provisioning } })
    const client = await connect('provision')
    const answer = new Promise((resolve) => client.once('message', (_, payload) => resolve(JSON.parse(payload.toString()))))
    const request = { provisionDeviceKey: 'key-over-tls', provisionDeviceSecret: 'secret-over-tls' }
    await client.publishAsync('/provision/request', JSON.stringify(request), { qos: 1 })
    expect(await answer).toMatchObject({ status: 'SUCCESS' })
    await client.endAsync()
  })

  it('[X-1] takes changed files without dropping sessions', { timeout: 60_000 }, async () => {
    const device = await platform.createDevice()
    const open = await connect(device.token)
    const old = certificate()
    const { cert, keyPem } = makeTestCertificate('renewed', { use: 'server', hosts: ['127.0.0.1'] })
    // The key comes first, and does not belong to the certificate until that comes.
    writeFileSync(join(folder, 'server.key.new'), keyPem, { mode: 0o600 })
    renameSync(join(folder, 'server.key.new'), join(folder, 'server.key'))
    const other = await platform.createDevice()
    await (await connect(other.token, { ca: old })).endAsync()
    writeFileSync(join(folder, 'server.crt.new'), cert)
    renameSync(join(folder, 'server.crt.new'), join(folder, 'server.crt'))
    const renewed = new X509Certificate(cert).fingerprint256
    await expect.poll(() => platform.ingest.certificate?.fingerprint, { timeout: 30_000 }).toBe(renewed)
    await (await connect(other.token, { ca: cert })).endAsync()
    await open.publishAsync('v1/devices/me/telemetry', '{"still":1}', { qos: 1 })
    expect(open.connected).toBe(true)
    await open.endAsync()
  })
})

describe('a handshake of TLS', () => {
  it('[M-2] must be over in time, and gives its place back', async () => {
    const certificates = await createTestContext()
    const { context } = new ServerCertificate({ ...certificates.config, publicUrl: undefined }, systemClock, createLog('error'))
    const bench = await startEndpoint({ tls: { port: 0, context: () => context }, limits: { handshakeMs: 2000, unauthenticated: 1 } })
    const silent = connectSocket(bench.endpoint.tlsPort, '127.0.0.1')
    await once(silent, 'close', { signal: AbortSignal.timeout(20_000) })
    await expect.poll(() => bench.endpoint.depths.unauthenticated, { timeout: 20_000 }).toBe(0)
    bench.addDevice('later')
    const url = `mqtts://127.0.0.1:${bench.endpoint.tlsPort}`
    const client = await connectPatiently(url, { username: 'token-later', rejectUnauthorized: false })
    await client.endAsync()
    await bench.stop()
    await certificates.close()
  })
})

describe('the certificate of the server', () => {
  const log = createLog('error')

  it('[X-1] is made once, and used again', async () => {
    const context = await createTestContext()
    const { config } = context
    const first = new ServerCertificate(config, systemClock, log)
    expect(new ServerCertificate(config, systemClock, log).fingerprint).toBe(first.fingerprint)
    await context.close()
  })

  it('[X-1] comes from the files of the settings; the start fails with a sentence when they cannot be used', async () => {
    const context = await createTestContext()
    const { config } = context
    const [one, two] = [makeTestCertificate('one', { use: 'server' }), makeTestCertificate('two', { use: 'server' })]
    const tls = { certFile: join(config.dataDir, 'a.pem'), keyFile: join(config.dataDir, 'b.pem') }
    const make = () => new ServerCertificate({ ...config, tls }, systemClock, log)
    expect(make).toThrow(/a\.pem.*cannot be used/)
    writeFileSync(tls.certFile, one.cert)
    writeFileSync(tls.keyFile, two.keyPem, { mode: 0o600 })
    expect(make).toThrow(/not that of the certificate/)
    writeFileSync(tls.keyFile, one.keyPem)
    expect(make().fingerprint).toBe(new X509Certificate(one.cert).fingerprint256)
    rmSync(tls.keyFile)
    writeFileSync(tls.keyFile, one.keyPem, { mode: 0o644 })
    expect(make).toThrow(/can be read/)
    await context.close()
  })
})
