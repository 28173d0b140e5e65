// SPDX-License-Identifier: AGPL-3.0-only
import { existsSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Config } from '../config.ts'
import { tenants } from '../db/tables.ts'
import { createConsoleResetLink, createConsoleSetupLink } from './admin.ts'
import { ensureSetup } from './setup.ts'
import { adminEmail, completeTestSetup, listEvents, ownPage, password, setupToken, signIn, startPeopleServer } from './testing.ts'
import type { PeopleServer } from './testing.ts'

async function useServer(change: Partial<Config> = {}): Promise<PeopleServer> {
  const server = await startPeopleServer(change)
  onTestFinished(() => server.close())
  return server
}

function postSetup(server: PeopleServer, change: Record<string, unknown> = {}, headers: Record<string, string> = {}) {
  const payload = {
    token: setupToken(server.context),
    name: 'Linda',
    email: adminEmail,
    password,
    language: 'zh',
    timeZone: 'Asia/Shanghai',
    siteName: '一号工厂',
    ...change,
  }
  return server.app.inject({ method: 'POST', url: '/api/v1/setup', headers: { ...ownPage, ...headers }, payload })
}

describe('the first start [SC-10]', () => {
  it('writes a link with 43 characters in the fragment to a file only the owner can read, and returns it for printing', async () => {
    const { context, setup } = await useServer({ publicUrl: new URL('https://iot.example.com/pms/') })
    const file = join(context.config.dataDir, 'setup-link.txt')
    expect(setup.link).toMatch(/^https:\/\/iot\.example\.com\/pms\/setup#t=[\w-]{43}$/)
    expect(readFileSync(file, 'utf8').trim()).toBe(setup.link)
    expect(statSync(file).mode & 0o777).toBe(0o600)
  })

  it('answers 503 SETUP_REQUIRED until the administrator exists, except set-up and refresh', async () => {
    const server = await useServer()
    for (const [method, url] of [
      ['POST', '/api/v1/auth/login'],
      ['GET', '/api/v1/me'],
      ['GET', '/api/v1/users'],
      ['POST', '/api/auth/login'],
    ] as const) {
      const answer = await server.app.inject({ method, url, ...(method === 'POST' ? { payload: {} } : {}) })
      expect([answer.statusCode, answer.json().code ?? answer.json().errorCode], url).toEqual([503, 'SETUP_REQUIRED'])
    }
    expect((await server.app.inject('/api/v1/setup')).json()).toEqual({ needed: true })
    const refreshed = await server.app.inject({ method: 'POST', url: '/api/v1/auth/refresh', headers: ownPage, payload: {} })
    expect(refreshed.json()).toMatchObject({ user: null, setupNeeded: true, site: { language: 'zh', version: '1.2.3' } })
  })

  it('makes the administrator, names the site, signs in, and removes the file', async () => {
    const server = await useServer()
    const answer = await postSetup(server)
    expect(answer.statusCode).toBe(201)
    const body = answer.json()
    expect(body).toMatchObject({
      user: { name: 'Linda', email: 'linda.chen@example.com', role: 'admin', language: 'zh' },
      prefs: {},
      site: {
        name: '一号工厂',
        timeZone: 'Asia/Shanghai',
        language: 'zh',
        version: '1.2.3',
        hasDemo: false,
        testHooks: [],
        insecure: false,
      },
    })
    expect(body.permissions).toContain('settings.write')
    expect(answer.cookies.map((one) => one.name)).toContain('iot_pms_refresh')
    expect(existsSync(join(server.context.config.dataDir, 'setup-link.txt'))).toBe(false)
    const [site] = await server.context.db.withTenant(server.context.rootTenant, (tx) => tx.select().from(tenants))
    expect(site).toMatchObject({ name: '一号工厂', timeZone: 'Asia/Shanghai', locale: 'zh' })
    const me = await server.app.inject({ url: '/api/v1/me', headers: { authorization: `Bearer ${body.accessToken}` } })
    expect(me.json()).toMatchObject({ user: { name: 'Linda' } })
    expect(await listEvents(server, 'setup')).toMatchObject([{ outcome: 'ok', address: '127.0.0.1' }])
    await signIn(server, adminEmail)
  })

  it('is 404 for GET and POST once a user exists', async () => {
    const server = await useServer()
    const token = setupToken(server.context)
    await completeTestSetup(server)
    expect((await server.app.inject('/api/v1/setup')).statusCode).toBe(404)
    expect(
      (
        await server.app.inject({
          method: 'POST',
          url: '/api/v1/setup',
          payload: { token, name: 'Eve', email: 'eve@example.com', password, language: 'en', timeZone: 'UTC', siteName: 'x' },
        })
      ).statusCode,
    ).toBe(404)
  })

  it('lets exactly one of several simultaneous callers become the administrator', async () => {
    const server = await useServer()
    const answers = await Promise.all(
      [1, 2, 3].map((n) => postSetup(server, { token: setupToken(server.context), email: `admin${n}@example.com` })),
    )
    expect(answers.map((one) => one.statusCode).toSorted((a, b) => a - b)).toEqual([201, 404, 404])
  })

  it('refuses a wrong link and one older than 60 minutes with 401 TOKEN_INVALID', async () => {
    const server = await useServer()
    const wrong = await postSetup(server, { token: 'A'.repeat(43) })
    expect([wrong.statusCode, wrong.json().code]).toEqual([401, 'TOKEN_INVALID'])
    server.advance(59 * 60_000)
    expect((await postSetup(server, { password: 'short' })).statusCode).toBe(422)
    server.advance(2 * 60_000)
    const late = await postSetup(server)
    expect([late.statusCode, late.json().code]).toEqual([401, 'TOKEN_INVALID'])
  })

  it("says in the caller's language why a password is refused, and keeps the link good", async () => {
    const server = await useServer()
    const zh = await postSetup(server, { password: 'aaaa' })
    expect(zh.json()).toMatchObject({
      status: 422,
      code: 'PASSWORD_WEAK',
      errors: [{ pointer: '/password', detail: '密码至少 10 个字符。' }, { pointer: '/password' }],
    })
    const en = await postSetup(server, { password: 'aaaa' }, { 'accept-language': 'en' })
    expect(en.json().errors[0].detail).toBe('A password has at least 10 characters.')
    expect((await postSetup(server)).statusCode).toBe(201)
  })

  it('refuses an unknown time zone, an offset, and unknown members', async () => {
    const server = await useServer()
    expect((await postSetup(server, { timeZone: 'Mars/Olympus' })).json()).toMatchObject({ status: 422, code: 'TIME_ZONE_UNKNOWN' })
    expect((await postSetup(server, { timeZone: '+08:00' })).json()).toMatchObject({ status: 422, code: 'TIME_ZONE_UNKNOWN' })
    expect((await postSetup(server, { role: 'admin' })).json()).toMatchObject({
      status: 400,
      code: 'VALIDATION_FAILED',
      errors: [{ pointer: '/role' }],
    })
  })

  it('binds the link to the e-mail of the settings when only that is given', async () => {
    const server = await useServer({ admin: { email: 'boss@example.com', password: undefined } })
    expect((await postSetup(server)).json()).toMatchObject({ status: 422, code: 'UNPROCESSABLE', errors: [{ pointer: '/email' }] })
    expect((await postSetup(server, { email: 'Boss@Example.com' })).statusCode).toBe(201)
  })

  it('makes the administrator of the settings without a link', async () => {
    const server = await useServer({ admin: { email: 'Boss@Example.com', password } })
    expect(server.setup.link).toBeUndefined()
    expect(existsSync(join(server.context.config.dataDir, 'setup-link.txt'))).toBe(false)
    expect((await signIn(server, 'boss@example.com')).body).toMatchObject({ user: { role: 'admin' } })
  })

  it('refuses to start with a weak password in the settings, naming every reason and exit code 78 [SC-12]', async () => {
    await expect(startPeopleServer({ admin: { email: 'boss@example.com', password: 'boss' } })).rejects.toMatchObject({
      code: 'PASSWORD_WEAK',
      exitCode: 78,
    })
  })

  it('ignores the settings once users exist: they never reset a password [SC-11]', async () => {
    const server = await useServer({ admin: { email: 'boss@example.com', password } })
    const changed = {
      ...server.people,
      context: {
        ...server.context,
        config: { ...server.context.config, admin: { email: 'boss@example.com', password: 'another good phrase' } },
      },
    }
    expect((await ensureSetup(changed)).isSetUp()).toBe(true)
    await expect(signIn(server, 'boss@example.com', 'another good phrase')).rejects.toThrow('401')
    await signIn(server, 'boss@example.com')
  })

  it('learns within a second that another process finished the set-up', async () => {
    const server = await useServer()
    const other = { ...server.people, setup: { isDone: false } }
    const setup = await ensureSetup(other)
    await completeTestSetup(server)
    server.advance(1500)
    setup.isSetUp()
    await expect.poll(() => setup.isSetUp()).toBe(true)
  })
})

describe("the administrator's console", () => {
  it('makes a new set-up link while no user exists and refuses afterwards', async () => {
    const server = await useServer()
    const { link } = await createConsoleSetupLink(server.context)
    expect(link).toContain(setupToken(server.context))
    await completeTestSetup(server)
    await expect(createConsoleSetupLink(server.context)).rejects.toMatchObject({ code: 'SETUP_DONE', exitCode: 64 })
  })

  it('makes a reset link that works once, for 60 minutes, and ends all sessions [SC-11, SC-35]', async () => {
    const server = await useServer()
    const session = await completeTestSetup(server)
    const { link, expiresAt } = await createConsoleResetLink(server.context, adminEmail)
    expect(expiresAt.getTime() - server.context.clock.now()).toBeLessThanOrEqual(3_600_000)
    const token = /\/reset#t=([\w-]{43})$/.exec(link)![1]!
    const reset = (secret: string) => server.app.inject({ method: 'POST', url: '/api/v1/auth/reset', payload: { token, password: secret } })
    expect((await reset('aaaa')).json()).toMatchObject({ code: 'PASSWORD_WEAK' })
    expect((await reset('another good phrase')).statusCode).toBe(204)
    expect((await reset('another good phrase')).json()).toMatchObject({ status: 401, code: 'TOKEN_INVALID' })
    expect((await server.app.inject({ url: '/api/v1/me', headers: session.headers })).statusCode).toBe(401)
    await expect(signIn(server, adminEmail)).rejects.toThrow('401')
    await signIn(server, adminEmail, 'another good phrase')
    expect(await listEvents(server, 'password.reset-link')).toMatchObject([{ actor: 'console' }])
  })

  it('refuses an expired reset link and an unknown e-mail', async () => {
    const server = await useServer()
    await completeTestSetup(server)
    const { link } = await createConsoleResetLink(server.context, adminEmail)
    server.advance(61 * 60_000)
    const late = await server.app.inject({
      method: 'POST',
      url: '/api/v1/auth/reset',
      payload: { token: link.split('#t=')[1], password: 'another good phrase' },
    })
    expect(late.json()).toMatchObject({ status: 401, code: 'TOKEN_INVALID' })
    await expect(createConsoleResetLink(server.context, 'nobody@example.com')).rejects.toMatchObject({ code: 'USER_UNKNOWN' })
  })
})
