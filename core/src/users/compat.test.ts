// SPDX-License-Identifier: AGPL-3.0-only
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { adminEmail, completeTestSetup, password, refresh, signIn, startPeopleServer } from './testing.ts'
import type { PeopleServer } from './testing.ts'

let server: PeopleServer
beforeAll(async () => {
  server = await startPeopleServer()
  await completeTestSetup(server)
})
afterAll(() => server.close())

const post = (url: string, payload: object, token?: string) =>
  server.app.inject({ method: 'POST', url, payload, headers: token ? { 'x-authorization': `Bearer ${token}` } : {} })
const logIn = async () => (await post('/api/auth/login', { username: adminEmail, password })).json()

describe('the login of ThingsBoard clients (device API §16.2)', () => {
  it('answers token, refreshToken and a null scope; the token lives 9,000 s and works in the native API [TB-1]', async () => {
    const answer = await post('/api/auth/login', { username: adminEmail, password, rememberMe: true })
    expect(answer.statusCode).toBe(200)
    expect(Object.keys(answer.json()).sort()).toEqual(['refreshToken', 'scope', 'token'])
    expect(answer.json().scope).toBeNull()
    expect(answer.cookies).toEqual([])
    const { token } = answer.json()
    const { iat, exp } = decodeJwt(token)
    expect(exp! - iat!).toBe(9000)
    expect((await server.app.inject({ url: '/api/v1/me', headers: { authorization: `Bearer ${token}` } })).statusCode).toBe(200)
  })

  it('refuses a wrong password with 401 in the compatible shape', async () => {
    const answer = await post('/api/auth/login', { username: adminEmail, password: 'wrong password' })
    expect(answer.json()).toMatchObject({ status: 401, errorCode: 'LOGIN_FAILED' })
  })

  it('exchanges refresh tokens as the native one does, each once', async () => {
    const first = await logIn()
    const second = (await post('/api/auth/token', { refreshToken: first.refreshToken })).json()
    expect(second.refreshToken).not.toBe(first.refreshToken)
    expect(decodeJwt(second.token).exp! - decodeJwt(second.token).iat!).toBe(9000)
    server.advance(11_000)
    expect((await post('/api/auth/token', { refreshToken: first.refreshToken })).json()).toMatchObject({
      status: 401,
      errorCode: 'TOKEN_EXPIRED',
    })
    expect((await post('/api/auth/token', { refreshToken: second.refreshToken })).statusCode).toBe(401)
  })

  it('keeps the two kinds of refresh tokens apart', async () => {
    const compat = await logIn()
    expect((await refresh(server, compat.refreshToken)).json().user).toBeNull()
    const native = await signIn(server, adminEmail)
    expect((await post('/api/auth/token', { refreshToken: native.refreshToken })).statusCode).toBe(401)
    expect((await post('/api/auth/token', { refreshToken: compat.refreshToken })).statusCode).toBe(200)
  })

  it('describes the user', async () => {
    const { token } = await logIn()
    const answer = await server.app.inject({ url: '/api/auth/user', headers: { 'x-authorization': `Bearer ${token}` } })
    expect(answer.json()).toMatchObject({
      id: { entityType: 'USER' },
      tenantId: { entityType: 'TENANT', id: server.context.rootTenant.tenantId },
      customerId: { entityType: 'CUSTOMER', id: '13814000-1dd2-11b2-8080-808080808080' },
      email: 'linda.chen@example.com',
      authority: 'TENANT_ADMIN',
      firstName: 'Linda',
      lastName: null,
      additionalInfo: {},
    })
    expect((await server.app.inject('/api/auth/user')).statusCode).toBe(401)
  })

  it('signs out of this session with an empty 200, and the token is dead at once', async () => {
    const [mine, other] = [await logIn(), await logIn()]
    const answer = await post('/api/auth/logout', {}, mine.token)
    expect([answer.statusCode, answer.body]).toEqual([200, ''])
    expect((await post('/api/auth/logout', {}, mine.token)).statusCode).toBe(401)
    expect((await post('/api/auth/token', { refreshToken: mine.refreshToken })).statusCode).toBe(401)
    expect((await post('/api/auth/logout', {}, other.token)).statusCode).toBe(200)
  })
})
