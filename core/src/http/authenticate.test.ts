// SPDX-License-Identifier: AGPL-3.0-only
import { createHmac, randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Secrets } from '../secrets.ts'
import { addUser, completeTestSetup, startPeopleServer } from '../users/testing.ts'
import type { Login, PeopleServer } from '../users/testing.ts'
import { signAccessToken } from '../users/tokens.ts'

let server: PeopleServer
let admin: Login
beforeAll(async () => {
  server = await startPeopleServer()
  admin = await completeTestSetup(server)
})
afterAll(() => server.close())

type Members = Record<string, unknown>
const decode = (part: string): Members => JSON.parse(Buffer.from(part, 'base64url').toString())
const encode = (value: Members) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** A token that our own key has signed, with members changed; undefined takes one away. */
function forge(header: Members, claims: Members, key: Buffer = server.context.secrets.derive('jwt'), hash = 'sha256'): string {
  const [head = '', body = ''] = admin.accessToken.split('.')
  const text = `${encode({ ...decode(head), ...header })}.${encode({ ...decode(body), ...claims })}`
  return `${text}.${createHmac(hash, key).update(text).digest('base64url')}`
}

async function call(authorization: string | undefined, name = 'authorization') {
  const answer = await server.app.inject({ url: '/api/v1/me', headers: authorization === undefined ? {} : { [name]: authorization } })
  return { status: answer.statusCode, code: answer.statusCode === 200 ? undefined : answer.json().code }
}
const refused = { status: 401, code: 'TOKEN_INVALID' }

describe('the access token [SC-20]', () => {
  it('has exactly the members of the specification and lives 15 minutes', () => {
    const [head = '', body = ''] = admin.accessToken.split('.')
    const claims = decode(body)
    expect(decode(head)).toEqual({ alg: 'HS256', typ: 'at+jwt', kid: server.context.secrets.keyId })
    expect(Object.keys(claims).sort()).toEqual(['aud', 'exp', 'iat', 'iss', 'sid', 'sub', 'sv', 'tid'])
    expect(claims).toMatchObject({ iss: 'iot-pms', aud: server.context.installId, tid: server.context.rootTenant.tenantId, sv: 1 })
    expect(Number(claims['exp']) - Number(claims['iat'])).toBe(900)
  })

  it('is accepted when forged with our own key and nothing changed: the control of the refusals below', async () => {
    expect(await call(`Bearer ${forge({}, {})}`)).toEqual({ status: 200 })
  })

  it.each<[string, () => string]>([
    [
      'alg none without a signature',
      () => `${encode({ alg: 'none', typ: 'at+jwt', kid: server.context.secrets.keyId })}.${admin.accessToken.split('.')[1]}.`,
    ],
    ['alg none with our signature', () => forge({ alg: 'none' }, {})],
    ['alg HS512', () => forge({ alg: 'HS512' }, {}, undefined, 'sha512')],
    ['alg RS256', () => forge({ alg: 'RS256' }, {})],
    ['another key', () => forge({}, {}, randomBytes(32))],
    ['an empty key', () => forge({}, {}, Buffer.alloc(0))],
    ['another kid', () => forge({ kid: 'deadbeef' }, {})],
    ['no kid', () => forge({ kid: undefined }, {})],
    ['a kid that is a path', () => forge({ kid: '../../dev/null' }, {})],
    ['a jwk in the header', () => forge({ jwk: { kty: 'oct', k: 'AAAA' } }, {})],
    ['a jku in the header', () => forge({ jku: 'https://evil.example/jwks.json' }, {})],
    ['an x5u in the header', () => forge({ x5u: 'https://evil.example/x' }, {})],
    ['an x5c in the header', () => forge({ x5c: ['AAAA'] }, {})],
    ['a crit in the header', () => forge({ crit: ['exp'] }, {})],
    ['typ JWT', () => forge({ typ: 'JWT' }, {})],
    ['no typ', () => forge({ typ: undefined }, {})],
    ['a foreign audience', () => forge({}, { aud: 'another installation' })],
    ['our audience among others', () => forge({}, { aud: [server.context.installId, 'x'] })],
    ['no audience', () => forge({}, { aud: undefined })],
    ['a foreign issuer', () => forge({}, { iss: 'thingsboard.io' })],
    ['no end', () => forge({}, { exp: undefined })],
    ['no session', () => forge({}, { sid: undefined })],
    ['an unknown session', () => forge({}, { sid: '01900000-0000-7000-8000-000000000000' })],
    ['another version of the user', () => forge({}, { sv: 2 })],
    ['the version as text', () => forge({}, { sv: '1' })],
    ['another tenant', () => forge({}, { tid: '01900000-0000-7000-8000-000000000000' })],
    ['another user', () => forge({}, { sub: '01900000-0000-7000-8000-000000000000' })],
    [
      'a changed last character of the signature',
      () => admin.accessToken.slice(0, -2) + (admin.accessToken.at(-2) === 'A' ? 'B' : 'A') + admin.accessToken.at(-1),
    ],
    ['one part too few', () => admin.accessToken.split('.').slice(0, 2).join('.')],
  ])('is refused with %s', async (_name, make) => {
    expect(await call(`Bearer ${make()}`)).toEqual(refused)
  })

  it('is refused once it is over, with 30 s for clocks that differ', async () => {
    const now = Math.floor(server.context.clock.now() / 1000)
    expect(await call(`Bearer ${forge({}, { iat: now - 925, exp: now - 25 })}`)).toEqual({ status: 200 })
    expect(await call(`Bearer ${forge({}, { iat: now - 935, exp: now - 35 })}`)).toEqual(refused)
  })

  it('is refused when another installation signed it', async () => {
    const [, body = ''] = admin.accessToken.split('.')
    const { sub, sid, tid } = decode(body)
    const claims = { userId: String(sub), sessionId: String(sid), sessionVersion: 1, tenantId: String(tid) }
    expect(
      await call(`Bearer ${await signAccessToken(new Secrets(randomBytes(32)), server.context.installId, claims, Date.now(), 900)}`),
    ).toEqual(refused)
    expect(await call(`Bearer ${await signAccessToken(server.context.secrets, 'other', claims, Date.now(), 900)}`)).toEqual(refused)
  })
})

