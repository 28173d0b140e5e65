// SPDX-License-Identifier: AGPL-3.0-only
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Clock } from '../clock.ts'
import { LoginLimits, networkOf } from './login-limits.ts'
import type { LoginTry } from './login-limits.ts'
import { addUser, adminEmail, completeTestSetup, listEvents, password, signIn, startPeopleServer } from './testing.ts'
import type { PeopleServer } from './testing.ts'

const minute = 60_000

describe('login limits [SC-32]', () => {
  let now = 0
  let floods = 0
  let limits: LoginLimits
  const clock: Clock = { now: () => now, monotonic: () => now, after: () => () => {} }
  beforeEach(() => {
    now = 1_000_000
    floods = 0
    limits = new LoginLimits(clock, () => floods++)
  })

  /** A try that fails unless `ok`; the milliseconds to wait when it was not looked at. */
  function attempt(change: Partial<LoginTry> = {}, ok = false): number {
    const one = limits.begin({ account: 'a@example.com', address: '192.0.2.1', deviceId: undefined, ...change })
    if ('waitMs' in one) return one.waitMs
    if (ok) one.succeed()
    return 0
  }

  it('delay the sixth try from a network by 1 s, then 2, 4 … 60 s', () => {
    for (let i = 0; i < 5; i++) expect(attempt()).toBe(0)
    const waits = []
    for (let i = 0; i < 9; i++) {
      const wait = attempt()
      waits.push(wait / 1000)
      now += wait
      expect(attempt()).toBe(0)
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 32, 60, 60, 60])
  })

  it('do not count tries that came too early', () => {
    for (let i = 0; i < 5; i++) attempt()
    for (let i = 0; i < 100; i++) expect(attempt()).toBe(1000)
  })

  it('forget after 15 minutes, and at a success', () => {
    for (let i = 0; i < 5; i++) attempt()
    now += 15 * minute
    expect(attempt()).toBe(0)
    for (let i = 0; i < 4; i++) attempt()
    now += 1000
    expect(attempt({}, true)).toBe(0)
    for (let i = 0; i < 5; i++) expect(attempt()).toBe(0)
  })

  it('count by network: /24 of IPv4, /56 of IPv6, and by account', () => {
    for (let i = 0; i < 5; i++) attempt({ address: `192.0.2.${i}` })
    expect(attempt({ address: '192.0.2.200' })).toBe(1000)
    expect(attempt({ address: '192.0.3.1' })).toBe(0)
    expect(attempt({ account: 'b@example.com' })).toBe(0)
    expect(networkOf('2001:db8:1:2ff::1')).toBe(networkOf('2001:DB8:1:200:ffff::'))
    expect(networkOf('2001:db8:1:2ff::1')).not.toBe(networkOf('2001:db8:1:300::1'))
    expect(networkOf('::1')).toBe('0000:0000:0000:00')
    expect(networkOf('192.0.2.1:4711')).toBeTypeOf('string')
    expect(networkOf('fe80::1%eth0')).toBe(networkOf('fe80::2'))
  })

  it('slow strangers down to one try per minute after 30 failures in an hour, from wherever they come', () => {
    for (let i = 0; i < 30; i++) expect(attempt({ address: `10.0.${i}.1` })).toBe(0)
    expect(attempt({ address: '10.1.0.1' })).toBe(minute)
    now += minute
    expect(attempt({ address: '10.1.1.1' })).toBe(0)
    expect(attempt({ address: '10.1.2.1' })).toBe(minute)
  })

  it('never lock out a known device: strangers do not touch its counter', () => {
    for (let i = 0; i < 200; i++) attempt({ address: `10.0.${i}.1` })
    for (let i = 0; i < 5; i++) expect(attempt({ deviceId: 'phone', address: '10.0.0.1' })).toBe(0)
    expect(attempt({ deviceId: 'phone' })).toBe(1000)
    expect(attempt({ deviceId: 'laptop' })).toBe(0)
  })

  it('block an address for 15 minutes after 100 failures in an hour, except with a known device', () => {
    for (let i = 0; i < 100; i++) expect(attempt({ account: `u${i}@example.com` })).toBe(0)
    expect(attempt({ account: 'new@example.com' })).toBe(15 * minute)
    expect(attempt({ account: 'new@example.com', address: '192.0.2.2' })).toBe(0)
    expect(attempt({ account: 'new@example.com', deviceId: 'phone' })).toBe(0)
    now += 15 * minute
    expect(attempt({ account: 'new@example.com' })).toBe(0)
  })

  it('treat the addresses of one IPv6 /64 as one', () => {
    for (let i = 0; i < 100; i++) attempt({ account: `u${i}@example.com`, address: `2001:db8::${i}` })
    expect(attempt({ account: 'new@example.com', address: '2001:db8::ffff:1' })).toBe(15 * minute)
  })

  it('tell once an hour when 1,000 logins fail in the installation, and lock nothing', () => {
    const many = (count: number, at: string) => {
      for (let i = 0; i < count; i++) {
        expect(attempt({ account: `${at}${i}@example.com`, address: `10.${at}.${i % 250}.${i % 200}` })).toBe(0)
      }
    }
    many(999, '1')
    expect(floods).toBe(0)
    many(500, '2')
    expect(floods).toBe(1)
    now += 61 * minute
    many(1000, '3')
    expect(floods).toBe(2)
  })

  it('admit no more parallel guesses than one after the other', () => {
    const running = Array.from({ length: 50 }, () => limits.begin({ account: 'a@example.com', address: '192.0.2.1', deviceId: undefined }))
    expect(running.filter((one) => !('waitMs' in one))).toHaveLength(5)
  })

  it('do not count a try that the server was too busy to look at', () => {
    for (let i = 0; i < 50; i++) {
      const one = limits.begin({ account: 'a@example.com', address: '192.0.2.1', deviceId: undefined })
      if ('waitMs' in one) throw new Error('counted')
      one.cancel()
    }
    expect(attempt()).toBe(0)
  })

  it('stay bounded in memory however many accounts are tried', () => {
    for (let i = 0; i < 60_000; i++) attempt({ account: `${i}@example.com`, address: `10.${i >> 16}.${(i >> 8) & 255}.${i & 255}` })
    expect(attempt({ account: 'last@example.com' })).toBe(0)
  })
})

