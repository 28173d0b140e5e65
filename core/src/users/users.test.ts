// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { users } from '../db/tables.ts'
import type { Actor } from '../http/actor.ts'
import { rolePermissions } from '../http/permissions.ts'
import { systemOrigin } from './security-events.ts'
import { addUser, adminEmail, completeTestSetup, listEvents, password, refresh, signIn, startPeopleServer, toLogin } from './testing.ts'
import type { Login, PeopleServer } from './testing.ts'
import { updateUser } from './users.ts'

let server: PeopleServer
let admin: Login & { id: string }
beforeAll(async () => {
  server = await startPeopleServer()
  const login = await completeTestSetup(server)
  admin = { ...login, id: (login.body['user'] as { id: string }).id }
})
afterAll(() => server.close())

let count = 0
const newEmail = () => `u${++count}@example.com`
const call = (
  method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
  url: string,
  payload?: object,
  login: { headers: Record<string, string> } = admin,
) => server.app.inject({ method, url: `/api/v1${url}`, headers: login.headers, ...(payload ? { payload } : {}) })
const me = (login: { headers: Record<string, string> }) => call('GET', '/me', undefined, login).then((answer) => answer.statusCode)

describe('users', () => {
  it('are created with a link by which they set their password', async () => {
    const email = newEmail()
    const created = await call('POST', '/users', { name: 'Wang Wei', email: ` ${email.toUpperCase()}`.trim(), role: 'viewer' })
    expect(created.statusCode).toBe(201)
    expect(created.json()).toMatchObject({
      user: { email, role: 'viewer', disabled: false, hasPassword: false, lastLoginAt: null },
      resetLink: expect.stringMatching(/\/reset#t=[\w-]{43}$/),
    })
    const token = created.json().resetLink.split('#t=')[1]
    expect((await call('POST', '/auth/reset', { token, password: `my ${email.split('@')[0]} x1y2z3` })).statusCode).toBe(204)
    await signIn(server, email, `my ${email.split('@')[0]} x1y2z3`)
    expect((await listEvents(server, 'user.create'))[0]).toMatchObject({
      actor: `user:${admin.id}`,
      outcome: 'ok',
      detail: { role: 'viewer' },
    })
  })

  it('are created with a password that keeps the rules', async () => {
    const weak = await call('POST', '/users', { name: 'x', email: 'wang.wei@example.com', role: 'viewer', password: 'wang.wei-2026' })
    expect(weak.json()).toMatchObject({ status: 422, code: 'PASSWORD_WEAK', errors: [{ pointer: '/password' }] })
    const good = await call('POST', '/users', { name: 'x', email: 'wang.wei@example.com', role: 'viewer', password })
    expect(good.json()).not.toHaveProperty('resetLink')
  })

  it('have an e-mail of their own, whatever the case', async () => {
    const answer = await call('POST', '/users', { name: 'x', email: adminEmail.toUpperCase(), role: 'viewer' })
    expect(answer.json()).toMatchObject({ status: 409, code: 'EMAIL_TAKEN' })
  })

  it.each([
    ['an unknown role', { name: 'x', email: 'a@example.com', role: 'owner' }],
    ['a text without @', { name: 'x', email: 'example.com', role: 'viewer' }],
    ['a member that is not offered', { name: 'x', email: 'a@example.com', role: 'viewer', sessionVersion: 1 }],
    ['__proto__', JSON.parse('{"name":"x","email":"a@example.com","role":"viewer","__proto__":{"role":"admin"}}')],
  ])('are refused with %s', async (_name, payload) => {
    const answer = await server.app.inject({
      method: 'POST',
      url: '/api/v1/users',
      headers: { ...admin.headers, 'content-type': 'application/json' },
      payload: JSON.stringify(payload),
    })
    expect([answer.statusCode, answer.json().code]).toEqual([400, 'VALIDATION_FAILED'])
  })

  it('are listed in pages', async () => {
    for (let i = 0; i < 3; i++) await call('POST', '/users', { name: `p${i}`, email: newEmail(), role: 'viewer' })
    const all = (await call('GET', '/users?limit=500')).json().items.map((one: { id: string }) => one.id)
    const paged: string[] = []
    let cursor: string | null = ''
    while (cursor !== null) {
      const page: { items: { id: string }[]; nextCursor: string | null } = (
        await call('GET', `/users?limit=2${cursor ? `&cursor=${cursor}` : ''}`)
      ).json()
      paged.push(...page.items.map((one) => one.id))
      cursor = page.nextCursor
    }
    expect(paged).toEqual(all)
    expect(JSON.stringify((await call('GET', '/users')).json())).not.toContain('argon2')
  })

  it.each(['limit=0', 'limit=501', 'limit=x', 'limit=1&limit=2', 'limit[]=1', 'sort=name', 'cursor=!!', 'cursor=WyJ4Il0'])(
    'refuse the query ?%s',
    async (query) => {
      expect((await call('GET', `/users?${query}`)).statusCode).toBe(400)
    },
  )

  it('lose access at once when disabled, and get it back by signing in again [SC-21]', async () => {
    const email = newEmail()
    const user = await addUser(server, admin, 'operator', email)
    expect(await me(user)).toBe(200)
    expect((await call('PATCH', `/users/${user.id}`, { disabled: true })).json()).toMatchObject({ disabled: true })
    expect(await me(user)).toBe(401)
    expect((await refresh(server, user.refreshToken)).json().user).toBeNull()
    await expect(signIn(server, email)).rejects.toThrow('401')
    await call('PATCH', `/users/${user.id}`, { disabled: false })
    expect(await me(user)).toBe(401)
    expect(await me(await signIn(server, email))).toBe(200)
  })

  it('keep no right of a former role: old tokens end, a renewed one has the new role [SC-21]', async () => {
    const user = await addUser(server, admin, 'operator', newEmail())
    await call('PATCH', `/users/${user.id}`, { role: 'viewer' })
    expect(await me(user)).toBe(401)
    const renewed = toLogin(await refresh(server, user.refreshToken))
    expect(renewed.body).toMatchObject({ user: { role: 'viewer' } })
    expect((await server.app.inject({ method: 'POST', url: '/api/v1/test/devices', headers: renewed.headers })).statusCode).toBe(403)
    expect((await listEvents(server, 'user.update'))[0]).toMatchObject({
      target: `user:${user.id}`,
      detail: { role: ['operator', 'viewer'] },
    })
  })

  it('can be renamed without losing their session', async () => {
    const user = await addUser(server, admin, 'viewer', newEmail())
    expect((await call('PATCH', `/users/${user.id}`, { name: '王伟' })).json()).toMatchObject({ name: '王伟', role: 'viewer' })
    expect(await me(user)).toBe(200)
  })

  it('are deleted with their sessions', async () => {
    const user = await addUser(server, admin, 'viewer', newEmail())
    expect(await me(user)).toBe(200)
    expect((await call('DELETE', `/users/${user.id}`)).statusCode).toBe(204)
    expect(await me(user)).toBe(401)
    expect((await call('DELETE', `/users/${user.id}`)).statusCode).toBe(404)
    expect((await listEvents(server, 'user.delete'))[0]).toMatchObject({ target: `user:${user.id}` })
  })

  it('get a reset link from an administrator; a later one voids it', async () => {
    const user = await addUser(server, admin, 'viewer', newEmail())
    const first = (await call('POST', `/users/${user.id}/reset-link`, {})).json()
    const second = (await call('POST', `/users/${user.id}/reset-link`)).json()
    const reset = (link: string) =>
      call('POST', '/auth/reset', { token: link.split('#t=')[1], password: 'another good phrase' }).then((answer) => answer.statusCode)
    expect([await reset(first.link), await reset(second.link)]).toEqual([401, 204])
    expect(await me(user)).toBe(401)
  })

  it('are asked for the password again for roles, new users, links and keys after ten minutes [SC-26]', async () => {
    const user = await addUser(server, admin, 'viewer', newEmail())
    server.advance(601_000)
    const guarded = [
      () => call('POST', '/users', { name: 'x', email: newEmail(), role: 'viewer' }),
      () => call('PATCH', `/users/${user.id}`, { role: 'operator' }),
      () => call('POST', `/users/${user.id}/reset-link`, {}),
      () => call('POST', '/api-keys', { name: 'x', scopes: ['device.read'], expiresInDays: 1 }),
    ]
    for (const one of guarded) expect((await one()).json()).toMatchObject({ status: 403, code: 'REAUTH_REQUIRED' })
    expect((await call('PATCH', `/users/${user.id}`, { name: 'y' })).statusCode).toBe(200)
    expect((await call('POST', '/auth/reauth', { password: 'wrong password' })).json()).toMatchObject({
      status: 422,
      code: 'PASSWORD_WRONG',
    })
    expect((await call('POST', '/auth/reauth', { password })).statusCode).toBe(204)
    for (const one of guarded) expect((await one()).statusCode).toBeLessThan(300)
  })
})

describe('the last administrator', () => {
  it('cannot be demoted, disabled or deleted, and nothing changes', async () => {
    for (const answer of [
      await call('PATCH', `/users/${admin.id}`, { role: 'viewer' }),
      await call('PATCH', `/users/${admin.id}`, { disabled: true }),
      await call('DELETE', `/users/${admin.id}`),
    ]) {
      expect(answer.json()).toMatchObject({ status: 409, code: 'LAST_ADMIN' })
    }
    expect(await me(admin)).toBe(200)
  })

  it('is not saved by administrators who cannot sign in', async () => {
    await call('POST', '/users', { name: 'invited', email: newEmail(), role: 'admin' })
    const disabled = await addUser(server, admin, 'admin', newEmail())
    await call('PATCH', `/users/${disabled.id}`, { disabled: true })
    expect((await call('DELETE', `/users/${admin.id}`)).json()).toMatchObject({ code: 'LAST_ADMIN' })
  })

  it('stays when two administrators remove each other at the same moment', async () => {
    const second = await addUser(server, admin, 'admin', newEmail())
    // Past the authentication, which would often let only the first of two calls through.
    const actor = (userId: string): Actor => ({
      kind: 'user',
      userId,
      name: userId,
      sessionId: undefined,
      authenticatedAt: 0,
      permissions: rolePermissions.admin,
      scope: server.context.rootTenant,
    })
    const results = await Promise.allSettled([
      updateUser(server.people, actor(admin.id), second.id, { disabled: true }, systemOrigin),
      updateUser(server.people, actor(second.id), admin.id, { disabled: true }, systemOrigin),
    ])
    expect(results.flatMap((one) => (one.status === 'rejected' ? [(one.reason as Error).message] : []))).toEqual([
      'At least one administrator who can sign in must remain.',
    ])
    const all = await server.context.db.withTenant(server.context.rootTenant, (tx) => tx.select().from(users))
    expect(all.filter((one) => one.role === 'admin' && !one.disabledAt && one.passwordHash)).toHaveLength(1)
  })
})