describe('the credential of a request', () => {
  it('is taken from Authorization or X-Authorization [TB-1]', async () => {
    expect(await call(`Bearer ${admin.accessToken}`, 'x-authorization')).toEqual({ status: 200 })
    expect(await call(`bearer  ${admin.accessToken}`)).toEqual({ status: 200 })
  })

  it('is never taken from the query or a cookie', async () => {
    const query = await server.app.inject(`/api/v1/me?token=${admin.accessToken}&access_token=${admin.accessToken}`)
    expect(query.statusCode).toBe(401)
    const cookie = await server.app.inject({
      url: '/api/v1/me',
      cookies: { iot_pms_refresh: admin.refreshToken, token: admin.accessToken },
    })
    expect(cookie.statusCode).toBe(401)
  })

  it.each([[undefined], [''], ['Bearer'], ['Bearer a b'], ['Basic YTpi'], ['Bearer pmsk_abc'], ['ApiKey eyJ.eyJ.x']])(
    'is refused as 401 TOKEN_INVALID: %s',
    async (text) => {
      expect(await call(text)).toEqual(refused)
    },
  )
})

describe('roles [SC-86]', () => {
  it('give a viewer reading, an operator devices, an administrator everything', async () => {
    const viewer = await addUser(server, admin, 'viewer', 'viewer@example.com')
    const operator = await addUser(server, admin, 'operator', 'operator@example.com')
    const calls = [
      ['GET', '/api/v1/test/devices'],
      ['POST', '/api/v1/test/devices'],
      ['GET', '/api/v1/api-keys'],
      ['GET', '/api/v1/users'],
      ['DELETE', '/api/v1/users/01900000-0000-7000-8000-000000000000'],
    ] as const
    const statuses = []
    for (const login of [viewer, operator, admin]) {
      statuses.push(
        await Promise.all(
          calls.map(([method, url]) => server.app.inject({ method, url, headers: login.headers }).then((answer) => answer.statusCode)),
        ),
      )
    }
    expect(statuses).toEqual([
      [200, 403, 403, 403, 403],
      [200, 200, 200, 403, 403],
      [200, 200, 200, 200, 404],
    ])
  })

  it('name the missing permission in the refusal', async () => {
    const viewer = await addUser(server, admin, 'viewer', 'viewer2@example.com')
    const answer = await server.app.inject({ url: '/api/v1/users', headers: { ...viewer.headers, 'accept-language': 'en' } })
    expect(answer.json()).toMatchObject({ status: 403, code: 'PERMISSION_DENIED', detail: 'No permission: user.read is needed.' })
  })
})
