// SPDX-License-Identifier: AGPL-3.0-only
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
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
let last = 0

async function createProduct(provisioning: Record<string, unknown>): Promise<string> {
  const answer = await platform.call('POST', '/api/v1/products', { body: { name: `chain ${++last}`, provisioning } })
  expect(answer.status).toBe(201)
  return answer.json<{ id: string }>().id
}

/** A product with an authority of its own that may create devices. */
async function createChain(wish: Record<string, unknown> = {}) {
  const authority = makeTestCertificate(`authority ${last}`, { use: 'ca' })
  const id = await createProduct({ strategy: 'x509-chain', certificate: authority.cert, allowCreate: true, ...wish })
  return { authority, id }
}

/** Reason code of the CONNECT; `above` are shown with the certificate. */
async function connect(certificate: TestCertificate, ...above: TestCertificate[]): Promise<number | undefined> {
  try {
    const client = await connectPatiently(`mqtts://127.0.0.1:${platform.ports.mqtts}`, {
      ca: readFileSync(join(platform.context.config.dataDir, 'tls/server.crt'), 'utf8'),
      cert: [certificate, ...above].map(({ cert }) => cert).join(''),
      key: certificate.keyPem,
      protocolVersion: 5,
    })
    await client.publishAsync('v1/devices/me/telemetry', '{"a":1}', { qos: 1 })
    await client.endAsync()
    return 0
  } catch (error) {
    return (error as { code?: number }).code
  }
}

async function listDevices(productId: string): Promise<string[]> {
  const answer = await platform.call('GET', `/api/v1/devices?productId=${productId}&sort=name`)
  return answer.json<{ items: { name: string }[] }>().items.map(({ name }) => name)
}

const fingerprint = ({ cert }: TestCertificate) => new X509Certificate(cert).fingerprint256.replaceAll(':', '').toLowerCase()

describe('provisioning by certificates', () => {
  it('[X-3] creates the device that the common name says, and knows it from then on', async () => {
    const { authority, id } = await createChain({ namePattern: '^cold-(.+)$' })
    const name = `room-${id}`
    const certificate = makeTestCertificate(`cold-${name}`, { issuer: authority })
    expect(await connect(certificate)).toBe(0)
    expect(await connect(certificate)).toBe(0)
    expect(await listDevices(id)).toEqual([name])
    expect(await connect(makeTestCertificate('warm-room', { issuer: authority }))).toBe(0x87)
    expect(await listDevices(id)).toEqual([name])
  })

  it('[X-3] accepts certificates between, in the order of the chain, that may sign', async () => {
    const { authority, id } = await createChain()
    const plant = makeTestCertificate('plant', { use: 'ca', issuer: authority })
    const line = makeTestCertificate('line', { use: 'ca', issuer: plant })
    expect(await connect(makeTestCertificate(`deep-${id}`, { issuer: line }), line, plant)).toBe(0)
    expect(await listDevices(id)).toEqual([`deep-${id}`])
    // Not shown, expired, or no authority at all.
    expect(await connect(makeTestCertificate(`hidden-${id}`, { issuer: line }), line)).toBe(0x87)
    const over = makeTestCertificate('over', { use: 'ca', issuer: authority, notAfter: new Date(Date.now() - 3_600_000) })
    expect(await connect(makeTestCertificate(`over-${id}`, { issuer: over }), over)).toBe(0x87)
    const device = makeTestCertificate(`device-${id}`, { issuer: authority })
    expect(await connect(makeTestCertificate(`signed-by-device-${id}`, { issuer: device }), device)).toBe(0x87)
    expect(await listDevices(id)).toEqual([`deep-${id}`])
  })

  it('[X-3] gives a device of the product the new certificate in place of what it had', async () => {
    const { authority, id } = await createChain({ allowCreate: false })
    expect(await connect(makeTestCertificate(`absent-${id}`, { issuer: authority }))).toBe(0x87)
    const device = await platform.createDevice({ productId: id })
    const certificate = makeTestCertificate(device.name, { issuer: authority })
    expect(await connect(certificate)).toBe(0)
    const shown = await platform.call('GET', `/api/v1/devices/${device.id}/credentials`)
    expect(shown.json()).toEqual({ type: 'x509', pem: certificate.cert })
    expect((await platform.call('POST', `/api/v1/${device.token}/telemetry`, { body: { a: 1 }, token: null })).status).toBe(401)
  })

  it('[X-3] refuses the certificate of another authority whatever its name, and a device of another product', async () => {
    const { authority, id } = await createChain()
    const elsewhere = await platform.createDevice()
    expect(await connect(makeTestCertificate(elsewhere.name, { issuer: authority }))).toBe(0x87)
    const impostor = makeTestCertificate(authority.subject, { use: 'ca' })
    expect(await connect(makeTestCertificate(`fake-${id}`, { issuer: impostor }))).toBe(0x87)
    expect(await connect(makeTestCertificate(`fake-${id}`, { issuer: impostor }), impostor)).toBe(0x87)
    const expired = { issuer: authority, notBefore: new Date(Date.now() - 9 * dayMs), notAfter: new Date(Date.now() - 60_000) }
    expect(await connect(makeTestCertificate(`late-${id}`, expired))).toBe(0x87)
    expect(await listDevices(id)).toEqual([])
  })

  it('[X-2] refuses what is on the list of revoked certificates, also when the device had it before', async () => {
    const { authority, id } = await createChain()
    const certificate = makeTestCertificate(`stolen-${id}`, { issuer: authority })
    expect(await connect(certificate)).toBe(0)
    const revoke = await platform.call('PATCH', `/api/v1/products/${id}`, {
      body: { provisioning: { revoked: [fingerprint(certificate)] } },
    })
    expect(revoke.json()).toMatchObject({ provisioning: { strategy: 'x509-chain', revoked: [fingerprint(certificate)], secret: null } })
    await expect.poll(() => connect(certificate), { timeout: 20_000 }).toBe(0x87)
    expect(await connect(makeTestCertificate(`stolen-${id}`, { issuer: authority }))).toBe(0)
  })

  it('needs the certificate of an authority, one product for each, and a pattern that costs little', async () => {
    const { authority } = await createChain()
    const create = async (provisioning: Record<string, unknown>) =>
      (await platform.call('POST', '/api/v1/products', { body: { name: `refused ${++last}`, provisioning } })).json<{ code: string }>().code
    const strategy = 'x509-chain'
    expect(await create({ strategy })).toBe('UNPROCESSABLE')
    expect(await create({ strategy, certificate: makeTestCertificate('leaf').cert })).toBe('UNPROCESSABLE')
    expect(await create({ strategy, certificate: authority.cert })).toBe('PROVISIONING_TAKEN')
    const other = makeTestCertificate('other', { use: 'ca' })
    expect(await create({ strategy, certificate: other.cert, namePattern: '(a+)+' })).toBe('UNPROCESSABLE')
  })
})
