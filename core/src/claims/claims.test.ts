// SPDX-License-Identifier: AGPL-3.0-only
import { randomUUID } from 'node:crypto'
import { sql } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connectPatiently } from '../ingest/mqtt/testing.ts'
import { startTestPlatform, testAdmin } from '../testing.ts'
import type { TestPlatform } from '../testing.ts'
import { parseOffer } from './claims.ts'

let platform: TestPlatform
let customer: { id: string; token: string }
beforeAll(async () => {
  platform = await startTestPlatform()
  customer = await createCustomer()
})
afterAll(() => platform.close())

/** A customer with a user: what the module of customers will make, made by hand. */
async function createCustomer(): Promise<{ id: string; token: string }> {
  const { db, rootTenant } = platform.context
  const id = randomUUID()
  const email = `${id}@example.com`
  const body = { name: 'customer', email, role: 'viewer', password: testAdmin.password }
  expect((await platform.call('POST', '/api/v1/users', { body })).status).toBe(201)
  await db.withTenant(rootTenant, async (tx) => {
    await tx.execute(
      sql`insert into customers (tenant_id, id, path, name) values (${rootTenant.tenantId}, ${id}, array[${id}::uuid], 'customer')`,
    )
    await tx.execute(sql`update users set customer_id = ${id} where email = ${email}`)
  })
  const login = await platform.call('POST', '/api/v1/auth/login', { body: { email, password: testAdmin.password }, token: null })
  return { id, token: login.json<{ accessToken: string }>().accessToken }
}

const offer = (token: string, body?: unknown) =>
  platform.call('POST', `/api/v1/${token}/claim`, { ...(body === undefined ? {} : { body }), token: null })
const claim = async (name: string, secretKey?: string, token: string | undefined = customer.token) => {
  const answer = await platform.call('POST', '/api/v1/devices/claim', {
    body: { name, ...(secretKey === undefined ? {} : { secretKey }) },
    token,
  })
  return answer.status === 200 ? 'OK' : answer.json<{ code: string }>().code
}

