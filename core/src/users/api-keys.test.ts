// SPDX-License-Identifier: AGPL-3.0-only
import { eq } from 'drizzle-orm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { apiKeys } from '../db/tables.ts'
import { sha256 } from '../secrets.ts'
import { addUser, completeTestSetup, listEvents, startPeopleServer } from './testing.ts'
import type { Login, PeopleServer } from './testing.ts'

let server: PeopleServer
let admin: Login
beforeAll(async () => {
  server = await startPeopleServer()
  admin = await completeTestSetup(server)
})
afterAll(() => server.close())

type Caller = { headers: Record<string, string> }
let count = 0
const newOperator = () => addUser(server, admin, 'operator', `op${++count}@example.com`)
const create = (login: Caller, change: object = {}) =>
  server.app.inject({
    method: 'POST',
    url: '/api/v1/api-keys',
    headers: login.headers,
    payload: { name: 'script', scopes: ['device.read'], expiresInDays: 30, ...change },
  })
async function createKey(login: Caller, change: object = {}): Promise<{ id: string; key: string }> {
  const answer = await create(login, change)
  if (answer.statusCode !== 201) throw new Error(answer.body)
  return answer.json()
}
const use = (key: string, method: 'GET' | 'POST' = 'GET', headers: Record<string, string> = {}) =>
  server.app
    .inject({ method, url: '/api/v1/test/devices', headers: { authorization: `ApiKey ${key}`, ...headers } })
    .then((answer) => answer.statusCode)