describe('limits at the login', () => {
  let server: PeopleServer
  beforeAll(async () => {
    server = await startPeopleServer()
    await completeTestSetup(server)
  })
  afterAll(() => server.close())

  const attempt = (email: string, secret: string, change: { address?: string; cookies?: Record<string, string>; url?: string } = {}) =>
    server.app.inject({
      method: 'POST',
      url: change.url ?? '/api/v1/auth/login',
      headers: { 'x-forwarded-for': change.address ?? '203.0.113.7' },
      cookies: change.cookies ?? {},
      payload: change.url ? { username: email, password: secret } : { email, password: secret },
    })

  it('answer 429 LOGIN_DELAYED with Retry-After, for existing and unknown accounts alike, also to the right password', async () => {
    const answers = []
    for (const [email, address] of [
      [adminEmail, '203.0.113.7'],
      ['nobody@example.com', '203.0.114.7'],
    ] as const) {
      for (let i = 0; i < 5; i++) expect((await attempt(email, 'wrong password', { address })).statusCode).toBe(401)
      const answer = await attempt(email, password, { address })
      answers.push({ status: answer.statusCode, retryAfter: answer.headers['retry-after'], body: { ...answer.json(), traceId: '' } })
    }
    expect(answers[0]).toMatchObject({ status: 429, retryAfter: '1', body: { code: 'LOGIN_DELAYED' } })
    expect(answers[1]).toEqual(answers[0])
    server.advance(1000)
    expect((await attempt(adminEmail, password)).statusCode).toBe(200)
  })

  it('are shared with the compatible login', async () => {
    for (let i = 0; i < 5; i++) {
      expect((await attempt('shared@example.com', 'wrong password', { url: '/api/auth/login' })).statusCode).toBe(401)
    }
    expect((await attempt('shared@example.com', 'wrong password')).statusCode).toBe(429)
  })

  it('let a browser in that has signed in as this user before, while strangers are slowed down', async () => {
    const admin = await signIn(server, adminEmail)
    const email = 'target@example.com'
    const user = await addUser(server, admin, 'viewer', email)
    for (let i = 0; i < 30; i++) await attempt(email, 'wrong password', { address: `10.9.${i}.1` })
    expect((await attempt(email, password, { address: '10.10.0.1' })).statusCode).toBe(429)
    const cookies = { iot_pms_known: user.cookies['iot_pms_known']! }
    expect((await attempt(email, password, { address: '10.10.0.1', cookies })).statusCode).toBe(200)
    for (const forged of [
      `${user.id}.x.${Date.now() + 1e9}.AAAA`,
      cookies.iot_pms_known.replace(user.id, (admin.body['user'] as { id: string }).id),
      admin.cookies['iot_pms_known']!,
    ]) {
      expect((await attempt(email, password, { address: '10.10.0.1', cookies: { iot_pms_known: forged } })).statusCode).toBe(429)
    }
    server.advance(180 * 86_400_000 + 1)
    for (let i = 0; i < 30; i++) await attempt(email, 'wrong password', { address: `10.9.${i}.1` })
    expect((await attempt(email, password, { address: '10.10.0.1', cookies })).statusCode).toBe(429)
  })

  it('note a flood of failures as a security event', async () => {
    for (let i = 0; i < 1000; i++) {
      server.people.limits.begin({ account: `f${i}@example.com`, address: `10.20.${i % 250}.1`, deviceId: undefined })
    }
    await expect.poll(() => listEvents(server, 'login.flood')).toMatchObject([{ actor: 'system', outcome: 'denied' }])
  })
})