describe('claiming', () => {
  it.each([4, 5] as const)(
    '[CL-1] [CL-2] assigns a device that offered itself over MQTT %i to the customer who knows the secret',
    async (protocolVersion) => {
      const device = await platform.createDevice()
      const client = await connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, { username: device.token, protocolVersion })
      await client.publishAsync('v1/devices/me/claim', '{"secretKey":"007","durationMs":60000}', { qos: 1 })
      await client.endAsync()
      expect((await platform.call('GET', `/api/v1/devices/${device.id}`, { token: customer.token })).status).toBe(404)
      expect(await claim(device.name, '7')).toBe('CLAIM_REFUSED')
      expect(await claim(device.name, '007')).toBe('OK')
      expect((await platform.call('GET', `/api/v1/devices/${device.id}`, { token: customer.token })).status).toBe(200)
      expect(await claim(device.name, '007')).toBe('DEVICE_CLAIMED')
    },
  )

  it('[CL-1] takes an empty message, a newer one in place of the older, and both secrets empty as equal', async () => {
    const device = await platform.createDevice()
    expect((await offer(device.token, { secretKey: 'first' })).status).toBe(200)
    const empty = await offer(device.token)
    expect([empty.status, empty.text]).toEqual([200, ''])
    expect(await claim(device.name, 'first')).toBe('CLAIM_REFUSED')
    expect(await claim(device.name)).toBe('OK')
  })

  it('[CL-2] answers the compatible calls as their clients know it', async () => {
    const device = await platform.createDevice()
    const path = `/api/customer/device/${encodeURIComponent(device.name)}/claim`
    const call = (method: string, secretKey: string) => platform.call(method, path, { body: { secretKey }, token: customer.token })
    const refused = await call('POST', 'x')
    expect([refused.status, refused.json()]).toEqual([400, 'FAILURE'])
    await offer(device.token, { secretKey: 'x' })
    const claimed = await call('POST', 'x')
    expect(claimed.status).toBe(200)
    expect(claimed.json()).toMatchObject({
      response: 'SUCCESS',
      device: { name: device.name, customerId: { entityType: 'CUSTOMER', id: customer.id } },
    })
    const again = await call('POST', 'x')
    expect([again.status, again.json()]).toEqual([400, 'CLAIMED'])
    expect((await call('DELETE', '')).status).toBe(200)
    expect((await call('DELETE', '')).status).toBe(404)
  })

  it('[CL-2] does not exist for users without a customer', async () => {
    const device = await platform.createDevice()
    await offer(device.token, { secretKey: 'x' })
    expect(await claim(device.name, 'x', platform.token)).toBe('NOT_FOUND')
    const compat = await platform.call('POST', `/api/customer/device/${device.name}/claim`, { body: { secretKey: 'x' } })
    expect(compat.status).toBe(404)
    expect(await claim(device.name, 'x')).toBe('OK')
  })

  it('[CL-2] refuses unknown names, no offer and one whose time is over', async () => {
    expect(await claim('nobody', '')).toBe('CLAIM_REFUSED')
    const device = await platform.createDevice()
    expect(await claim(device.name, '')).toBe('CLAIM_REFUSED')
    await offer(device.token, { secretKey: 'x', durationMs: 1 })
    await expect.poll(() => claim(device.name, 'x'), { timeout: 10_000 }).toBe('CLAIM_REFUSED')
    await platform.ingest.claims.removeOld(platform.context.rootTenant)
    const { db, rootTenant } = platform.context
    const rows = await db.withTenant(rootTenant, (tx) => tx.execute(sql`select 1 from device_claims where device_id = ${device.id}`))
    expect(rows).toHaveLength(0)
  })

  it('[CL-3] survives four wrong secrets and not the fifth; a device is given back', async () => {
    const device = await platform.createDevice()
    await offer(device.token, { secretKey: 'right' })
    for (let i = 0; i < 4; i++) expect(await claim(device.name, `wrong ${i}`)).toBe('CLAIM_REFUSED')
    expect(await claim(device.name, 'right')).toBe('OK')
    const path = `/api/v1/devices/claim?name=${encodeURIComponent(device.name)}`
    const other = await createCustomer()
    expect((await platform.call('DELETE', path, { token: other.token })).status).toBe(404)
    expect((await platform.call('DELETE', path, { token: customer.token })).status).toBe(204)
    expect((await platform.call('GET', `/api/v1/devices/${device.id}`, { token: customer.token })).status).toBe(404)

    await offer(device.token, { secretKey: 'right' })
    for (let i = 0; i < 5; i++) expect(await claim(device.name, `wrong ${i}`)).toBe('CLAIM_REFUSED')
    expect(await claim(device.name, 'right')).toBe('CLAIM_REFUSED')
  })

  it('[CL-1] goes to one of two customers who claim at once', async () => {
    const device = await platform.createDevice()
    const other = await createCustomer()
    await offer(device.token, { secretKey: 'x' })
    const results = await Promise.all([claim(device.name, 'x'), claim(device.name, 'x', other.token)])
    expect(results.sort()).toEqual(['DEVICE_CLAIMED', 'OK'])
  })

  it('[CL-1] [L-3] refuses what is no offer, and keeps nothing of it', async () => {
    for (const text of [
      '[]',
      '{"secretKey":1}',
      '{"durationMs":"long"}',
      '{"durationMs":0}',
      '{"durationMs":1.5}',
      `{"secretKey":"${'x'.repeat(256)}"}`,
    ]) {
      expect(parseOffer(Buffer.from(text))).toMatchObject({ code: 'SHAPE_INVALID' })
    }
    expect(parseOffer(Buffer.from('{"secretKey":null,"durationMs":null}'))).toEqual({ secretKey: '', durationMs: 86_400_000 })
    const device = await platform.createDevice()
    expect((await offer(device.token, '{"secretKey":"hidden"')).status).toBe(400)
    const client = await connectPatiently(`mqtt://127.0.0.1:${platform.ports.mqtt}`, { username: device.token, protocolVersion: 5 })
    await expect(client.publishAsync('v1/devices/me/claim', '{"secretKey":["hidden"]}', { qos: 1 })).rejects.toThrow()
    await client.endAsync()
    await expect
      .poll(async () => (await platform.call('GET', `/api/v1/devices/${device.id}/rejects`)).text, { timeout: 10_000 })
      .toMatch(/(?=.*PAYLOAD_MALFORMED)(?=.*SHAPE_INVALID)/)
    expect((await platform.call('GET', `/api/v1/devices/${device.id}/rejects`)).text).not.toContain('hidden')
  })
})