describe('an API key', () => {
  it('is pmsk_ with 27 base62 characters and 6 of checksum, shown once, stored as hash and last four', async () => {
    const answer = await create(admin)
    const { key, id } = answer.json()
    expect(key).toMatch(/^pmsk_[0-9A-Za-z]{33}$/)
    expect(answer.json()).toMatchObject({
      name: 'script',
      last4: key.slice(-4),
      scopes: ['device.read'],
      addresses: [],
      lastUsedAt: null,
      owner: { name: 'Linda' },
    })
    const list = await server.app.inject({ url: '/api/v1/api-keys', headers: admin.headers })
    expect(list.body).toContain(id)
    expect(list.body).not.toContain(key)
    const [row] = await server.context.db.withTenant(server.context.rootTenant, (tx) => tx.select().from(apiKeys).where(eq(apiKeys.id, id)))
    expect(row!.keySha256).toEqual(sha256(key))
    expect(JSON.stringify(await listEvents(server, 'api-key.create'))).not.toContain(key)
  })

  it('works in Authorization and X-Authorization', async () => {
    const { key } = await createKey(admin)
    expect(await use(key)).toBe(200)
    expect((await server.app.inject({ url: '/api/v1/test/devices', headers: { 'x-authorization': `ApiKey ${key}` } })).json()).toEqual({
      name: 'Linda (script)',
    })
  })

  it('does what its scopes say and no more', async () => {
    const { key } = await createKey(admin)
    expect([await use(key), await use(key, 'POST')]).toEqual([200, 403])
    const writer = await createKey(admin, { scopes: ['device.read', 'device.write'] })
    expect(await use(writer.key, 'POST')).toBe(200)
  })

  it('cannot be given scopes its owner lacks', async () => {
    const answer = await create(await newOperator(), { scopes: ['device.read', 'user.write'] })
    expect(answer.json()).toMatchObject({ status: 403, code: 'PERMISSION_DENIED' })
  })

  it('loses what its owner loses, at once', async () => {
    const operator = await newOperator()
    const { key } = await createKey(operator, { scopes: ['device.read', 'device.write'] })
    expect(await use(key, 'POST')).toBe(200)
    const patch = (payload: object) =>
      server.app.inject({ method: 'PATCH', url: `/api/v1/users/${operator.id}`, headers: admin.headers, payload })
    await patch({ role: 'viewer' })
    expect([await use(key), await use(key, 'POST')]).toEqual([200, 403])
    await patch({ disabled: true })
    expect(await use(key)).toBe(401)
    await patch({ disabled: false })
    expect(await use(key)).toBe(200)
    await server.app.inject({ method: 'DELETE', url: `/api/v1/users/${operator.id}`, headers: admin.headers })
    expect(await use(key)).toBe(401)
  })

  it('works from its addresses only', async () => {
    const { key } = await createKey(admin, { addresses: ['192.0.2.0/24', '2001:db8::/32', '198.51.100.7'] })
    const from = (address: string) => use(key, 'GET', { 'x-forwarded-for': address })
    expect(await Promise.all(['192.0.2.9', '2001:db8:1::1', '198.51.100.7', '::ffff:192.0.2.9'].map(from))).toEqual([200, 200, 200, 200])
    expect(await Promise.all(['192.0.3.9', '2001:db9::1', '198.51.100.8', '127.0.0.2'].map(from))).toEqual([401, 401, 401, 401])
  })

  it.each(['300.1.1.1', '10.0.0.0/33', '10.0.0.0/8/8', '::1/129', 'fe80::1%eth0', 'localhost', ''])(
    'refuses the address %s',
    async (address) => {
      expect((await create(admin, { addresses: ['10.0.0.1', address] })).json()).toMatchObject({
        status: 422,
        code: 'UNPROCESSABLE',
        errors: [{ pointer: '/addresses/1' }],
      })
    },
  )

  it('ends with its time', async () => {
    const { key } = await createKey(admin, { expiresInDays: 1 })
    expect(await use(key)).toBe(200)
    server.advance(86_400_001)
    expect(await use(key)).toBe(401)
    server.advance(-86_400_001)
  })

  it.each([{ expiresInDays: 0 }, { expiresInDays: 731 }, { scopes: [] }, { scopes: ['everything'] }, { name: '' }, { userId: 'x' }])(
    'is not made from %o',
    async (change) => {
      expect((await create(admin, change)).statusCode).toBe(400)
    },
  )

  it('notes its use at most once a minute', async () => {
    const { key, id } = await createKey(admin)
    const readUse = async () => {
      const [row] = await server.context.db.withTenant(server.context.rootTenant, (tx) =>
        tx.select().from(apiKeys).where(eq(apiKeys.id, id)),
      )
      return row!.lastUsedAt?.getTime()
    }
    await use(key)
    await expect.poll(readUse).toBeTypeOf('number')
    const first = await readUse()
    server.advance(30_000)
    await use(key)
    server.advance(29_000)
    await use(key)
    expect(await readUse()).toBe(first)
    server.advance(2000)
    await use(key)
    await expect.poll(readUse).toBeGreaterThan(first!)
  })

  it('is refused with a wrong checksum without asking the database, and when unknown', async () => {
    const { key } = await createKey(admin)
    expect(await use(key.slice(0, -1) + (key.endsWith('0') ? '1' : '0'))).toBe(401)
    expect(await use(key.toLowerCase())).toBe(401)
  })

  it('has no session: not for the own account, and never for what needs the password', async () => {
    const { key } = await createKey(admin, { scopes: ['api-key.write', 'user.write', 'device.read'] })
    const headers = { authorization: `ApiKey ${key}` }
    expect((await server.app.inject({ url: '/api/v1/me', headers })).statusCode).toBe(403)
    expect((await create({ headers })).json()).toMatchObject({ code: 'REAUTH_REQUIRED' })
    expect(
      (
        await server.app.inject({
          method: 'POST',
          url: '/api/v1/users',
          headers,
          payload: { name: 'x', email: 'x@example.com', role: 'admin' },
        })
      ).json(),
    ).toMatchObject({ code: 'REAUTH_REQUIRED' })
  })

  it("dies at once when deleted; others' keys are 404 except for administrators", async () => {
    const operator = await newOperator()
    const other = await newOperator()
    const { key, id } = await createKey(operator)
    const remove = (login: Caller) =>
      server.app.inject({ method: 'DELETE', url: `/api/v1/api-keys/${id}`, headers: login.headers }).then((answer) => answer.statusCode)
    const list = (login: Caller) =>
      server.app.inject({ url: '/api/v1/api-keys', headers: login.headers }).then((answer) => answer.body.includes(id))
    expect([await list(operator), await list(other), await list(admin)]).toEqual([true, false, true])
    expect(await remove(other)).toBe(404)
    expect(await use(key)).toBe(200)
    expect(await remove(admin)).toBe(204)
    expect(await use(key)).toBe(401)
  })
})
